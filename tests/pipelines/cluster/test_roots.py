# SPDX-License-Identifier: Apache-2.0
"""The report of a finished run, fetched from wherever the results root lies."""

import pytest

from ieg_core import storage
from pipelines.cluster.roots import Root
from tests import gcs

FILES = {"report.html": b"<p>all is well</p>", "results.json": b"{}"}


def kept(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def bucket(monkeypatch):
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield f"gs://{gcs.BUCKET}/team"


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
    assert "ended before it listed its cells" in told
    assert not (tmp_path / "here" / "report.html").exists()


def test_a_bucket_that_cannot_be_read_is_named(bucket, tmp_path):
    place = "gs://another-bucket/team"
    told = Root(place, "label", sweep="s1").fetch_report(tmp_path / "here")
    assert told.startswith(f"{place}/sweeps/s1/report/report.html, which cannot be read from here")
