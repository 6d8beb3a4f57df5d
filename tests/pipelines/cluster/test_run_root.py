# SPDX-License-Identifier: Apache-2.0
"""The report of a finished run, fetched from wherever the results root lies."""

import collections
import threading
import types
from http import HTTPStatus

import pytest
from google.api_core.retry import retry_base, retry_unary

from ieg_core.store import gcs as storage
from ieg_core.store.record import below
from ieg_core.store.records import ProgressRecord, RunRecord
from pipelines.cluster.run_root import BUCKET_SECONDS, Root
from tests import gcs
from tests.clock import FakeClock
from tests.records import example

FILES = {"report.html": b"<p>all is well</p>", "results.json": b"{}"}


def kept(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def emulator(monkeypatch):
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield running


@pytest.fixture
def bucket(emulator):
    return f"gs://{gcs.BUCKET}/team"


def test_from_a_folder(tmp_path):
    report = tmp_path / "root" / "sweeps" / "s1" / "report"
    report.mkdir(parents=True)
    for name, content in FILES.items():
        (report / name).write_bytes(content)
    told = Root(str(tmp_path / "root"), "label", sweep="s1").fetch_report(tmp_path / "here")
    assert told == str(tmp_path / "here" / "report.html")
    assert kept(tmp_path / "here") == FILES


def test_from_a_bucket(bucket, tmp_path):
    for name, content in FILES.items():
        storage.write(f"{bucket}/sweeps/s1/report/{name}", content)
    told = Root(bucket, "label", sweep="s1").fetch_report(tmp_path / "here")
    assert told == str(tmp_path / "here" / "report.html")
    assert kept(tmp_path / "here") == FILES


def test_there_is_none(bucket, tmp_path):
    assert "ended before it" in Root(bucket, "label", sweep="s1").fetch_report(tmp_path / "here")
    told = Root(str(tmp_path), "label").fetch_report(tmp_path / "here")
    assert "ended before it listed its trials" in told
    assert not (tmp_path / "here" / "report.html").exists()


def test_what_cannot_be_read_is_no_early_end(emulator, bucket, tmp_path):
    """The run may have succeeded: only this machine does not see it."""
    example(RunRecord, sweep="s1").write(bucket, "label")
    root = Root(bucket, "label")
    emulator.failures = [HTTPStatus.FORBIDDEN]
    assert root.progress(0.0, 0.0) == ([], False)
    assert root.problem.startswith("no permission for gs://")
    told = root.fetch_report(tmp_path / "here")
    assert told.startswith(f"below {bucket}/sweeps, which cannot be read from here (no permission")
    root.progress(0.0, 0.0)
    assert (root.problem, root.sweep) == ("", "s1")


def test_a_run_without_a_label_lists_its_trials_nowhere(tmp_path):
    told = Root(str(tmp_path), "").fetch_report(tmp_path / "here")
    assert told == f"below {tmp_path}/sweeps: the run has no run_label to find it by"


def test_a_bucket_that_cannot_be_read_is_named(bucket, tmp_path):
    place = "gs://another-bucket/team"
    told = Root(place, "label", sweep="s1").fetch_report(tmp_path / "here")
    assert told.startswith(f"{place}/sweeps/s1/report/report.html, which cannot be read from here")


@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_a_root_that_is_lost_for_a_while_keeps_its_trials(emulator, bucket, tmp_path, where):
    """They would seem to wait, and a run of which nothing works is canceled (MAX_PENDING)."""
    place = bucket if where == "bucket" else str(tmp_path / "mounted")
    example(RunRecord, sweep="s1", trials=["a"]).write(place, "label")
    now = 1e9
    example(ProgressRecord, phase="training", updated=now).write(below(place, "trials/a"))
    root = Root(place, "label")
    (trial,), beats = root.progress(0.0, now)
    assert (trial.state, beats) == ("training", True)
    if where == "bucket":
        emulator.failures.append(HTTPStatus.FORBIDDEN)
    else:
        (tmp_path / "mounted").rename(tmp_path / "elsewhere")
    emulator.requests.clear()
    assert root.progress(0.0, now) == ([trial], True)
    assert root.problem
    assert len(emulator.requests) == (where == "bucket")
    if where == "folder":
        (tmp_path / "elsewhere").rename(tmp_path / "mounted")
    assert root.progress(0.0, now) == ([trial], True)
    assert root.problem == ""


def test_a_bucket_that_does_not_answer_is_given_up_in_time(emulator, bucket, monkeypatch):
    emulator.weather = lambda method, path: HTTPStatus.SERVICE_UNAVAILABLE
    # Google's library asks for the bucket itself in a thread of its own, which takes its own time.
    clocks = collections.defaultdict(FakeClock)
    fake = types.SimpleNamespace(
        sleep=lambda seconds: clocks[threading.get_ident()].sleep(seconds),
        monotonic=lambda: clocks[threading.get_ident()].monotonic(),
    )
    for module in (retry_base, retry_unary):
        monkeypatch.setattr(module, "time", fake)
    root = Root(bucket, "label")
    assert root.progress(0.0, 0.0) == ([], False)
    assert 0 < sum(clocks[threading.get_ident()].slept) <= BUCKET_SECONDS
    assert "cannot reach" in root.problem
