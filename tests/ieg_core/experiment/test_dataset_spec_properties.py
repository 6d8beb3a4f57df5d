# SPDX-License-Identifier: Apache-2.0
"""What holds for every data-set name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ieg_core.errors import UserError
from ieg_core.experiment.base_datasets import BASES, HUMAN_SETS
from ieg_core.experiment.dataset_spec import (
    DEFAULT_NOISE_RATES,
    LABELS,
    NOISES,
    DatasetSpec,
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
