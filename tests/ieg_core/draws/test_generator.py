# SPDX-License-Identifier: Apache-2.0
import time

import numpy as np
import pytest

from ieg_core.draws.generator import balanced_batch, batch_ids, crop_flip, fold_numbers, generator
from ieg_core.errors import UserError


def test_a_stream_is_a_function_of_seed_purpose_and_index():
    draws = {
        key: generator(*key).random(4).tobytes()
        for key in [
            (0, "noise", 0),
            (1, "noise", 0),
            (0, "probe", 0),
            (0, "noise", 1),
            (-1, "n", 0),
        ]
    }
    assert len(set(draws.values())) == len(draws)
    for key, drawn in draws.items():
        assert generator(*key).random(4).tobytes() == drawn


def test_streams_do_not_change_between_versions():
    # A change of these numbers silently changes every experiment.
    expected = [0.9421651704045492, 0.6029988947625147, 0.8883229572156427]
    np.testing.assert_array_equal(generator(0, "noise", 3).random(3), expected)


def test_an_epoch_visits_each_example_once_and_drops_the_remainder():
    train_ids = np.arange(100, 123)
    epoch = [batch_ids(train_ids, 5, seed=0, step=step) for step in range(4)]  # ⌊23 / 5⌋ steps
    visited = np.concatenate(epoch)
    assert visited.dtype == np.int64
    assert len(set(visited)) == 20
    assert set(visited) <= set(train_ids)


def test_epochs_and_seeds_differ_and_each_is_repeatable():
    train_ids = np.arange(50)
    first = batch_ids(train_ids, 50, seed=0, step=0)
    assert not np.array_equal(first, batch_ids(train_ids, 50, seed=0, step=1))
    assert not np.array_equal(first, batch_ids(train_ids, 50, seed=1, step=0))
    for step in range(6):  # more epochs than are kept
        batch_ids(train_ids, 50, seed=0, step=step)
    np.testing.assert_array_equal(first, batch_ids(train_ids, 50, seed=0, step=0))


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_must_fit_the_training_set(batch_size):
    with pytest.raises(UserError, match=f"batch of {batch_size} .* 10 training examples"):
        batch_ids(np.arange(10), batch_size, seed=0, step=0)


def test_fifty_steps_take_milliseconds():
    train_ids, probe_ids = np.arange(50_000), np.arange(100)
    probe_labels = probe_ids % 10
    batch_ids(train_ids, 100, seed=0, step=0)
    start = time.thread_time()
    for step in range(50):
        batch_ids(train_ids, 100, seed=0, step=step)
        balanced_batch(probe_ids, probe_labels, 10, 100, seed=0, step=step, purpose="probe")
    # Measured: 6 ms of this thread's own; on the clock others' would count too.
    assert time.thread_time() - start < 0.1


@pytest.mark.parametrize(("batch_size", "sizes"), [(30, {10}), (31, {10, 11}), (2, {0, 1})])
def test_a_balanced_batch_has_each_class_equally_often(batch_size, sizes):
    ids = np.arange(200, 260)
    labels = np.arange(60) % 3
    batch = balanced_batch(ids, labels, 3, batch_size, seed=0, step=7, purpose="probe")
    assert batch.dtype == np.int64
    assert len(batch) == batch_size
    assert len(set(batch)) == batch_size
    assert set(np.bincount(labels[batch - 200], minlength=3)) == sizes


def test_the_classes_that_come_once_more_are_drawn():
    labels = np.arange(30) % 3
    extra = {
        int(np.bincount(batch % 3, minlength=3).argmax())
        for step in range(30)
        for batch in [balanced_batch(np.arange(30), labels, 3, 4, 0, step, "probe")]
    }
    assert extra == {0, 1, 2}


def test_small_classes_repeat_evenly():
    ids, labels = np.array([5, 6, 7, 8, 9]), np.array([0, 0, 1, 1, 1])
    batch = balanced_batch(ids, labels, 2, 10, seed=0, step=0, purpose="probe")
    counts = np.bincount(batch, minlength=10)[5:]
    assert sorted(counts[:2]) == [2, 3]  # 5 draws from 2 examples
    assert sorted(counts[2:]) == [1, 2, 2]  # 5 draws from 3 examples


def test_a_balanced_batch_does_not_depend_on_the_order_of_its_pool():
    ids = np.arange(40)
    labels = ids % 4
    order = generator(0, "shuffle").permutation(40)
    expected = balanced_batch(ids, labels, 4, 12, seed=3, step=2, purpose="probe")
    received = balanced_batch(ids[order], labels[order], 4, 12, seed=3, step=2, purpose="probe")
    np.testing.assert_array_equal(received, expected)


def test_within_a_class_every_example_is_equally_likely():
    # 600 draws of 2 out of 10: each example is expected 120 times, with a standard deviation of
    # sqrt(600·0.2·0.8) ≈ 9.8.
    batches = [
        balanced_batch(np.arange(10), np.zeros(10, int), 1, 2, 0, step, "probe")
        for step in range(600)
    ]
    counts = np.bincount(np.concatenate(batches), minlength=10)
    assert np.abs(counts - 120).max() < 5 * 9.8


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], [0, 1, 2, 3]])
def test_a_balanced_batch_needs_every_class_and_no_other(labels):
    with pytest.raises(UserError, match="each of 3 classes"):
        balanced_batch(np.arange(4), labels, 3, 6, seed=0, step=0, purpose="probe")


def test_crop_and_flip():
    drawn = crop_flip(generator(0, "crop"), 1000, pad=2, flip=True)
    for offset in (drawn["offset_y"], drawn["offset_x"]):
        assert offset.dtype == np.int32
        assert set(offset) == {0, 1, 2, 3, 4}
    assert not np.array_equal(drawn["offset_y"], drawn["offset_x"])
    # The standard deviation of 1000 fair coins is 15.8.
    assert abs(drawn["flip"].sum() - 500) < 5 * 15.8


def test_without_flips_the_crops_are_the_same():
    flipped = crop_flip(generator(0, "crop"), 20, pad=1, flip=True)
    plain = crop_flip(generator(0, "crop"), 20, pad=1, flip=False)
    assert plain["flip"].dtype == bool
    assert not plain["flip"].any()
    np.testing.assert_array_equal(plain["offset_y"], flipped["offset_y"])
    np.testing.assert_array_equal(plain["offset_x"], flipped["offset_x"])


def test_each_fold_has_its_share_of_each_label():
    labels = np.repeat([0, 1, 2], [50, 11, 3])
    folds = fold_numbers(labels, 5, seed=0)
    counts = np.array([np.bincount(folds[labels == c], minlength=5) for c in range(3)])
    assert (counts.max(1) - counts.min(1) <= 1).all()
    assert counts[0].tolist() == [10] * 5
    np.testing.assert_array_equal(folds, fold_numbers(labels, 5, seed=0))
    assert (folds != fold_numbers(labels, 5, seed=1)).any()
