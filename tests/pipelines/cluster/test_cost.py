# SPDX-License-Identifier: Apache-2.0
"""Pods and GPU-hours, by hand."""

import json
import threading

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.recipes.build import build_config
from ieg_core.store import gcs as storage
from ieg_core.store.records import LatestRecord
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import SweepRequest
from pipelines.cluster import cost, submit
from pipelines.cluster_files import ClusterFile
from tests import gcs
from tests.records import put, put_json

RATES = {("resnet11", "supervised"): 20.0, ("resnet11", "l2r"): 5.0}


def cifar(method, steps=12_000):
    spec = parse("cifar10_uniform_0.4")
    return spec, build_config(spec, method, recipe="cifar_cpu", num_steps=steps)


def estimate(wanted, runs=(1,), gpus=1, rates=None, **options):
    given = {"at_once": 0, "rates": rates or {}} | options
    return cost.estimate(wanted, runs=list(runs), gpus=gpus, **given)


def test_gpu_hours_are_steps_evaluations_and_start_up():
    # 12,000 steps and 10 evaluations of 2 × 10,000 images, 300 images a step: 666.7 steps more.
    found = estimate([cifar("supervised")], rates=RATES)
    assert found.gpu_hours == pytest.approx((180 + (12_000 + 200_000 / 300) / 20) / 3600)
    assert found.hours == found.gpu_hours
    assert found.assumed == 0


def test_a_methods_own_rate_wins_over_its_relative_cost():
    own = estimate([cifar("l2r")], rates=RATES)
    derived = estimate([cifar("l2r")], rates={("resnet11", "supervised"): 20.0})
    evaluations = 200_000 / 300 / 2.7
    assert own.gpu_hours == pytest.approx((180 + (12_000 + evaluations) / 5) / 3600)
    assert derived.gpu_hours == pytest.approx((180 + (12_000 + evaluations) * 2.7 / 20) / 3600)


def test_each_gpu_of_a_training_counts():
    one, two = (estimate([cifar("supervised")], gpus=gpus, rates=RATES) for gpus in (1, 2))
    assert two.gpu_hours == 2 * one.gpu_hours
    assert two.hours == one.hours


def test_trials_that_share_a_pod_wait_for_each_other():
    alone, shared = (
        estimate([cifar("supervised")] * 8, runs=[8], at_once=4, trials_per_pod=most)
        for most in (1, 8)
    )
    assert (alone.at_once, shared.at_once) == (4, 1)
    assert shared.hours == pytest.approx(4 * alone.hours)
    assert shared.gpu_hours == alone.gpu_hours


@pytest.mark.parametrize(("runs", "pods"), [((1,), 13), ((100,), 508), ((100, 50), 508 + 258)])
def test_pods_are_five_a_trial_and_eight_a_run(runs, pods):
    assert estimate([cifar("supervised")] * sum(runs), runs=runs).pods == pods


def test_trials_that_share_pods_take_fewer():
    found = estimate([cifar("supervised")] * 100, runs=(100,), trials_per_pod=10)
    assert found.pods == 58


def test_trials_run_side_by_side_in_each_run():
    wanted = [cifar("supervised")] * 8
    alone = estimate(wanted[:1], rates=RATES).hours
    assert estimate(wanted, (8,), at_once=4, rates=RATES).hours == pytest.approx(2 * alone)
    assert estimate(wanted, (4, 4), at_once=4, rates=RATES).hours == pytest.approx(alone)
    assert estimate(wanted, (8,), at_once=0, rates=RATES).hours == pytest.approx(alone)


def test_a_long_trial_is_waited_for():
    wanted = [cifar("supervised"), cifar("supervised", steps=120_000)]
    assert estimate(wanted, (2,), at_once=2, rates=RATES).hours == pytest.approx(
        estimate(wanted[1:], rates=RATES).hours
    )


def test_what_is_assumed_is_said_to_be():
    assert "step rates assumed, not measured" in estimate([cifar("l2r")]).line
    both = estimate([cifar("l2r"), cifar("ieg")], rates={("resnet11", "l2r"): 5.0})
    assert "step rates measured, but assumed for 1 trials" in both.line
    assert estimate([cifar("l2r")], rates=RATES).line.endswith("(step rates measured)")


def test_an_assumed_step_grows_with_network_and_batch_down_to_a_floor():
    spec = parse("cifar10_uniform_0.4")
    wide = build_config(spec, "supervised", recipe="cifar")
    rate, assumed = cost.step_rate(wide, 1, {})
    # 6 × 13.1e6 × 4 blocks × 10² × 100 images at 20e12 a second.
    assert rate == pytest.approx(20e12 / (6 * 13.1e6 * 4 * 100 * 100))
    assert assumed
    assert cost.step_rate(wide, 2, {})[0] == pytest.approx(2 * rate)
    small = build_config(parse("digits_uniform_0.4"), "supervised")
    assert cost.step_rate(small, 1, {})[0] == pytest.approx(1 / 0.012)


@pytest.mark.parametrize(
    ("network", "counted"),
    [
        *[("preact8", 3.0e6), ("resnet11", 34.5e6), ("resnet29", 98.0e6), ("resnet32", 68.9e6)],
        *[("wrn28-10", 5.24e9), ("wrn16-8", 1.55e9), ("wrn40-2", 0.33e9), ("resnet50", 4.09e9)],
    ],
)
def test_multiplications_are_about_those_of_the_built_network(network, counted):
    assert cost.macs(network) == pytest.approx(counted, rel=0.1)


def test_a_long_tail_has_fewer_examples():
    assert cost.num_examples(parse("cifar10_uniform_0.4")) == 50_000
    # Two classes would keep 1 and ρ; ten keep Σ ρ^(c/9) = 5,000·2.4 or so at ρ = 0.01.
    expected = 5000 * sum(0.01 ** (c / 9) for c in range(10))
    assert cost.num_examples(parse("cifar10_imbal_0.01")) == round(expected)


def test_a_budget_is_kept():
    found = estimate([cifar("supervised")] * 10, (10,), rates=RATES)
    cost.accept(found, found.gpu_hours)
    with pytest.raises(UserError, match=r"about 2\.3 GPU-hours, more than MAX_GPU_HOURS=2:"):
        cost.accept(found, 2)


def test_no_gpus_cost_no_gpu_hours():
    found = estimate([cifar("ieg")], gpus=0)
    assert (found.gpu_hours, found.assumed) == (0, 0)
    assert found.line == "1 trial, 13 pods, no GPUs"
    cost.accept(found, 0.001)


def test_every_data_set_and_recipe_can_be_estimated():
    for dataset in ("digits_uniform", "cifar10_asymmetric", "cifar100_imbal_0.1", "folder_uniform"):
        wanted = configs(SweepRequest(dataset, accelerator=True))
        assert estimate(wanted, (len(wanted),)).gpu_hours > 0


def test_rates_are_read_from_a_text_or_a_file(tmp_path):
    found = cost.read_rates("resnet11:supervised=20, resnet11:l2r=5")
    assert found == RATES
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"resnet11": {"supervised": 20, "l2r": 5.0}}))
    assert cost.read_rates(str(path)) == RATES
    assert cost.read_rates("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "expected network:method=steps per second"),
        ("resnet11=20", "expected network:method=steps per second"),
        ("resnet11:supervised=fast", "steps per second above 0, got 'fast'"),
        ("resnet11:supervised=0", "above 0, got '0'"),
        ("resnet11:supervised=nan", "above 0"),
        ("resnet11:superviced=1", "unknown method 'superviced': did you mean 'supervised'"),
        ("resnet12:supervised=1", "unknown network 'resnet12'"),
        ("none.json", "there is no such file"),
    ],
)
def test_rates_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        cost.read_rates(text)


@pytest.mark.parametrize("content", ["", "[1]", '{"resnet11": 3}', '{"resnet11": {"l2r": "fast"}}'])
def test_a_file_of_rates_that_is_none(tmp_path, content):
    path = tmp_path / "rates.json"
    path.write_text(content) if content else path.mkdir()
    with pytest.raises(UserError, match=r"rates\.json"):
        cost.read_rates(str(path))


def test_finished_trials_on_gpus_are_measurements(tmp_path):
    for number, (device, rate) in enumerate([("H200", 8.0), ("H200", 10.0), ("CPU", 0.5)]):
        folder = tmp_path / "trials" / str(number)
        put(folder / "training.json", steps_per_second=rate, device=device)
        put(folder / "config.json", network="wrn28-10", method="l2r")
    (tmp_path / "trials" / "0" / "config.json").unlink()
    assert cost.measured_rates(tmp_path) == {("wrn28-10", "l2r"): 10.0}
    assert cost.measured_rates(tmp_path / "nowhere") == {}


def test_the_newest_report_in_a_bucket_is_a_measurement(tmp_path, monkeypatch):
    cluster_file = ClusterFile(results=f"gs://{gcs.BUCKET}/team")
    rows = [
        {"network": "wrn28-10", "method": "l2r", "device": device, "steps_per_second": rate}
        for device, rate in [("H200", 8.0), ("H200", 10.0), ("CPU", 0.5), (None, None)]
    ]
    # As another version could write them.
    rows += [rows[0] | odd for odd in ({"steps_per_second": "fast"}, {"method": []})]
    report = tmp_path / "sweeps" / "s1" / "report" / "results.json"
    report.parent.mkdir(parents=True)
    put_json(report, {"schema": 1, "trials": rows})
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        assert submit.measured(cluster_file) == {}
        name = "sweeps/s1/report/results.json"
        storage.upload(cluster_file.results, tmp_path, [name], {name: None})
        LatestRecord(sweep="s1").write(cluster_file.results)
        assert submit.measured(cluster_file) == {("wrn28-10", "l2r"): 9.0}


def test_a_bucket_that_does_not_answer_costs_seconds(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(cost, "reported_rates", lambda root: answered.wait(300))
    assert submit.measured(ClusterFile(results="gs://bucket/team"), seconds=0.1) == {}
    answered.set()
