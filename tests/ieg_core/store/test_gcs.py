# SPDX-License-Identifier: Apache-2.0
"""Against gcp-storage-emulator; tests/gcs.py says what that does not enforce."""

import io
import threading
import time
from http import HTTPStatus

import numpy as np
import pytest
import requests
import urllib3

from ieg_core.errors import UserError
from ieg_core.store import gcs as storage
from ieg_core.store import gcs_client
from ieg_core.store.gcs import StaleWriterError
from tests import gcs

ROOT = f"gs://{gcs.BUCKET}/team/runs"


@pytest.fixture
def emulator(monkeypatch):
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield running


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    files = {
        "config.json": b"{}",
        "empty": b"",
        "deep/down/name with spaces, ü.json": b"\r\n--x\r\n",
        "checkpoint/000001.safetensors": rng.bytes(20 * 1024**2 + 17),
    }
    for name, data in files.items():
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "from"


def names(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_comes_back_bit_for_bit(emulator, folder, tmp_path):
    files = names(folder)
    generations = storage.upload(ROOT, folder, files, dict.fromkeys(files, 0))
    listed = storage.list_files(ROOT)
    assert {name: stored.generation for name, stored in listed.items()} == generations
    assert {name: stored.size for name, stored in listed.items()} == {
        name: len(data) for name, data in files.items()
    }
    assert abs(listed["empty"].updated - time.time()) < 60
    storage.download(ROOT, listed, tmp_path / "to")
    assert names(tmp_path / "to") == files


def test_a_large_file_goes_up_in_chunks_that_are_tried_again_alone(emulator, folder):
    name = "checkpoint/000001.safetensors"
    chunks = []

    def break_the_second(method, path):
        if method == "PUT" and path.startswith("/upload"):
            chunks.append(path)
            if len(chunks) == 2:
                emulator.failures.append(HTTPStatus.SERVICE_UNAVAILABLE)

    emulator.on_request = break_the_second
    storage.upload(ROOT, folder, [name], {name: 0})
    assert len(chunks) == 4  # 20 MiB in chunks of 8, one of them twice
    assert storage.read(storage.join(ROOT, name))[0] == (folder / name).read_bytes()


def test_only_what_begins_with_a_prefix_is_listed(emulator, folder):
    files = names(folder)
    storage.upload(ROOT, folder, files, dict.fromkeys(files, 0))
    assert list(storage.list_files(ROOT, "check")) == ["checkpoint/000001.safetensors"]
    assert list(storage.list_files(f"gs://{gcs.BUCKET}/team/run")) == []
    assert len(storage.list_files(f"gs://{gcs.BUCKET}")) == len(files)


def test_transfers_run_side_by_side(emulator, tmp_path, monkeypatch):
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(b"x")
    together = threading.Barrier(storage.THREADS)
    send = storage._send

    def wait_for_the_others(*arguments):
        together.wait(120)
        return send(*arguments)

    monkeypatch.setattr(storage, "_send", wait_for_the_others)
    wanted = [str(number) for number in range(8)]
    storage.upload(ROOT, tmp_path, wanted, dict.fromkeys(wanted, 0))
    assert set(storage.list_files(ROOT)) == set(wanted)


def test_a_writer_that_cannot_look_who_wrote_is_not_called_stale(emulator):
    """Its answer was lost, and so was the look at what is there: it may have written itself."""
    weather = [gcs.AFTER, None, HTTPStatus.FORBIDDEN]
    emulator.weather = lambda method, path: weather.pop(0) if weather else None
    with pytest.raises(UserError, match="no permission"):
        storage.write(f"{ROOT}/progress.json", b"1", 0)
    assert storage.read(f"{ROOT}/progress.json")[0] == b"1"


def test_a_lost_answer_is_no_other_writer(emulator):
    weather = [gcs.AFTER]
    emulator.weather = lambda method, path: weather.pop(0) if weather else None
    generation = storage.write(f"{ROOT}/progress.json", b"1", 0)
    assert storage.read(f"{ROOT}/progress.json") == (b"1", generation)


def test_a_missing_object_reads_as_none(emulator):
    assert storage.read(f"{ROOT}/nothing") is None
    storage.delete(ROOT, ["nothing"])


def test_a_read_of_what_is_being_replaced_finds_the_new_object(emulator, monkeypatch):
    """Told that there was none, a pod would take a trial over whose heartbeat was just written."""
    url = f"{ROOT}/progress.json"
    storage.write(url, b"old")
    blob, replaced = storage._blob, []

    def replaced_after_its_first_look(url):
        made = blob(url)
        look = made.reload

        def reload(**options):
            look(**options)
            if not replaced:
                replaced.append(storage.write(url, b"new"))

        made.reload = reload
        return made

    monkeypatch.setattr(storage, "_blob", replaced_after_its_first_look)
    assert storage.read(url) == (b"new", replaced[0])


def test_a_write_replaces_only_the_generation_it_knows(emulator):
    url = f"{ROOT}/progress.json"
    first = storage.write(url, b"1", 0)
    with pytest.raises(StaleWriterError, match=r"progress\.json is no longer generation 0"):
        storage.write(url, b"another", 0)
    second = storage.write(url, b"2", first)
    assert second > first
    with pytest.raises(StaleWriterError):
        storage.write(url, b"3", first)
    assert storage.read(url) == (b"2", second)
    storage.delete(ROOT, {"progress.json": first})
    assert storage.read(url) is not None
    storage.delete(ROOT, {"progress.json": second})
    assert storage.read(url) is None
    storage.write(url, b"anything")
    storage.write(url, b"whatever was there")
    assert storage.read(url)[0] == b"whatever was there"


def test_a_large_file_too_replaces_only_the_generation_it_knows(emulator, folder):
    name = "checkpoint/000001.safetensors"
    storage.write(storage.join(ROOT, name), b"of another")
    with pytest.raises(StaleWriterError):
        storage.upload(ROOT, folder, [name], {name: 0})
    assert storage.read(storage.join(ROOT, name))[0] == b"of another"


def test_a_write_whose_answer_was_lost_is_no_stale_one(emulator):
    """The library asks again and is refused, for its own first try has arrived."""
    url = f"{ROOT}/lease.json"
    generation = storage.write(url, b"mine", 0)
    assert storage.write(url, b"mine", 0) == generation


def test_requests_that_fail_for_a_while_are_tried_again(emulator):
    busy = HTTPStatus.SERVICE_UNAVAILABLE
    emulator.failures = [busy, HTTPStatus.TOO_MANY_REQUESTS]
    generation = storage.write(f"{ROOT}/x", b"x", 0)
    emulator.failures = [busy]
    assert storage.read(f"{ROOT}/x") == (b"x", generation)
    emulator.failures = [busy]
    assert list(storage.list_files(ROOT)) == ["x"]


def test_what_stays_away_is_one_clear_line(emulator):
    emulator.failures = [HTTPStatus.SERVICE_UNAVAILABLE] * 100
    with (
        storage.deadline(0.5),
        pytest.raises(UserError, match="cannot reach gs://ieg/team/runs"),
    ):
        storage.list_files(ROOT)
    emulator.failures = [HTTPStatus.FORBIDDEN]
    with pytest.raises(UserError, match=r"no permission .* roles/storage\.objectUser on gs://ieg$"):
        storage.write(f"{ROOT}/x", b"x")
    with pytest.raises(UserError, match="there is no bucket gs://another"):
        storage.write("gs://another/x", b"x")


def test_an_endpoint_that_is_not_there_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with storage.deadline(0.5), pytest.raises(UserError, match="check the network"):
        storage.read(f"{ROOT}/x")


@pytest.mark.parametrize("url", ["gs://", "gs:///x", "s3://bucket/x", "runs"])
def test_what_names_no_bucket_is_refused(url):
    with pytest.raises(UserError, match="expected gs://bucket/folder"):
        storage.split(url)


def test_a_download_of_what_was_replaced_says_so_and_leaves_nothing(emulator, tmp_path):
    storage.write(f"{ROOT}/x", b"1")
    listed = storage.list_files(ROOT)
    storage.write(f"{ROOT}/x", b"2")
    with pytest.raises(FileNotFoundError, match="was replaced"):
        storage.download(ROOT, listed, tmp_path)
    storage.delete(ROOT, ["x"])
    with pytest.raises(FileNotFoundError):
        storage.download(ROOT, listed, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_not_taken(emulator, tmp_path):
    storage.write(f"{ROOT}/x", b"1")
    listed = storage.list_files(ROOT)
    wrong = storage.Stored(listed["x"].generation, 1, "AAAAAA==", 0.0)
    with pytest.raises(UserError, match=r"damaged in transfer: .*, expected AAAAAA==; run again"):
        storage.download(ROOT, {"x": wrong}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def damage(monkeypatch):
    """Lets the next contents arrive with their last byte changed; returns how many are to be."""
    left = [0]
    plain = requests.Session.request

    def damaging(self, method, url, **named):
        answer = plain(self, method, url, **named)
        if "alt=media" in url and left[0]:
            left[0] -= 1
            content = answer.raw.read()
            answer.raw = urllib3.HTTPResponse(
                io.BytesIO(content[:-1] + b"?"), answer.headers, preload_content=False
            )
        return answer

    monkeypatch.setattr(requests.Session, "request", damaging)
    return left


def test_what_comes_damaged_is_asked_for_again(emulator, damage, tmp_path):
    generation = storage.write(f"{ROOT}/x", b"right")
    damage[0] = storage.DOWNLOADS - 1
    assert storage.read(f"{ROOT}/x") == (b"right", generation)
    damage[0] = storage.DOWNLOADS - 1
    storage.download(ROOT, storage.list_files(ROOT), tmp_path)
    assert names(tmp_path) == {"x": b"right"}


def test_what_stays_damaged_is_one_clear_line(emulator, damage, tmp_path):
    storage.write(f"{ROOT}/x", b"right")
    listed = storage.list_files(ROOT)
    damage[0] = 100
    with pytest.raises(UserError, match="x was damaged in transfer: received CRC32C"):
        storage.read(f"{ROOT}/x")
    with pytest.raises(UserError, match="x was damaged in transfer: received CRC32C"):
        storage.download(ROOT, listed, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_objects_that_stand_for_folders_are_no_files(emulator, tmp_path):
    """Google's console makes one for a new folder, gcsfuse for each."""
    bucket = gcs_client.open_client().bucket(gcs.BUCKET)
    for name in ("", "checkpoint/", "checkpoint/000001.safetensors"):
        bucket.blob(f"team/runs/{name}").upload_from_string(b"")
    listed = storage.list_files(ROOT)
    assert list(listed) == ["checkpoint/000001.safetensors"]
    storage.download(ROOT, listed, tmp_path)
    assert names(tmp_path) == {"checkpoint/000001.safetensors": b""}
