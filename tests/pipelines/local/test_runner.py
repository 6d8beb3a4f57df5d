# SPDX-License-Identifier: Apache-2.0
"""What kfp.local gets wrong by itself, and right under `pipelines.local.runner`."""

import builtins
import logging
import re
import subprocess

import pytest
from kfp import dsl

from components import component
from ieg_core.errors import UserError
from pipelines.local import runner


@component
def meet(name: str, folder: str, expected: int) -> str:
    """Waits until all have come: it fails where fewer run at once."""
    import time
    from pathlib import Path

    (Path(folder) / name).touch()
    deadline = time.monotonic() + 120
    while len(list(Path(folder).iterdir())) < expected:
        if time.monotonic() > deadline:
            raise RuntimeError("the others did not come")
        time.sleep(0.02)
    return name


@component
def be_alone(item: str, door: str) -> str:
    import time
    from pathlib import Path

    Path(door).mkdir()
    time.sleep(0.5)
    Path(door).rmdir()
    return item


@component
def write(folder: str, text: str) -> str:
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "text").write_text(text)
    return text


@component
def check(text: str, expected: str):
    if text != expected:
        raise ValueError(f"{text!r} arrived for {expected!r}")


@component
def fail(item: int) -> int:
    if item == 1:
        raise ValueError("boom")
    return item


def plain(task):
    return task.set_caching_options(False)


@dsl.pipeline(name="meeting")
def meeting(folder: str, names: list[str], expected: int):
    with dsl.ParallelFor(names) as name:
        plain(meet(name=name, folder=folder, expected=expected))


@dsl.pipeline(name="queueing")
def queueing(door: str, items: list[str]):
    with dsl.ParallelFor(items) as item:
        plain(be_alone(item=item, door=door))


@dsl.pipeline(name="writing")
def writing(folder: str, text: str):
    written = plain(write(folder=folder, text=text))
    plain(check(text=written.output, expected=text))


@dsl.pipeline(name="failing")
def failing(items: list[int] = [0, 1, 2]):  # noqa: B006
    with dsl.ParallelFor(items) as item:
        plain(fail(item=item))


@dsl.pipeline(name="unsound")
def unsound():
    write(folder="x", text="cached")


def test_as_many_iterations_run_at_once_as_asked_for(tmp_path):
    (tmp_path / "room").mkdir()
    arguments = {"folder": str(tmp_path / "room"), "names": ["a", "b", "c", "d"], "expected": 4}
    runner.run(meeting, arguments, scratch=tmp_path / "kfp", at_once=4)


def test_one_at_once_is_one_after_the_other(tmp_path):
    arguments = {"door": str(tmp_path / "door"), "items": ["a", "b"]}
    runner.run(queueing, arguments, scratch=tmp_path / "one", at_once=1)


def test_a_path_with_python3_in_it_stays_what_it_is(tmp_path):
    home = tmp_path / "python3-project"
    folder = home / "results"
    runner.run(
        writing,
        {"folder": str(folder), "text": "run python3 here"},
        scratch=home / "kfp",
        at_once=1,
    )
    assert (folder / "text").read_text() == "run python3 here"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["python3-project"]


@pytest.mark.parametrize("text", ["it's", 'say "hi"', "$HOME `id`", "ä\nb", ""])
def test_a_text_arrives_as_it_was(tmp_path, text):
    arguments = {"folder": str(tmp_path / "out"), "text": text}
    runner.run(writing, arguments, scratch=tmp_path / "kfp", at_once=1)
    assert (tmp_path / "out" / "text").read_text() == text


def test_printing_and_logging_are_afterwards_what_they_were(tmp_path):
    printing, handlers = builtins.print, list(logging.getLogger().handlers)
    (tmp_path / "room").mkdir()
    arguments = {"folder": str(tmp_path / "room"), "names": ["a", "b", "c"], "expected": 3}
    for attempt in ("one", "two"):
        runner.run(meeting, arguments, scratch=tmp_path / attempt, at_once=3)
    assert builtins.print is printing
    assert logging.getLogger().handlers == handlers


def test_the_output_is_neither_indented_nor_colored(tmp_path, capfd):
    arguments = {"folder": str(tmp_path / "out"), "text": "x"}
    runner.run(writing, arguments, scratch=tmp_path / "kfp", at_once=1)
    output = capfd.readouterr().out
    assert "[KFP Executor" in output
    assert not re.search(r"^\s+\[KFP Executor", output, re.MULTILINE)
    assert "\x1b" not in output


def test_a_failure_says_which_task_without_colors(tmp_path):
    with pytest.raises(RuntimeError) as error:
        runner.run(failing, {}, scratch=tmp_path / "kfp", at_once=3)
    message = str(error.value)
    assert "Inner task failed: 'fail' inside 'for-loop-1-iteration-1'" in message
    assert "\x1b" not in message


def test_a_text_that_kfp_takes_for_a_placeholder_is_refused(tmp_path):
    arguments = {"folder": str(tmp_path / "out"), "text": "{{$.inputs}}"}
    with pytest.raises(UserError, match="placeholder"):
        runner.run(writing, arguments, scratch=tmp_path / "kfp", at_once=1)


def test_a_remote_folder_for_kfps_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a local folder"):
        runner.run(writing, {}, scratch=f"gs://bucket{tmp_path}", at_once=1)


def test_an_unsound_pipeline_is_not_started(tmp_path):
    with pytest.raises(ValueError, match="write may be cached"):
        runner.run(unsound, {}, scratch=tmp_path / "kfp", at_once=1)
    assert not (tmp_path / "kfp").exists()


def test_an_interpreter_at_any_path_is_one_word_of_the_shell(tmp_path):
    interpreter = tmp_path / "a b$HOME'c" / "python"
    interpreter.parent.mkdir()
    interpreter.symlink_to("/bin/echo")
    shell = ["sh", "-ec", f"_KFP_RUNTIME=true python3 -m kfp {runner.PROGRAM}", "python3"]
    command = runner._with_interpreter(shell, str(interpreter))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"-m kfp {runner.PROGRAM}\n"
    assert command[3] == "python3"
    assert runner._with_interpreter(["python3", "-c", runner.PROGRAM], "a b")[0] == "a b"
