# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.training.checkpoint import (
    Progress,
    checkpoint_path,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)

PROGRESS = Progress(
    cell="cell-a",
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


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path, state):
    save_checkpoint(tmp_path, state, PROGRESS)
    loaded, progress = load_checkpoint(tmp_path, "cell-a", state)
    assert progress == PROGRESS
    assert loaded.keys() == state.keys()
    for key in ("params",):
        for one, other in zip(loaded[key], state[key], strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
    assert loaded["method"]["scores"].tobytes() == state["method"]["scores"].tobytes()


def test_no_checkpoint_has_no_progress(tmp_path, state):
    assert read_progress(tmp_path) is None
    with pytest.raises(UserError, match="has no checkpoint"):
        load_checkpoint(tmp_path, "cell-a", state)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, state):
    save_checkpoint(tmp_path, state, dataclasses.replace(PROGRESS, cell="cell-b"))
    with pytest.raises(UserError, match="belongs to cell-b, not to cell-a"):
        load_checkpoint(tmp_path, "cell-a", state)


def test_a_truncated_checkpoint_is_named(tmp_path, state):
    save_checkpoint(tmp_path, state, PROGRESS)
    path = checkpoint_path(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="delete it to start this cell anew"):
        load_checkpoint(tmp_path, "cell-a", state)


def test_another_networks_tensors_are_refused(tmp_path, state):
    save_checkpoint(tmp_path, state, PROGRESS)
    template = state | {"params": state["params"][:1]}
    with pytest.raises(UserError, match="not this network's"):
        load_checkpoint(tmp_path, "cell-a", template)
