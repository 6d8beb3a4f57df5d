# SPDX-License-Identifier: Apache-2.0
from scripts.bench import paired_times, table


def test_every_variant_runs_in_every_round():
    ran = []
    calls = {name: lambda steps, name=name: ran.append((name, steps)) for name in "ab"}
    measured = paired_times(calls, rounds=2, steps=3)
    assert ran == [("a", 3), ("b", 3)] * 2
    assert [set(seconds) for seconds in measured] == [{"a", "b"}] * 2


def test_the_ratio_is_taken_within_a_round():
    # The second round is ten times slower for all: the ratios do not see it.
    rounds = [{"supervised": 1.0, "l2r": 3.0}, {"supervised": 10.0, "l2r": 31.0}]
    rounds.append({"supervised": 2.0, "l2r": 5.8})
    assert table(rounds)[2:] == [
        "| supervised | 2.000 | 1.00 | 1.00 to 1.00 |",
        "| l2r | 5.800 | 3.00 | 2.90 to 3.10 |",
    ]
