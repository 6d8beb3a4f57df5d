# SPDX-License-Identifier: Apache-2.0
from ieg_core.report.provenance import differences, environment


def test_the_environment_of_a_result_is_told_and_what_is_unknown_left_out():
    result = {
        "device": "CPU", "driver": "", "processor": "EPYC", "threads": 1, "git_revision": None,
        "versions": {"python": "3.11.2", "numpy": "2.3"}, "accuracy_last": 0.5,
    }  # fmt: skip
    assert environment(result) == {
        "device": "CPU", "processor": "EPYC", "threads": "1",
        "version of python": "3.11.2", "version of numpy": "2.3",
    }  # fmt: skip
    assert environment({"versions": None}) == {}


def test_only_differences_are_told_with_how_many_results_have_each():
    results = [{"threads": 1, "versions": {"numpy": v}} for v in ("2.3", "2.3", "2.2")]
    assert differences(results) == ["version of numpy: 2.3 (2), 2.2 (1)"]
    assert differences(results[:2]) == []
    assert differences([{}, {"processor": "EPYC"}]) == []
