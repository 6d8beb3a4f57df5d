# SPDX-License-Identifier: Apache-2.0
import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ieg_core.errors import UserError
from ieg_core.experiment import base_datasets
from ieg_core.experiment.base_datasets import BASES, HUMAN_SETS
from ieg_core.experiment.dataset_spec import (
    DEFAULT_NOISE_RATES,
    LABELS,
    NOISES,
    DatasetSpec,
    base_of,
    combine,
    parse,
)

BASE = st.sampled_from(list(BASES))
RATE = st.floats(0, 1)
TAIL = st.floats(0, 1, exclude_min=True)
GIVEN = [(base, name) for base in BASES for name in (*HUMAN_SETS.get(base, ()), LABELS)]
SPEC = st.one_of(
    st.builds(DatasetSpec, BASE),
    st.builds(DatasetSpec, BASE, st.just("uniform"), RATE),
    st.builds(
        DatasetSpec,
        st.sampled_from([name for name, base in BASES.items() if base.lookalikes]),
        st.just("asymmetric"),
        RATE,
    ),
    st.builds(DatasetSpec, BASE, imbalance=TAIL),
    st.builds(DatasetSpec, BASE, st.just("uniform"), RATE, TAIL),
    st.sampled_from(GIVEN).map(lambda pair: DatasetSpec(pair[0], given=pair[1])),
)
WORDS = st.one_of(
    BASE,
    st.sampled_from([*NOISES, "imbal", "human", LABELS, "worse", "", "nan", "-0.0", "1e-3", "1_0"]),
    st.floats().map(str),
    st.text(max_size=5),
)
NAME = st.lists(WORDS, max_size=5).map("_".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("digits", DatasetSpec("digits"), id="bare"),
        pytest.param("digits_uniform_0.4", DatasetSpec("digits", "uniform", 0.4), id="uniform"),
        pytest.param(
            "cifar10_asymmetric_0.4", DatasetSpec("cifar10", "asymmetric", 0.4), id="asymmetric"
        ),
        pytest.param(
            "cifar100_imbal_0.02", DatasetSpec("cifar100", imbalance=0.02), id="long tail"
        ),
        pytest.param(
            "cifar100_imbal_0.02_0.2",
            DatasetSpec("cifar100", "uniform", 0.2, 0.02),
            id="long tail with noise",
        ),
        pytest.param("fashion_mnist", DatasetSpec("fashion_mnist"), id="bare, of two words"),
        pytest.param(
            "fashion_mnist_imbal_0.1_0.2",
            DatasetSpec("fashion_mnist", "uniform", 0.2, 0.1),
            id="two words, long tail with noise",
        ),
        pytest.param("digits_uniform_0", DatasetSpec("digits", "uniform", 0.0), id="zero"),
        pytest.param("digits_uniform_1", DatasetSpec("digits", "uniform", 1.0), id="one"),
        pytest.param("digits_imbal_1", DatasetSpec("digits", imbalance=1.0), id="no tail"),
        pytest.param(
            "digits_uniform_0.00001", DatasetSpec("digits", "uniform", 1e-5), id="no exponent"
        ),
        pytest.param(
            "digits_uniform_0.30000000000000004",
            DatasetSpec("digits", "uniform", 0.1 + 0.2),
            id="every digit",
        ),
    ],
)
def test_canonical_names_round_trip(text, expected):
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("digits_uniform_0.40", "digits_uniform_0.4"),
        ("digits_uniform_.4", "digits_uniform_0.4"),
        ("digits_uniform_4e-1", "digits_uniform_0.4"),
        ("digits_uniform_-0.0", "digits_uniform_0"),
        ("digits_uniform_1.0", "digits_uniform_1"),
        ("cifar10_imbal_0.020_0.20", "cifar10_imbal_0.02_0.2"),
    ],
)
def test_other_spellings_have_one_canonical_name(text, canonical):
    assert str(parse(text)) == canonical
    assert parse(text) == parse(canonical)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("cifr10_uniform_0.4", r"unknown data set 'cifr10': .*'cifar10'", id="base"),
        pytest.param("fashion_uniform_0.4", r"'fashion': did you mean 'fashion_mn", id="one word"),
        pytest.param("fashion_mnistuniform_0.4", r"unknown data set 'fashion'", id="run together"),
        pytest.param("fashion_mnist_0.4", "malformed.*expected <base>", id="two words, no noise"),
        pytest.param("", "unknown data set ''.*digits", id="empty"),
        pytest.param(
            "webvisionmini_20", "malformed.*put 20 there for each", id="WebVision's probe"
        ),
        pytest.param("digits_uniform", "malformed.*expected <base>", id="rate missing"),
        pytest.param("digits_imbal", "malformed.*expected <base>", id="imbalance missing"),
        pytest.param("digits_unifrom_0.4", "malformed.*<base>_uniform_<r>", id="noise"),
        pytest.param("digits_0.4", "malformed.*expected <base>", id="noise left out"),
        pytest.param("digits_uniform_0.4_0.2", "malformed.*expected <base>", id="too long"),
        pytest.param("digits_uniform_", "'' is not a number; expected <base>", id="no number"),
        pytest.param("digits_uniform_a", "'a' is not a number; expected <base>", id="a word"),
        pytest.param("digits_uniform_0,4", "'0,4' is not a number", id="a comma"),
        pytest.param("digits_uniform_ 0.4", "' 0.4' is not a number", id="a space"),
        pytest.param("digits_uniform_nan", r"noise rate nan .*\[0, 1\]", id="NaN"),
        pytest.param("digits_uniform_inf", r"noise rate inf .*\[0, 1\]", id="infinite"),
        pytest.param("digits_uniform_1.2", r"noise rate 1.2 .*\[0, 1\]", id="above 1"),
        pytest.param("digits_asymmetric_-0.1", r"noise rate -0.1 .*\[0, 1\]", id="below 0"),
        pytest.param("digits_imbal_0", r"imbalance 0 .*\(0, 1\]", id="imbalance 0"),
        pytest.param("digits_imbal_nan", r"imbalance nan .*\[0, 1\]", id="imbalance NaN"),
        pytest.param("digits_imbal_50", r"imbalance 50.0 .*\[0, 1\]", id="factor, not its inverse"),
        pytest.param("digits_imbal_0.1_2", r"noise rate 2.0 .*\[0, 1\]", id="tail, rate above 1"),
    ],
)
def test_a_bad_name_says_what_is_wrong(text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_asymmetric_noise_needs_a_map_of_lookalikes(monkeypatch):
    blobs = dataclasses.replace(base_datasets.BASES["digits"], lookalikes=None)
    monkeypatch.setitem(base_datasets.BASES, "blobs", blobs)
    assert parse("blobs_uniform_0.4").base == "blobs"
    with pytest.raises(UserError, match=r"no asymmetric noise for 'blobs'.*blobs_uniform.*cifar10"):
        parse("blobs_asymmetric_0.4")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base": "cifar10", "noise": "asymmetric", "imbalance": 0.1}, "uniform noise only"),
        ({"base": "cifar10", "noise": "unifrm"}, "unknown noise 'unifrm': did you mean 'uniform'"),
        ({"base": "cifar10", "noise_rate": 0.2}, "without a noise"),
        ({"base": "cifar10", "noise_rate": float("nan")}, "without a noise"),
    ],
)
def test_a_spec_without_a_name_cannot_be_built(fields, message):
    with pytest.raises(UserError, match=message):
        DatasetSpec(**fields)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("digits", 0.0),
        ("digits_uniform_0.4", 0.4 * 9 / 10),
        ("cifar100_uniform_0.8", 0.8 * 99 / 100),
        ("cifar10_asymmetric_0.4", 0.4 * 5 / 10),
        ("digits_asymmetric_0.2", 0.2 * 5 / 10),
        ("cifar100_asymmetric_0.3", 0.3),
        ("cifar10_imbal_0.02", 0.0),
        ("cifar10_imbal_0.02_0.2", 0.2 * 9 / 10),
    ],
)
def test_true_flip_rate(text, rate):
    assert parse(text).true_flip_rate == pytest.approx(rate, abs=1e-15)


@pytest.mark.parametrize(
    ("dataset", "rates", "names"),
    [
        pytest.param(
            "digits_uniform",
            None,
            ["digits_uniform_0.2", "digits_uniform_0.4", "digits_uniform_0.8"],
            id="uniform defaults",
        ),
        pytest.param(
            "fashion_mnist_uniform",
            [0.2],
            ["fashion_mnist_uniform_0.2"],
            id="two words",
        ),
        pytest.param(
            "cifar10_asymmetric",
            (),
            [f"cifar10_asymmetric_{r}" for r in (0.1, 0.2, 0.3, 0.4)],
            id="asymmetric defaults",
        ),
        pytest.param(
            "digits_uniform", [0.8, 0.2], ["digits_uniform_0.8", "digits_uniform_0.2"], id="order"
        ),
        pytest.param("digits_uniform", [0.4, 0.40, 0.4], ["digits_uniform_0.4"], id="duplicates"),
        pytest.param(
            "cifar10_imbal_0.02",
            [0.0, 0.2],
            ["cifar10_imbal_0.02_0", "cifar10_imbal_0.02_0.2"],
            id="long tail with noise",
        ),
        pytest.param("cifar10_imbal_0.02", None, ["cifar10_imbal_0.02"], id="long tail alone"),
        pytest.param("cifar10_imbal_0.02_0.2", None, ["cifar10_imbal_0.02_0.2"], id="complete"),
        pytest.param("digits_uniform_0.40", None, ["digits_uniform_0.4"], id="complete, respelled"),
        pytest.param("digits", None, ["digits"], id="bare"),
    ],
)
def test_combine(dataset, rates, names):
    assert [str(spec) for spec in combine(dataset, rates)] == names


@pytest.mark.parametrize(
    ("dataset", "rates", "message"),
    [
        ("digits", [0.2], "complete and takes no noise rate, received 0.2.*'digits_uniform'"),
        ("digits_uniform_0.4", [0.2], "complete and takes no noise rate"),
        ("cifar10_imbal_0.02_0.2", [0.2], "complete and takes no noise rate"),
        ("digits_uniform", [0.2, 1.5], r"noise rate 1.5 .*\[0, 1\]"),
        ("digits_uniform", [float("nan")], r"noise rate nan .*\[0, 1\]"),
        ("cifar10_imbal_0.02", [-1.0], r"noise rate -1.0 .*\[0, 1\]"),
        ("digit_uniform", [0.2], "unknown data set 'digit': did you mean 'digits'"),
        ("digits_imbal", [0.2], "malformed.*expected <base>"),
        ("digits_uniform_0.4_uniform", None, "malformed.*expected <base>"),
        ("_uniform", None, "unknown data set ''"),
    ],
)
def test_combine_refuses(dataset, rates, message):
    with pytest.raises(UserError, match=message):
        combine(dataset, rates)


def test_cifar100_superclasses_partition_the_classes():
    assert len(base_datasets.CIFAR100_SUPERCLASSES) == 20
    assert {len(names) for names in base_datasets.CIFAR100_SUPERCLASSES.values()} == {5}
    assert len(set(base_datasets.CIFAR100_CLASSES)) == 100


def test_lookalikes():
    names = base_datasets.BASES["cifar10"].class_names
    flips = {names[a]: names[b] for a, b in base_datasets.BASES["cifar10"].lookalikes.items()}
    assert flips == {
        "truck": "automobile",
        "bird": "airplane",
        "cat": "dog",
        "dog": "cat",
        "deer": "horse",
    }
    names = base_datasets.BASES["cifar100"].class_names
    flips = base_datasets.BASES["cifar100"].lookalikes
    assert names[flips[names.index("beaver")]] == "dolphin"
    assert names[flips[names.index("whale")]] == "beaver"
    # A cycle inside each super-class: every class is the target of exactly one other.
    assert sorted(flips) == sorted(flips.values()) == list(range(100))


def test_the_parser_needs_the_standard_library_only():
    code = (
        "import sys; import ieg_core.experiment.dataset_spec; "
        "print([m for m in ('numpy', 'keras', 'tensorflow', 'kfp') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("digits_labels", "labels"),
        ("cifar100_labels", "labels"),
        ("cifar10_human_worst", "human_worst"),
        ("cifar10_human_aggregate", "human_aggregate"),
        ("cifar100_human", "human"),
        ("fashion_mnist_labels", "labels"),
    ],
)
def test_given_labels_have_no_noise_rate(text, given):
    found = parse(text)
    assert found == DatasetSpec(base_of(text), given=given)
    assert str(found) == text
    assert (found.noise, found.noise_rate, found.true_flip_rate) == (None, None, None)
    assert combine(text) == [found]
    with pytest.raises(UserError, match="complete and takes no noise rate"):
        combine(text, (0.2,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar10_human_worse", "did you mean 'cifar10_human_worst'"),
        ("cifar10_human", "expected one of .*cifar10_human_aggregate"),
        ("cifar100_human_worst", "expected one of .*cifar100_human"),
        ("digits_human_worst", "unknown data set 'digits_human_worst'.*digits_labels"),
        ("digits_labels_0.2", "malformed.*<base>_labels"),
    ],
)
def test_given_labels_that_do_not_exist_are_told(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_given_labels_take_no_noise():
    with pytest.raises(UserError, match="given labels are used as they are"):
        DatasetSpec("digits", "uniform", 0.2, given="labels")
    with pytest.raises(UserError, match="noise rate None"):
        DatasetSpec("digits", "uniform", None)


# What holds for every data-set name.


@given(SPEC)
def test_a_spec_is_read_back_from_its_name(spec):
    assert parse(str(spec)) == spec
    assert str(parse(str(spec))) == str(spec)


@given(NAME)
def test_any_text_is_a_data_set_or_a_mistake_of_the_users(text):
    try:
        spec = parse(text)
    except UserError as error:
        message = str(error)
    else:
        assert parse(str(spec)) == spec
        assert combine(text) == [spec]
        return
    assert "\n" not in message


@given(NAME, st.lists(st.floats(), max_size=3))
def test_what_any_name_and_rates_stand_for_has_names_of_its_own(text, rates):
    try:
        specs = combine(text, rates)
    except UserError as error:
        message = str(error)
    else:
        assert specs
        assert len({str(spec) for spec in specs}) == len(specs)
        assert [parse(str(spec)) for spec in specs] == specs
        return
    assert "\n" not in message


@given(SPEC, st.lists(RATE, max_size=5))
def test_rates_complete_exactly_the_names_that_lack_one(spec, rates):
    """The specs are those of the full names, in the order of the rates, each once."""
    if spec.noise and spec.imbalance is None:
        unfinished = f"{spec.base}_{spec.noise}"
        wanted = rates or DEFAULT_NOISE_RATES[spec.noise]
    elif spec.imbalance is not None and not spec.noise:
        unfinished, wanted = str(spec), rates
    else:
        assert combine(str(spec)) == [spec]
        if rates:
            with pytest.raises(UserError, match="takes no noise rate"):
                combine(str(spec), rates)
        return
    full = [parse(f"{unfinished}_{rate!r}") for rate in wanted]
    assert combine(unfinished, rates) == (list(dict.fromkeys(full)) or [spec])
