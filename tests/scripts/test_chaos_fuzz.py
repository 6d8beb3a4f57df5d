# SPDX-License-Identifier: Apache-2.0
"""The fuzzers in short; `python -m scripts.chaos_fuzz` tries more."""

import random

import pytest

from ieg_core.errors import UserError
from scripts.chaos_fuzz import Parser, fuzz, mutate, parsers

NAMES = (
    *("pickle", "torch weights", "labels.csv", "labels.parquet", "decisions.csv", "cluster.yaml"),
    *("schedules.yaml", "cron", "image", "features.npy", "features.npz", "features.parquet"),
    *("IDX", "IDX labels", "IDX, gzipped", "CIFAR", "Label Studio", "FiftyOne"),
    *("corrections.csv", "train.csv", "Keras model", "TFDS info"),
    *("feature network", "data set name", "TFRecord", "tf.train.Example"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_read_or_refused(tmp_path, name):
    known = parsers(tmp_path)
    assert known.keys() == set(NAMES)
    assert fuzz(known[name], tries=10).failures == []


def test_what_a_parser_does_not_declare_is_a_failure():
    def parse(content: bytes) -> None:
        if content != b"seed":
            raise KeyError("a")

    (failure,) = fuzz(Parser([b"seed"], parse), tries=1).failures
    assert failure.startswith("KeyError: 'a' (")

    def refuse(content: bytes) -> None:
        if content != b"seed":
            raise UserError("one") if len(content) % 2 else UserError("a\nb")

    outcome = fuzz(Parser([b"seed"], refuse), tries=20)
    assert outcome.failures == []  # a message is escaped to one line


def test_changes_are_drawn_from_the_seed():
    made = [mutate(b"content", [b"other"], random.Random(7)) for _ in range(2)]
    assert made[0] == made[1] != b"content"
