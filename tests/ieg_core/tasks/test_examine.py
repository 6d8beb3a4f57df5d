# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses
import json
import stat
import subprocess

import pytest

from ieg_core.data.open import open_source
from ieg_core.store import fingerprint, leases, seal
from ieg_core.store import gcs as storage
from ieg_core.store.records import Finding
from ieg_core.tasks import examine as doctor
from ieg_core.tasks.examine import Place, checks_for, examine
from tests import gcs
from tests.ieg_core.data.trees import write_tree


@pytest.fixture
def place(tmp_path):
    return Place("digits", str(tmp_path / "data"), str(tmp_path / "runs"), require_gpu=False)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_the_image_says_what_runs_and_leaves_no_probe(place, scratch):
    found = examine("image", place)
    assert found.ok
    assert f"code {fingerprint.code_version()}" in found.text
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_written_fails_the_image(place, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "file"))
    found = examine("image", place)
    assert not found.ok
    assert "cannot write" in found.text


def test_the_data_have_the_known_digest(place):
    found = examine("data", place)
    assert found.ok
    assert "digits, 1438 training and 359 test images" in found.text
    assert doctor.KNOWN_DIGESTS["digits"][:12] in found.text


def test_altered_data_are_told(place, monkeypatch):
    source = dataclasses.replace(open_source("digits", place.data_dir), digest="0" * 64)
    monkeypatch.setattr(doctor, "open_source", lambda base, folder, images: source)
    found = examine("data", place)
    assert not found.ok
    assert "has the digest 000000000000, expected" in found.text


def test_missing_data_are_told(place):
    found = examine("data", dataclasses.replace(place, base="cifar10", data_dir="absent/data"))
    assert not found.ok
    assert "no data directory" in found.text


def test_all_that_a_sweep_would_read_is_opened(place, tmp_path):
    counts = {"train": 2, "val": 1}
    write_tree(tmp_path / "data" / "webvisionmini", counts, kind="jpg")
    lacking = examine("data", dataclasses.replace(place, base="webvisionmini"))
    assert not lacking.ok
    assert "there is no second test set" in lacking.text
    write_tree(tmp_path / "data" / "webvisionmini", {"imagenet": 1}, kind="jpg")
    found = examine("data", dataclasses.replace(place, base="webvisionmini"))
    assert found.ok
    assert "6 training and 3 test images" in found.text


def test_a_checkpoint_is_written_and_read_back_and_nothing_stays(place, tmp_path):
    found = examine("checkpoint", place)
    assert found.ok, found.text
    assert "MiB/s" in found.text
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []


def test_a_results_root_that_cannot_be_written_is_told(place, tmp_path):
    (tmp_path / "runs").write_text("a file")
    found = examine("checkpoint", place)
    assert not found.ok
    assert "cannot write results under" in found.text


def test_a_file_system_that_grants_a_lock_twice_is_told(place, monkeypatch):
    @contextlib.contextmanager
    def held(folder):
        yield True

    monkeypatch.setattr(leases, "trial_lock", held)
    found = examine("checkpoint", place)
    assert not found.ok
    assert "grants a file lock twice" in found.text


def test_a_file_system_without_locks_will_do(place, monkeypatch):
    monkeypatch.setattr(leases, "lock", lambda handle: None)
    assert examine("checkpoint", place).ok


def test_a_disk_that_gives_back_other_bytes_is_told(place, monkeypatch):
    right = doctor.load_file
    monkeypatch.setattr(doctor, "load_file", lambda path: {"weights": right(path)["weights"] + 1})
    assert "other bytes" in examine("checkpoint", place).text


def answering(monkeypatch, **found):
    plain = {"backend": "tensorflow", "gpus": 0, "device": "CPU", "driver": ""} | found
    done = subprocess.CompletedProcess([], 0, f"noise\n{json.dumps(plain)}\n", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **named: done)


def test_a_gpu_that_is_asked_for_and_not_seen_is_told(place, monkeypatch):
    answering(monkeypatch)
    assert examine("gpu", place).ok
    found = examine("gpu", dataclasses.replace(place, require_gpu=True))
    assert not found.ok
    assert "sees no GPU in this pod" in found.text


def test_a_gpu_is_named_with_its_driver(place, monkeypatch):
    answering(monkeypatch, gpus=1, device="NVIDIA L4", driver="550.54.15")
    found = examine("gpu", dataclasses.replace(place, require_gpu=True))
    assert found.ok
    assert "1 GPU, NVIDIA L4, driver 550.54.15" in found.text


def test_a_framework_that_does_not_start_is_told(place, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: libcuda\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **named: done)
    assert "does not start: ImportError: libcuda" in examine("gpu", place).text


def test_an_unexpected_error_is_a_finding_of_one_line(place, monkeypatch):
    def broken(base, folder, images):
        raise OSError("a\nb")

    monkeypatch.setattr(doctor, "open_source", broken)
    found = examine("data", place)
    assert (found.ok, found.text) == (False, "OSError: a b")
    assert found.line == "FAIL data: OSError: a b"


def test_a_finding_is_left_in_the_results_root_where_that_is_possible(place, tmp_path):
    found = examine("data", place)
    doctor.write_down(place.results, "r1", found)
    path = tmp_path / "runs/doctor/r1/data.json"
    assert seal.unseal(json.loads(path.read_text())) == dataclasses.asdict(found)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    (tmp_path / "file").write_text("")
    doctor.write_down(str(tmp_path / "file"), "r1", found)  # says nothing: `checkpoint` does


def test_which_checks_there_are():
    assert checks_for("/results", False) == ["image", "data", "checkpoint"]
    assert checks_for("/results", True) == ["image", "gpu", "data", "checkpoint"]
    assert checks_for("gs://bucket/x", False) == ["image", "data", "checkpoint", "store"]


def test_an_artifact_comes_back_whole_or_is_told(tmp_path):
    path, uri = tmp_path / "note", "minio://mlpipeline/note"
    lost = doctor.check_artifact(path, uri, "r1")
    assert not lost.ok
    assert f"{uri} did not come back: No such file" in lost.text
    path.write_text("another")
    assert "came back as 'another', expected 'r1'" in doctor.check_artifact(path, uri, "r1").text
    path.write_text("r1")
    assert doctor.check_artifact(path, uri, "r1").ok


@pytest.fixture
def bucket(place, scratch, monkeypatch):
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield dataclasses.replace(place, results=f"gs://{gcs.BUCKET}/team")


def test_an_object_goes_round_and_nothing_stays(bucket):
    found = examine("store", bucket)
    assert found.ok, found.text
    assert "protected from a second writer" in found.text
    assert storage.list_files(bucket.results) == {}


def test_a_store_without_preconditions_is_told(bucket, monkeypatch):
    plain = storage.write
    monkeypatch.setattr(storage, "write", lambda url, data, generation=None: plain(url, data))
    found = examine("store", bucket)
    assert not found.ok
    assert "lets a second writer overwrite" in found.text
    assert storage.list_files(bucket.results) == {}


def test_a_bucket_that_is_not_there_is_told(bucket):
    found = examine("store", dataclasses.replace(bucket, results="gs://absent-bucket/team"))
    assert not found.ok
    assert "there is no bucket gs://absent-bucket" in found.text


def test_with_a_bucket_checkpoints_are_tried_in_the_scratch_folder(bucket, scratch):
    found = examine("checkpoint", bucket)
    assert found.ok, found.text
    assert f"scratch {scratch}" in found.text
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def test_a_finding_is_left_in_the_bucket(bucket):
    found = examine("store", bucket)
    doctor.write_down(bucket.results, "r1", found)
    assert Finding.read(bucket.results, "r1", "store") == found
