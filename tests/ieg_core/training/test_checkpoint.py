# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.store import leases
from ieg_core.store.leases import Lease, SupersededError, take
from ieg_core.store.records import LeaseRecord
from ieg_core.training.checkpoint import (
    Progress,
    checkpoint_path,
    describe_latest,
    load_checkpoint,
    read_progress,
    save_checkpoint,
    saved_attempts,
)

PROGRESS = Progress(
    trial="trial-a",
    step=75,
    threads=2,
    num_replicas=1,
    train_seconds=1.5,
    curves={"training": [{"step": 75, "loss": 0.1}], "evaluations": []},
)


@pytest.fixture
def state() -> dict:
    rng = np.random.default_rng(0)
    return {
        "params": [rng.normal(size=(3, 2)).astype(np.float32), np.float32([np.pi])],
        "method": {"scores": rng.integers(0, 9, 4, dtype=np.int32), "nested": []},
    }


@pytest.fixture
def lease(tmp_path) -> Lease:
    return take(tmp_path, 1)


def at(step: int) -> Progress:
    return dataclasses.replace(PROGRESS, step=step)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path, lease, state):
    save_checkpoint(lease, state, PROGRESS)
    loaded, progress = load_checkpoint(tmp_path, "trial-a", state)
    assert progress == PROGRESS
    assert loaded.keys() == state.keys()
    for one, other in zip(loaded["params"], state["params"], strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert loaded["method"]["scores"].tobytes() == state["method"]["scores"].tobytes()


def test_no_checkpoint_has_no_progress(tmp_path, state):
    assert read_progress(tmp_path) is None
    assert describe_latest(tmp_path) == "none"
    with pytest.raises(UserError, match="has no checkpoint"):
        load_checkpoint(tmp_path, "trial-a", state)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, lease, state):
    save_checkpoint(lease, state, dataclasses.replace(PROGRESS, trial="trial-b"))
    with pytest.raises(UserError, match="belongs to trial-b, expected trial-a"):
        load_checkpoint(tmp_path, "trial-a", state)


def test_a_truncated_checkpoint_is_named(tmp_path, lease, state):
    save_checkpoint(lease, state, PROGRESS)
    path = checkpoint_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="delete it to start this trial again"):
        load_checkpoint(tmp_path, "trial-a", state)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(100)])
def test_a_damaged_checkpoint_gives_way_to_an_earlier_attempts(tmp_path, lease, state, content):
    save_checkpoint(lease, state, PROGRESS)
    checkpoint_path(tmp_path, 2).write_bytes(content)
    assert load_checkpoint(tmp_path, "trial-a", state)[1] == PROGRESS
    assert describe_latest(tmp_path) == f"step 75, {checkpoint_path(tmp_path, 1)}"


def test_another_format_is_named(tmp_path, lease, state, monkeypatch):
    monkeypatch.setattr("ieg_core.training.checkpoint.FORMAT", 0)
    save_checkpoint(lease, state, PROGRESS)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 0, expected 1"):
        read_progress(tmp_path)


def test_a_flipped_bit_of_a_tensor_is_found(tmp_path, lease, state):
    save_checkpoint(lease, state, PROGRESS)
    path = checkpoint_path(tmp_path, 1)
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"000001\.safetensors is damaged \(it was altered"):
        load_checkpoint(tmp_path, "trial-a", state)
    checkpoint_path(tmp_path, 2).write_bytes(content)
    save_checkpoint(lease, state, PROGRESS)
    assert load_checkpoint(tmp_path, "trial-a", state)[1] == PROGRESS


@pytest.mark.parametrize("target", ["nowhere", "000002.safetensors", "."])
def test_what_is_no_file_beside_a_good_checkpoint_changes_nothing(tmp_path, lease, state, target):
    save_checkpoint(lease, state, PROGRESS)
    checkpoint_path(tmp_path, 2).symlink_to(target)
    assert load_checkpoint(tmp_path, "trial-a", state)[1] == PROGRESS
    checkpoint_path(tmp_path, 1).unlink()
    if target == "nowhere":
        assert read_progress(tmp_path) is None
    else:
        with pytest.raises(UserError, match="is damaged"):
            read_progress(tmp_path)


def test_files_in_the_place_of_folders_hold_nothing(tmp_path):
    checkpoint_path(tmp_path, 1).parent.write_text("a file")
    LeaseRecord.path(tmp_path, 1).parent.write_text("a file")
    assert read_progress(tmp_path) is None
    assert leases.latest_attempt(tmp_path) == 0
    with pytest.raises(UserError, match=r"a file of that name exists|a part of the path is a file"):
        take(tmp_path, 1)


def test_another_networks_tensors_are_refused(tmp_path, lease, state):
    save_checkpoint(lease, state, PROGRESS)
    template = state | {"params": state["params"][:1]}
    with pytest.raises(UserError, match="does not match this network"):
        load_checkpoint(tmp_path, "trial-a", template)


def test_the_first_save_of_an_attempt_deletes_the_earlier_ones(tmp_path, lease, state):
    save_checkpoint(lease, state, at(25))
    successor = take(tmp_path, 2)
    assert read_progress(tmp_path) == at(25)
    save_checkpoint(successor, state, at(50))
    assert saved_attempts(tmp_path) == [2]
    assert read_progress(tmp_path) == at(50)


def test_a_stale_attempt_can_write_nothing_that_counts(tmp_path, lease, state):
    successor = take(tmp_path, 2)
    with pytest.raises(SupersededError, match="attempt 1 stops, because attempt 2"):
        save_checkpoint(lease, state, at(1000))
    assert saved_attempts(tmp_path) == []
    save_checkpoint(successor, state, at(50))
    # Its last look at the leases was before the successor's lease, its write comes after.
    checkpoint_path(tmp_path, 1).write_bytes(checkpoint_path(tmp_path, 2).read_bytes())
    assert saved_attempts(tmp_path) == [2, 1]
    assert load_checkpoint(tmp_path, "trial-a", state)[1] == at(50)
    save_checkpoint(successor, state, at(75))
    assert saved_attempts(tmp_path) == [2]
