# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from ieg_core.experiment import dataset_spec
from ieg_core.experiment.config import ScheduleConfig
from ieg_core.experiment.methods import METHODS
from ieg_core.recipes import build, listing
from ieg_core.recipes.published import PUBLISHED


def test_every_published_figure_stands_with_a_recipe():
    lines = listing.expected_lines()[1:]
    for figure in PUBLISHED:
        own = [line for line in lines if line[1:4] == [figure.method, figure.dataset,
                                                       figure.network]]  # fmt: skip
        assert own, figure
        assert {line[5] for line in own} >= {figure.text}


def test_a_figure_belongs_to_the_network_that_it_was_published_with():
    paper, small = build.FAMILIES["cifar"], build.FAMILIES["cifar_cpu"]
    assert {figure.network for figure in listing.expected(paper, "ieg")} == {
        "wrn28-10-released",
        "resnet29-released",
    }
    assert listing.expected(small, "ieg") == []
    assert listing.expected(paper, "l2r") == []


def test_recalled_figures_are_marked():
    lines = [line for line in listing.expected_lines() if line[6] == "recalled"]
    assert lines
    assert all(line[5].endswith("(recalled)") for line in lines)


def test_every_family_and_method_has_a_line():
    for family in build.FAMILIES:
        named = ", ".join(line[1] for line in listing.expected_lines() if line[0] == family)
        tuned = build.FAMILIES[family].choices.get(build.FAMILIES[family].example)
        known = set(tuned or filter(build.FAMILIES[family].takes, METHODS))
        assert named == "every method" or known == set(named.split(", "))


def test_the_commands_ask_for_what_there_is():
    for command in listing.commands():
        dataset, family, methods = re.findall(r"(?:DATASET|RECIPE|METHODS)=(\S+)", command)
        for method in methods.split(","):
            config = build.build_config(dataset_spec.parse(dataset), method, recipe=family)
            assert config.recipe == family


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (ScheduleConfig(num_steps=600), "600 steps, cosine"),
        (ScheduleConfig("step", num_epochs=200, boundary_fractions=(0.8,)), "200 epochs, step"),
        (ScheduleConfig("cosine_restarts", num_cycles=13), "13 cycles, cosine_restarts"),
    ],
)
def test_lengths_in_words(schedule, text):
    assert listing.length_text(schedule) == text
