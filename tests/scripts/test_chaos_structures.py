# SPDX-License-Identifier: Apache-2.0
"""The structured fuzzers in short; `python -m scripts.chaos_structures` tries more."""

import pytest
from hypothesis import strategies as st

from scripts.chaos_structures import Reader, check, readers


def test_well_formed_content_of_any_structure_is_read_or_refused(tmp_path):
    known = readers(tmp_path)
    few = ("result.json", "plan.json", "cluster.yaml", "labels.csv", "Label Studio", "pickle")
    problems = {name: check(known[name], tries=4) for name in few}
    assert {name: problem for name, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("error", [KeyError("a"), OverflowError("int too large")])
def test_what_a_reader_does_not_declare_is_found(error):
    def parse(number):
        if number > 100:
            raise error

    problem = check(Reader(st.integers(0, 10**6), parse), tries=100)
    assert problem.startswith(type(error).__name__)
    assert problem.endswith(": 101")  # the smallest number that is refused so
