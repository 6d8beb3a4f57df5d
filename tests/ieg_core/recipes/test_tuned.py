# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
from types import MappingProxyType

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.config import from_dict, to_dict
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build
from ieg_core.recipes.digits import DIGITS
from ieg_core.recipes.features import FEATURES
from ieg_core.recipes.tuned import (
    TABLES,
    TunedRow,
    from_csv,
    to_csv,
    to_markdown,
    tuned_families,
)

ROW = TunedRow(
    recipe="digits",
    dataset="digits_uniform_0.8",
    method="ieg",
    conditions=("schedule.num_steps=500", "validation_fraction=0.2"),
    settings=("optimizer.learning_rate=0.03", "method.consistency_loss_weight=4"),
    seeds=(100, 101),
    agreements=(28.25, 29.0),
    chosen=True,
)
OTHER = dataclasses.replace(ROW, settings=(), agreements=(), chosen=False)


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(to_csv([OTHER, ROW]))
    (family,) = tuned_families([DIGITS], tmp_path)
    monkeypatch.setattr(
        build, "FAMILIES", MappingProxyType({**build.FAMILIES, family.name: family})
    )
    return family


def test_a_table_is_read_as_it_was_written():
    assert from_csv(to_csv([ROW, OTHER])) == [ROW, OTHER]
    failed, chosen = to_markdown([OTHER, ROW]).splitlines()[2:]
    assert failed == "| digits_uniform_0.8 | ieg | the recipe's |  | failed |"
    assert chosen == (
        "| digits_uniform_0.8 | ieg | **optimizer.learning_rate=0.03 "
        "method.consistency_loss_weight=4** | **28.25 29.00** | **28.62** |"
    )


def test_a_tuned_recipe_has_the_chosen_settings(tuned):
    assert tuned.name == "digits_tuned"
    spec = parse("digits_uniform_0.8")
    config = build.build_config(spec, "ieg", recipe="digits_tuned")
    assert config.optimizer.learning_rate == 0.03
    assert config.method_settings.consistency_loss_weight == 4
    plain = build.build_config(spec, "ieg", recipe="digits")
    assert config.schedule == plain.schedule
    # The choices are the recipe's, not changes to it.
    assert build.changed_settings(config, 1000) == []


@pytest.mark.parametrize("dataset", ["cifar10_uniform_0.8", "folder"])
def test_a_tuned_recipe_of_heads_has_the_chosen_settings(tmp_path, monkeypatch, dataset):
    row = dataclasses.replace(
        ROW,
        recipe="features",
        dataset=dataset,
        method="retrain",
        settings=("head.learning_rate=0.003",),
    )
    (tmp_path / "a.csv").write_text(to_csv([row]))
    (family,) = tuned_families([FEATURES], tmp_path)
    monkeypatch.setattr(build, "FAMILIES", {**build.FAMILIES, family.name: family})
    config = build.build_config(parse(dataset), "retrain", recipe="features_tuned")
    assert config.head.learning_rate == 0.003
    plain = build.build_config(parse(dataset), "retrain", recipe="features")
    assert (config.batch_size, config.images) == (plain.batch_size, plain.images)
    with pytest.raises(UserError, match="no settings for 'supervised'"):
        build.build_config(parse(dataset), "supervised", recipe="features_tuned")


@pytest.mark.parametrize(
    ("dataset", "method"), [("digits_uniform_0.8", "l2r"), ("digits_uniform_0.4", "ieg")]
)
def test_what_was_not_tuned_is_refused(tuned, dataset, method):
    with pytest.raises(
        UserError,
        match=rf"no settings for '{method}' on '{dataset}': expected digits_uniform_0.8 with ieg; "
        "run make tune for it, or use RECIPE=digits",
    ):
        build.build_config(parse(dataset), method, recipe="digits_tuned")


def test_the_tables_of_the_recipes_are_fair():
    """As many points for every method of a table, judged by the same seeds, one of them chosen."""
    for path in TABLES.glob("*.csv"):
        rows = from_csv(path.read_text("utf-8"))
        by_method = {}
        for row in rows:
            by_method.setdefault((row.dataset, row.method), []).append(row)
        assert len({len(of) for of in by_method.values()}) == 1, path
        assert len({row.seeds for row in rows}) == 1, path
        assert len({row.conditions for row in rows}) == 1, path
        assert all(sum(row.chosen for row in of) == 1 for of in by_method.values()), path
        for of in by_method.values():
            best = max(row.mean for row in of if row.agreements)
            assert [row.mean for row in of if row.chosen] == [best], path


def test_the_chosen_settings_are_those_of_the_tables():
    for path in TABLES.glob("*.csv"):
        for row in from_csv(path.read_text("utf-8")):
            if row.chosen:
                spec = parse(row.dataset)
                plain = build.build_config(spec, row.method, recipe=row.recipe)
                tuned = build.build_config(spec, row.method, recipe=f"{row.recipe}_tuned")
                expected = override(plain, row.settings)
                assert tuned == dataclasses.replace(expected, recipe=tuned.recipe)
                assert from_dict(json.loads(json.dumps(to_dict(tuned)))) == tuned
