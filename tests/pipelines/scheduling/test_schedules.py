# SPDX-License-Identifier: Apache-2.0
import dataclasses
import re
from pathlib import Path

import pytest

from ieg_core.errors import UserError
from ieg_core.recipes import build
from ieg_core.recipes.family import OURS
from ieg_core.recipes.published import PUBLISHED
from ieg_core.store.runs import results_root
from ieg_core.sweep.configurations import configs
from ieg_core.sweep.request import SweepRequest
from pipelines.cluster_files import ClusterFile
from pipelines.profiles import MAX_TRIALS
from pipelines.scheduling import cron, schedules

ROOT = Path(__file__).parents[3]
PLAIN = """
schedules:
  - name: nightly
    cron: 0 0 3 * * *
    dataset: digits_uniform
    noise_ratios: [0.4, 1]
    methods: [supervised, l2r]
    seeds: [0, 1]
    tolerance: 2
    profile: cpu
"""


def read(tmp_path, text, cluster_file=ClusterFile(), max_trials=MAX_TRIALS):  # noqa: B008
    path = tmp_path / "schedules.yaml"
    path.write_text(text)
    return schedules.read(path, cluster_file, max_trials=max_trials)


@pytest.mark.parametrize(
    "text",
    ["0 0 3 * * *", "30 5,35 */2 1-15 jan-mar mon,WED", "0 0/10 * * * ?", "0 0 0 ? * 6",
     "0 0 1 1 * 0-6/2"],
)  # fmt: skip
def test_what_kfp_reads_as_six_fields_is_taken(text):
    cron.check(text)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("0 3 * * *", "such as '0 0 3 * * *'"),
        ("0 3 * *", "has 4 fields: expected 6"),
        ("0 0 3 * * * 2026", "has 7 fields"),
        ("@daily", "expected 6"),
        ("@every 1h", "expected 6"),
        ("CRON_TZ=Asia/Tokyo 0 0 3 * * *", "names a time zone"),
        ("TZ=UTC 0 0 3 * * *", "names a time zone"),
        ("60 0 3 * * *", "'60' is not a valid second: expected 0 to 59"),
        ("0 60 3 * * *", "not a valid minute"),
        ("0 0 24 * * *", "not a valid hour"),
        ("0 0 3 0 * *", "not a valid day of the month"),
        ("0 0 3 * 13 *", "not a valid month: expected 1 to 12 or jan to dec"),
        ("0 0 3 * * 7", "not a valid day of the week: expected 0 to 6"),
        ("0 0 3 * * friday", "not a valid day of the week"),
        ("0 0 5-3 * * *", "'5-3' is not a valid hour"),
        ("0 */0 3 * * *", "'*/0' is not a valid minute"),
        ("0 0 ? * * *", "not a valid hour"),
        ("0 1,,2 3 * * *", "not a valid minute"),
        ("* 0 3 * * *", "several times"),
        ("", "has 0 fields"),
    ],
)
def test_what_kfp_would_refuse_or_misread_is_refused_with_the_mend(text, mend):
    with pytest.raises(UserError) as error:
        cron.check(text)
    assert mend in str(error.value)
    assert "\n" not in str(error.value)


def test_a_schedule_becomes_a_request_and_the_pipelines_arguments(tmp_path):
    (schedule,) = read(tmp_path, PLAIN)
    assert schedule.request.noise_ratios == (0.4, 1.0)
    assert len(configs(schedule.request)) == 2 * 2 * 2
    assert not schedule.request.accelerator
    assert schedule.arguments["seeds"] == [0, 1]
    assert (schedule.arguments["schedule"], schedule.arguments["tolerance"]) == ("nightly", 2.0)


def test_a_schedule_takes_each_field_of_a_request_but_the_places(tmp_path):
    assert {*schedules.request_keys(), "accelerator", "data_dir", "results"} == {
        each.name for each in dataclasses.fields(SweepRequest)
    }
    explained = (ROOT / schedules.FILE).read_text().partition("\nschedules:")[0]
    assert all(re.search(rf"\b{key}\b", explained) for key in schedules.request_keys())
    text = PLAIN + "    settings: [batch_size=50]\n"
    (schedule,) = read(tmp_path, text)
    assert schedule.request.settings == ("batch_size=50",)
    assert schedule.arguments["settings"] == ["batch_size=50"]


@pytest.mark.parametrize("key", ["accelerator", "data_dir", "results", "request"])
def test_what_the_cluster_decides_is_no_key_of_a_schedule(tmp_path, key):
    with pytest.raises(UserError, match=f"unknown key in schedules.0. '{key}'"):
        read(tmp_path, PLAIN + f"    {key}: x\n")


def test_each_run_of_a_schedule_has_a_results_root_of_its_own(tmp_path):
    namespace = read(tmp_path, PLAIN)[0].arguments["results_namespace"]
    roots = {results_root("/results", namespace, run) for run in ("1f-a", "1f-b")}
    assert roots == {"/results/scheduled/nightly/1f-a", "/results/scheduled/nightly/1f-b"}
    # An installation that does not put the run's id in is noticed, not shared by all runs.
    with pytest.raises(UserError, match="results_namespace"):
        results_root("/results", namespace, "{{$.pipeline_job_uuid}}")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cron: 0 0 3 * * *", "cron: 0 3 * * *", "such as '0 0 3 * * *'"),
        ("cron: 0 0 3 * * *", "cron: 0 0 3 31 2 *", "cron must be an expression that fires on"),
        ("name: nightly", "name: Nightly Run", "name must be"),
        ("tolerance: 2", "tolerance: -1", "tolerance must be"),
        ("tolerance: 2", "tolerance: two", "expected a number"),
        ("    tolerance: 2\n", "", "tolerance missing"),
        ("seeds: [0, 1]", "seeds: 0", "expected a list"),
        ("seeds: [0, 1]", "seeds: []", "no seeds: expected at least one"),
        ("methods: [supervised, l2r]", "methods: [superviced]", "did you mean 'supervised'"),
        ("dataset: digits_uniform", "dataset: digit_uniform", "did you mean 'digits'"),
        ("[0.4, 1]", "[0.4, 1.5]", "1.5 is not a ratio"),
        ("tolerance: 2", "tolerance: 2\n    tollerance: 3", "unknown key in schedules[0]"),
        ("tolerance: 2", "tolerance: 2\n    recipe: cifar", "recipe 'cifar' is for"),
        ("tolerance: 2", "tolerance: 2\n    network: wrn", "wrn"),
        ("profile: cpu", "profile: tpu", "profile must be"),
        ("profile: cpu", "profile: cpu\n    steps: -5", "steps must be"),
        ("profile: cpu", "profile: cpu\n    profile: gpu", "profile is there twice"),
        ("profile: cpu", "profile: cpu\n    time_zone: Asia/Tokyo", "one zone, UTC"),
        ("schedules:", "schedule:", "unknown key 'schedule'"),
        ("schedules:", "schedules: [", "is not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, old, new, message):
    assert old in PLAIN
    with pytest.raises(UserError) as error:
        read(tmp_path, PLAIN.replace(old, new))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "schedules.yaml" in str(error.value)


def test_the_clusters_own_time_zone_is_taken(tmp_path):
    text = PLAIN.replace("profile: cpu", "profile: cpu\n    time_zone: Asia/Tokyo")
    assert read(tmp_path, text, ClusterFile(time_zone="Asia/Tokyo"))


def test_two_schedules_of_one_name_are_refused(tmp_path):
    twice = PLAIN + PLAIN.partition("schedules:\n")[2]
    with pytest.raises(UserError, match="two schedules are named 'nightly'"):
        read(tmp_path, twice)


def test_a_schedule_of_more_trials_than_one_run_may_have_is_refused(tmp_path):
    read(tmp_path, PLAIN, max_trials=8)
    with pytest.raises(UserError, match="its 8 trials are more than the 7"):
        read(tmp_path, PLAIN, max_trials=7)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        schedules.read(tmp_path / "absent.yaml", ClusterFile(), max_trials=1)


def test_an_empty_list_is_a_file_too(tmp_path):
    assert read(tmp_path, "schedules: []") == []


def test_our_own_file_is_sound():
    found = schedules.read(ROOT / schedules.FILE, ClusterFile(), max_trials=MAX_TRIALS)
    assert {schedule.profile for schedule in found} == {"cpu", "gpu"}


def test_our_schedules_of_papers_train_the_networks_of_their_figures():
    found = schedules.read(ROOT / schedules.FILE, ClusterFile(), max_trials=MAX_TRIALS)
    papers = [each.request for each in found if build.FAMILIES[each.request.recipe].source != OURS]
    assert papers
    for request in papers:
        figures = {(p.dataset, p.method, p.network) for p in PUBLISHED if not p.is_recalled}
        for method in request.methods:
            for rate in request.noise_ratios:
                key = (f"{request.dataset}_{rate}", method, request.network)
                assert key in figures, f"{key}: nothing would judge this run"
