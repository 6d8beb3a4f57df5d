# SPDX-License-Identifier: Apache-2.0
"""Trials of heads, end to end, on features that are made up: pixels, projected at random."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest

from ieg_core import backend
from ieg_core.audit.findings import read_audit, summarize
from ieg_core.data.image_folder.listing import TRAIN
from ieg_core.errors import DivergedError, UserError
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime
from ieg_core.report.write import write_report
from ieg_core.store.records import CurvesRecord, ResultRecord, TrainingRecord
from ieg_core.sweep import estimate
from ieg_core.sweep.plan import plan
from ieg_core.sweep.request import SweepRequest
from ieg_core.sweep.slots import Slot
from ieg_core.training import head_trial
from ieg_core.training.run_trial import evaluate_trial, train_trial
from ieg_core.training.trial import open_trial

METHODS = ("supervised", "forward", "retrain")


@pytest.fixture(scope="module", autouse=True)
def started():
    """Threads can be set only before TensorFlow starts, and these trials share its process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "start", lambda runtime: None)
        yield


def made_up_features(read, count, *, network, size):
    assert (network, size) == ("efficientnet-lite0", 160)
    pixels = read(np.arange(count)).reshape(count, -1).astype(np.float32) / 255
    mixing = np.random.default_rng(0).normal(size=(pixels.shape[1], 40))
    return (pixels @ mixing).astype(np.float16)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A results root with a trained trial of each method."""
    folder = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_trial, "extract_features", made_up_features)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in list(os.environ):  # what set_environment may change is put back
            patch.setenv(name, os.environ[name])
        planned = plan(request(folder / "runs"))
        for trial in planned.trials:
            train_trial(trial, folder / "runs", folder, Runtime())
    return folder / "runs"


def request(root, **changes):
    return SweepRequest(
        **{
            "dataset": "digits_uniform_0.4",
            "methods": METHODS,
            "features": "efficientnet-lite0",
            "settings": ("batch_size=64",),
            "results": str(root),
            **changes,
        }
    )


def folder_of(root, method):
    (folder,) = (root / "trials").glob(f"*-{method}-seed0-*")
    return folder


def test_the_methods_train_the_same_head_as_long(root):
    trainings = [TrainingRecord.read(folder_of(root, method)) for method in METHODS]
    assert {each.steps for each in trainings} == {20 * (1437 // 64)}
    assert {each.num_parameters for each in trainings} == {40 * 256 + 256 + 256 * 10 + 10}
    assert {each.device for each in trainings} == {"CPU"}


def test_correcting_for_wrong_labels_helps(root):
    found = {name: ResultRecord.read(folder_of(root, name)) for name in METHODS}
    accuracies = {name: result.accuracy_ema_last for name, result in found.items()}
    assert accuracies["retrain"] > accuracies["supervised"] + 0.01, accuracies
    assert accuracies["forward"] > accuracies["supervised"] + 0.01, accuracies
    assert all(result.network == "efficientnet-lite0" for result in found.values())
    for name, result in found.items():
        assert result.accuracy_ema_last == result.accuracy_last
        curves = CurvesRecord.read(folder_of(root, name))
        assert curves.evaluations[-1]["accuracy"] == result.accuracy_last
        assert curves.evaluations[-1]["step"] == result.steps == curves.training[-1]["step"]


@pytest.mark.parametrize("method", METHODS)
def test_audits_work(root, method):
    audit = read_audit(folder_of(root, method), root, 0.5)
    record = summarize(audit)
    assert record.formula.startswith("p̄" if method == "supervised" else "1 − q")
    assert record.average_precision > (0.6 if method == "supervised" else 0.9)


@pytest.mark.parametrize("method", METHODS)
def test_no_clean_and_no_held_out_label_takes_part(root, method, tmp_path, monkeypatch):
    monkeypatch.setattr(head_trial, "extract_features", made_up_features)
    _, config, label_set, source = open_trial(root, folder_of(root, method).name, tmp_path)
    config = override(config, ["schedule.num_steps=30"])
    held_out, train_ids = np.split(label_set.train_ids, [40])
    label_set = dataclasses.replace(label_set, train_ids=train_ids)
    shuffled = np.random.default_rng(0).permutation(label_set.clean_labels)
    given = label_set.noisy_labels.copy()
    given[held_out] = (given[held_out] + 1) % label_set.num_classes
    other = dataclasses.replace(label_set, clean_labels=shuffled, noisy_labels=given)
    outcomes = []
    for each in (label_set, other):
        trained = head_trial.train_on_features(
            config, each, source, tmp_path, Runtime(), lambda report: None, lambda **changes: None
        )
        outcomes.append([*trained.state["params"], *trained.history.values()])
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_report_compares_them(root):
    (sweep,) = (folder.name for folder in (root / "sweeps").iterdir())
    write_report(root, sweep)
    text = (root / "sweeps" / sweep / "report" / "results.md").read_text()
    assert all(f"| {method} |" in text for method in METHODS)


def test_a_lost_result_is_evaluated_again_from_the_head(root, monkeypatch):
    monkeypatch.setattr(head_trial, "extract_features", made_up_features)
    folder = folder_of(root, "retrain")
    before = ResultRecord.read(folder)
    ResultRecord.path(folder).unlink()
    evaluate_trial(folder.name, root, root, Runtime())
    assert ResultRecord.read(folder) == before
    path = folder / head_trial.HEAD
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"head.safetensors is damaged .*: train it again"):
        evaluate_trial(folder.name, root, root, Runtime(), again=True)
    path.write_bytes(content)
    evaluate_trial(folder.name, root, root, Runtime(), again=True)


def test_with_a_validation_set_a_head_is_measured_on_training_features_alone(monkeypatch):
    def only_train(config, source, part):
        assert part == TRAIN
        return [np.arange(20.0).reshape(10, 2)]

    monkeypatch.setattr(head_trial, "_features", only_train)
    parts = SimpleNamespace(validation_ids=np.array([3, 5, 8]), clean_validation_ids=np.array([5]))
    tests = head_trial._test_features(None, parts, None)
    np.testing.assert_array_equal(tests["test"][0], [[6, 7], [10, 11], [16, 17]])
    np.testing.assert_array_equal(tests["clean_validation"][0], [[10, 11]])


def test_a_head_that_diverges_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(head_trial, "extract_features", made_up_features)
    settings = ("batch_size=64", "head.learning_rate=1e30", "schedule.num_steps=60")
    planned = plan(request(tmp_path, methods=("supervised",), settings=settings))
    with pytest.raises(DivergedError, match=r"not finite at step 20: lower head.learning_rate"):
        train_trial(planned.trials[0], tmp_path, tmp_path, Runtime())


def test_an_estimate_builds_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_measure", None)
    planned = plan(request(tmp_path))
    found = estimate.seconds_per_trial(tmp_path, planned.trials, Slot(threads=1))
    assert set(found) == set(planned.trials)
    assert all(15 < seconds < 60 for seconds in found.values())


@pytest.mark.parametrize("variable", ["NETWORK", "RECIPE"])
def test_features_choose_network_and_recipe(variable, tmp_path):
    with pytest.raises(UserError, match=f"received {variable}=cifar with FEATURES=efficientnet-l"):
        request(tmp_path, **{variable.lower(): "cifar"})


def test_retrain_without_features_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"trains a head on features.*FEATURES=") as told:
        plan(request(tmp_path, features="", settings=()))
    assert "\n" not in str(told.value)
