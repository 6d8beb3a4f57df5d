# SPDX-License-Identifier: Apache-2.0
import pytest

from ieg_core.errors import UserError
from ieg_core.network_names import EXAMPLES, Network, parse, validate


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("resnet11", Network("resnet11", "bottleneck", 1)),
        ("resnet29", Network("resnet29", "bottleneck", 3)),
        ("resnet20", Network("resnet20", "bottleneck", 2)),
        ("resnet32", Network("resnet32", "basic", 5)),
        ("resnet8", Network("resnet8", "basic", 1)),
        ("preact8", Network("preact8", "preact8", 1)),
        ("wrn28-10", Network("wrn28-10", "wide", 4, 10)),
        ("wrn10-1", Network("wrn10-1", "wide", 1, 1)),
    ],
)
def test_a_name_says_family_and_size(name: str, network: Network) -> None:
    assert parse(name) == network


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_offered_name_exists(name: str) -> None:
    validate(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "resnet", "resnet2", "resnet5", "resnet30", "resnet1208", "resnet029", "resnet-29"),
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "ResNet29", "resnet29\n"),
        *("wrn28", "wrn28-0", "wrn27-10", "wrn4-1", "wrn28-65", "wrn28-100", "preact18"),
    ],
)
def test_other_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match="expected preact8, resnet") as error:
        validate(name)
    assert "\n" not in str(error.value)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(UserError, match="did you mean 'wrn28-10'"):
        validate("wrn_28_10")
