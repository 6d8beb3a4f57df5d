# SPDX-License-Identifier: Apache-2.0
"""What holds for every label file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels
from ieg_core.data.labels.label_file import read_labels, to_parquet, write_labels
from ieg_core.errors import UserError

NUM_EXAMPLES = 12
SUFFIXES = (".csv", ".parquet")


def _source() -> Source:
    images = np.zeros((NUM_EXAMPLES, 3, 32, 32), np.uint8)
    split = Split(images, (np.arange(NUM_EXAMPLES) % 10).astype(np.int32))
    return in_memory_source("cifar10", "made up", "memory", split, split)


SOURCE = _source()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


@given(st.data())
@settings(max_examples=120)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whatever_the_classes_are_called_the_labels_are_read_back(folder, suffix, data):
    texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.integers(0, 20).map(str)
    names = data.draw(st.lists(texts, min_size=1, max_size=6, unique=True))
    source = replace(SOURCE, class_names=tuple(names))
    ids = data.draw(
        st.lists(
            st.integers(0, NUM_EXAMPLES - 1),
            min_size=len(names),
            max_size=NUM_EXAMPLES,
            unique=True,
        )
    )
    more = data.draw(
        st.lists(
            st.integers(0, len(names) - 1),
            min_size=len(ids) - len(names),
            max_size=len(ids) - len(names),
        )
    )
    labels = np.array(data.draw(st.permutations([*range(len(names)), *more])), np.int32)
    expected = np.full(NUM_EXAMPLES, NOT_LISTED)
    expected[ids] = labels
    path = folder / f"round{suffix}"
    write_labels(path, np.array(ids), labels, source)
    np.testing.assert_array_equal(read_labels(path, source).labels, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_class_name_may_hold_any_line_end(folder, suffix):
    """Hypothesis found the carriage return, among thousands of examples."""
    source = replace(SOURCE, class_names=("\r", "\n", "a\r\nb", "a\u2028b", '"'))
    path = folder / f"ends{suffix}"
    write_labels(path, np.arange(5), np.arange(5), source)
    assert read_labels(path, source).labels[:5].tolist() == [0, 1, 2, 3, 4]


def read_or_refuse(path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = read_labels(path, SOURCE)
    except UserError as error:
        message = str(error)
    else:
        assert isinstance(found, GivenLabels)
        assert set(found.labels.tolist()) - {NOT_LISTED} == set(range(10))
        return
    assert "\n" not in message
    assert str(path) in message


CELL = st.one_of(
    st.integers(-1, NUM_EXAMPLES).map(str),
    st.sampled_from([*SOURCE.class_names, "index", "label", "data", '"', "\ufeff", "1e3", "\0"]),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
TABLE = st.lists(st.lists(CELL, max_size=4).map(",".join), max_size=6)


@given(
    st.one_of(
        st.binary(max_size=60),
        TABLE.map(lambda lines: "\n".join(lines).encode()),
        TABLE.map(lambda lines: "\r\n".join(["index,label", *lines]).encode()),
    )
)
@settings(max_examples=200)
def test_any_csv_is_labels_or_a_mistake_of_the_users(folder, content):
    read_or_refuse(folder / "any.csv", content)


WHOLE = to_parquet(
    {"index": np.arange(NUM_EXAMPLES), "label": [f"{label}" for label in SOURCE.train_labels]}
)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)).map(
            lambda at: WHOLE[: at[0]] + bytes([at[1]]) + WHOLE[at[0] + 1 :]
        ),
    )
)
@settings(max_examples=200)
def test_any_parquet_is_labels_or_a_mistake_of_the_users(folder, content):
    read_or_refuse(folder / "any.parquet", content)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=3)
)


@given(
    st.one_of(
        *(
            st.lists(kind, max_size=4)
            for kind in (VALUES, st.binary(max_size=3), st.dates(), st.lists(st.integers(0, 9)))
        )
    )
)
def test_any_column_of_parquet_is_labels_or_a_mistake_of_the_users(folder, values):
    same_type = [value for value in values if type(value) is type(values[0])]
    index = list(range(len(same_type)))
    read_or_refuse(folder / "any.parquet", to_parquet({"index": index, "label": same_type}))
    read_or_refuse(folder / "any.parquet", to_parquet({"index": same_type, "label": index}))
