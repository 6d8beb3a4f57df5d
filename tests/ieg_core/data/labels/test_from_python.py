# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.data.labels.from_python import class_numbers, read_labels
from ieg_core.errors import UserError


class NAType:
    """As pandas' missing value: it cannot be compared."""

    def __ne__(self, other):
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(np.array([2, 0], np.uint8), [2, 0], id="integers"),
        pytest.param([True, False], [1, 0], id="booleans"),
        pytest.param(np.array([np.int64(2), 0], object), [2, 0], id="integers as objects"),
        pytest.param(["cat", "a dog"], ["cat", "a dog"], id="names"),
        pytest.param(np.array(["cat", "a dog"]), ["cat", "a dog"], id="array of names"),
        pytest.param(["Ka\u0308fer"], ["Käfer"], id="decomposed letters"),
        pytest.param(np.array([b"cat", "Käfer".encode()]), ["cat", "Käfer"], id="bytes"),
    ],
)
def test_class_numbers_and_names(labels, expected):
    read = read_labels(labels)
    assert read.tolist() == expected
    assert [type(value) for value in read.tolist()] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param([0, 1.7], "are float64: expected class numbers", id="fraction"),
        pytest.param([0, np.nan], r"at 1 is missing \(nan\): .*leave out images without", id="nan"),
        pytest.param([0, None], r"at 1 is missing \(None\)", id="None"),
        pytest.param(["a", np.nan], r"at 1 is missing \(nan\)", id="nan among names"),
        pytest.param(np.array(["a", None]), r"at 1 is missing \(None\)", id="None among names"),
        pytest.param(["a", "nan"], r"at 1 is missing \('nan'\)", id="nan as text"),
        pytest.param(["a", " "], r"at 1 is missing \(' '\)", id="blank"),
        pytest.param(np.array(["a", NAType()], object), "at 1 is missing", id="pandas' NA"),
        pytest.param(np.ma.masked_array([0, 1], [False, True]), r"at 1 is missing \(masked\)",
                     id="masked"),
        pytest.param(np.array([0, 1.5], object), r"at 1 is 1.5 \(float\)", id="float as object"),
        pytest.param(["a", 1], "at 1 is 1, but the first is 'a': .*not both", id="both kinds"),
        pytest.param(np.eye(3), r"\(3, 3\): .*labels.argmax\(axis=1\)", id="one-hot"),
        pytest.param(np.array([b"\xff"]), "expected UTF-8", id="bytes"),
        pytest.param(np.array(["2020"], "M8[Y]"), "are datetime64", id="dates"),
        pytest.param({0, 1}, r"are set of shape \(\)", id="set"),
        pytest.param([[0], [1, 2]], "do not form an array", id="ragged"),
    ],
)  # fmt: skip
def test_what_is_no_label_is_told_in_one_line(labels, message):
    with pytest.raises(UserError, match=message) as caught:
        read_labels(labels)
    assert "\n" not in str(caught.value)


def test_numbers_by_name():
    assert class_numbers(read_labels(["b", "a"]), ("a", "b")).tolist() == [1, 0]
    with pytest.raises(UserError, match="the label 'c' is not a class: expected one of a, b"):
        class_numbers(read_labels(["a", "c"]), ("a", "b"))
    with pytest.raises(UserError, match="range from -1 to 0: expected from 0 to 1"):
        class_numbers(read_labels([0, -1]), ("a", "b"))
