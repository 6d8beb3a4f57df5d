# SPDX-License-Identifier: Apache-2.0
import io
import os
import sys
import threading

from ieg_core.host.progress import ProgressLine, duration, timed
from tests.clock import FakeClock


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self):
        return self._is_terminal


class NotebookStream(Stream):
    """The class of a notebook's standard output is in the module ipykernel.iostream."""


NotebookStream.__module__ = "ipykernel.iostream"


def shown(stream, times, rate=2.0, **options):
    clock = FakeClock()
    began = clock.time
    line = ProgressLine("Features", stream=stream, clock=clock, **options)
    for seconds, done in times:
        clock.time = began + seconds
        line(done, 400, rate)
    line.close()
    return (stream or sys.stdout).getvalue()


def test_a_terminal_redraws_one_line():
    text = shown(Stream(True), [(0.1, 1), (1, 100), (1.1, 101), (150, 400)])
    assert text == (
        "\rFeatures: 100 of 400 images (25 %), 2/s, 2 min 30 s left"
        f"\r{'Features: 400 of 400 images (100 %), 2/s':<56}\r{'Features: 2 min 30 s':<40}\n"
    )


def test_a_narrow_terminal_gets_no_wrapped_line(monkeypatch):
    class Narrow(Stream):
        def fileno(self):
            return 7

    sizes = {7: os.terminal_size((40, 24))}
    monkeypatch.setattr("os.get_terminal_size", sizes.get)
    text = shown(Narrow(True), [(1, 100), (150, 400)])
    assert text == (
        "\r100 of 400 images (25 %), 2/s, 2 min 30"
        "\r400 of 400 images (100 %), 2/s         "
        "\rFeatures: 2 min 30 s          \n"
    )


def test_a_file_gets_a_line_every_ten_seconds():
    text = shown(Stream(False), [(1, 2), (11, 22), (15, 30), (22, 44)], unit="files")
    assert text == (
        "Features: 22 of 400 files (5 %), 2/s, 3 min 9 s left\n"
        "Features: 44 of 400 files (11 %), 2/s, 2 min 58 s left\n"
    )


def test_a_task_of_unknown_length_shows_its_time():
    for is_terminal, expected in (
        (
            True,
            "\rJudging: 1 s\rJudging: 1 min 5 s\rJudging: 2 min 9 s"
            + 2 * "\rJudging: 2 min 10 s"
            + "\n",
        ),
        (False, "Judging: 1 min 5 s\nJudging: 2 min 10 s\n"),
    ):
        clock, stream = FakeClock(), Stream(is_terminal)
        line = ProgressLine("Judging", stream=stream, clock=clock)
        for seconds in (0.1, 0.9, 64, 0.1, 63.9, 1):
            clock.time += seconds
            line.show_time()
        line.close()
        assert stream.getvalue() == expected


def test_the_time_is_shown_while_a_task_runs_and_not_after_it():
    class Line:
        def __init__(self):
            self.is_shown, self.is_closed = threading.Event(), False

        def show_time(self):
            self.is_shown.set()

        def close(self):
            self.is_closed = True

    line, before = Line(), threading.enumerate()
    with timed(line):
        assert line.is_shown.wait(60)
    assert threading.enumerate() == before
    assert line.is_closed


def test_a_notebook_redraws_on_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", NotebookStream(False))
    text = shown(None, [(1, 100)])
    assert text.startswith("\rFeatures: 100 of 400 images")


def test_the_rate_is_measured_since_the_first_update_where_none_is_given():
    text = shown(Stream(False), [(20, 100), (40, 200)], rate=None)
    assert text == (
        "Features: 100 of 400 images (25 %)\nFeatures: 200 of 400 images (50 %), 5/s, 40 s left\n"
    )


def test_durations():
    assert [duration(s) for s in (43.2, 485, 12000)] == ["43 s", "8 min 5 s", "3 h 20 min"]


def test_what_is_over_at_once_says_nothing():
    assert shown(Stream(True), [(0.1, 400)]) == ""
