# SPDX-License-Identifier: Apache-2.0
"""The noise sweep from its command line: real processes, no training."""

import dataclasses
import inspect
import json
import re
import signal
import subprocess
import sys
import tempfile
import typing
from pathlib import Path

import pytest

from components.prepare import prepare
from ieg_core import errors
from ieg_core.host import machine
from ieg_core.store.layout import read_planned, trial_folder
from ieg_core.store.records import RatesRecord
from ieg_core.sweep import estimate, plan, slots
from ieg_core.sweep.request import SweepRequest
from pipelines import __main__ as command_line
from pipelines import checks, noise_sweep, parameters, profiles
from pipelines.local import sweep
from tests.records import put

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "pipelines", "run", "noise_sweep", "--devices=cpu"]


def spec():
    return checks.compiled(noise_sweep.build(profiles.LOCAL))


def test_the_parameters_have_types_that_the_kfp_ui_shows():
    inputs = spec()["root"]["inputDefinitions"]["parameters"]
    assert {name: value["parameterType"] for name, value in inputs.items()} == {
        "dataset": "STRING",
        "noise_ratios": "LIST",
        "methods": "LIST",
        "seeds": "LIST",
        "recipe": "STRING",
        "network": "STRING",
        "features": "STRING",
        "steps": "NUMBER_INTEGER",
        "settings": "LIST",
        "accelerator": "BOOLEAN",
        "labels": "STRING",
        "data_dir": "STRING",
        "results": "STRING",
        "results_namespace": "STRING",
        "run_label": "STRING",
        "part": "NUMBER_INTEGER",
        "parts": "NUMBER_INTEGER",
        "schedule": "STRING",
        "tolerance": "NUMBER_DOUBLE",
        "accepted": "STRING",
    }
    assert all("defaultValue" in value for value in inputs.values())


def test_every_parameter_says_in_the_kfp_ui_what_it_is():
    inputs = spec()["root"]["inputDefinitions"]["parameters"]
    short = [name for name, value in inputs.items() if len(value.get("description", "")) < 30]
    assert short == []


def test_the_request_is_among_the_parameters():
    inputs = spec()["root"]["inputDefinitions"]["parameters"]
    kinds = (SweepRequest, parameters.RunParameters)
    declared = [(kind, each) for kind in kinds for each in dataclasses.fields(kind)]
    assert inputs.keys() == {each.name for _, each in declared}
    for kind, each in declared:
        assert inputs[each.name]["description"] == parameters.description(kind, each)
        if each.name not in ("dataset", "accelerator", *parameters.OF_THE_PLACE):
            default = inputs[each.name]["defaultValue"]
            assert default == (list(each.default) if default.__class__ is list else each.default)


def test_prepare_takes_each_field_of_the_request():
    """KFP reads the component's signature alone, so that it cannot be derived."""
    signature = inspect.signature(prepare.python_func).parameters
    hints = typing.get_type_hints(SweepRequest)
    expected = {name: parameters.parameter_type(hint) for name, hint in hints.items()}
    given = {name: each.annotation for name, each in signature.items() if name in expected}
    assert given == expected
    others = [name for name in signature if name not in expected]
    assert others == [
        *("results_namespace", "run", "run_label", "part", "parts"),
        *("max_trials", "trials_per_pod", "plan"),
    ]
    documented = set(re.findall(r"^ +(\w+):", prepare.python_func.__doc__, re.MULTILINE))
    assert set(signature) <= documented


def test_every_field_of_the_request_is_documented():
    documented = re.findall(r"^ +(\w+):", SweepRequest.__doc__, re.MULTILINE)
    assert documented == ["Attributes", *(f.name for f in dataclasses.fields(SweepRequest))]


def test_the_steps_run_in_their_order():
    compiled = spec()
    tasks = compiled["root"]["dag"]["tasks"]
    depends = {name: set(task.get("dependentTasks", ())) for name, task in tasks.items()}
    assert depends == {
        "prepare": set(),
        "for-loop-1": {"prepare"},
        "report": {"prepare", "for-loop-1"},
        "check-results": {"report"},
    }
    loop = compiled["components"]["comp-for-loop-1"]["dag"]["tasks"]
    assert {name: task.get("dependentTasks") for name, task in loop.items()} == {
        "train": None,
        "evaluate": ["train"],
    }


def test_only_names_travel_between_the_tasks_of_a_trial():
    components = spec()["components"]
    for name in ("comp-train", "comp-evaluate"):
        assert "artifacts" not in components[name]["inputDefinitions"]
        inputs = components[name]["inputDefinitions"]["parameters"].values()
        types = {value["parameterType"] for value in inputs}
        assert types == {"STRING"}


def test_a_profile_decides_image_parallelism_and_folders():
    profile = profiles.Profile(
        name="there",
        image="registry/ieg-python:1",
        parallelism=8,
        accelerator=True,
        data_dir="/data",
        results="/results",
    )
    compiled = checks.compiled(noise_sweep.build(profile))
    assert compiled["root"]["dag"]["tasks"]["for-loop-1"]["iteratorPolicy"] == {
        "parallelismLimit": 8
    }
    executors = compiled["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {"registry/ieg-python:1"}
    inputs = compiled["root"]["inputDefinitions"]["parameters"]
    assert inputs["data_dir"]["defaultValue"] == "/data"
    assert inputs["accelerator"]["defaultValue"] is True
    checks.require_sound(compiled, checks.ALL)


@pytest.mark.parametrize(
    ("seconds", "at_once", "expected"),
    [
        ([5, 5, 5], 1, 15),
        ([5, 5, 5], 2, 10),
        # Slot A: 1, 4; slot B: 3, 2; the third job starts at 1, the fourth at 3.
        ([1, 3, 4, 2], 2, 5),
        ([], 2, 0),
    ],
)
def test_the_estimate_fills_the_slots_in_order(seconds, at_once, expected):
    assert sweep.side_by_side(seconds, at_once) == expected


# --- the whole pipeline in real processes; trials are finished or broken before it starts ---


def request(results, **changes):
    values = {"noise_ratios": (0.8,), "methods": ("supervised", "l2r"), "steps": 50}
    return SweepRequest("digits_uniform", **values | changes, results=str(results))


def arguments(results, **changes):
    values = {"noise": "0.8", "methods": "supervised,l2r", "steps": "50"} | changes
    return [f"--{name}={value}" for name, value in values.items()] + [f"--out={results}"]


def trial_of(planned, method):
    (trial,) = (trial for trial in planned.trials if f"-{method}-" in trial)
    return trial


def finish(results, trial, accuracy=0.9):
    """Writes what a finished trial leaves behind."""
    record = read_planned(results, trial).to_value()
    row = {key: record[key] for key in ("trial", "dataset", "method", "seed", "network")}
    row |= {"noise_rate": 0.8, "true_flip_rate": 0.72, "clean_labels_used": 0, "steps": 50}
    row |= {"accuracy_ema_last": accuracy, "accuracy_ema_best": accuracy, "total_seconds": 12.0}
    row |= {"accuracy_last": accuracy, "accuracy_best": accuracy, "steps_per_second": 40.0}
    row |= {"status": "finished", "reason": "", "run_directory": f"trials/{trial}"}
    put(trial_folder(results, trial) / "result.json", **row)


def know_the_rate(results, trial, steps_per_second=1000.0):
    """Spares the estimate its measurement."""
    record = read_planned(results, trial)
    key = estimate._key(record, slots.Slot(threads=1))
    RatesRecord(rates={key: steps_per_second}).write(results)


@pytest.fixture
def sweep_here(monkeypatch, capsys):
    """Runs a sweep's command line in this process; its tasks have processes of their own."""

    def run(arguments, environment):
        for name in ("PYTHONPATH", "KERAS_BACKEND"):
            if name in environment:
                monkeypatch.setenv(name, environment[name])
        code = command_line.main([*COMMAND[3:], *arguments])
        return (code, *capsys.readouterr())

    return run


def test_a_sweep_with_nothing_to_do_reports_and_imports_no_framework(tmp_path, slow_tensorflow):
    planned = plan.plan(request(tmp_path / "runs"))
    for trial in planned.trials:
        finish(tmp_path / "runs", trial)
    done = subprocess.run(
        [*COMMAND, *arguments(tmp_path / "runs")],
        cwd=ROOT,
        env=slow_tensorflow.environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert slow_tensorflow.pids() == []
    assert f"Sweep {planned.sweep}: 2 trials, 2 of them finished already" in done.stdout
    assert "90.0" in done.stdout
    report = tmp_path / "runs" / "latest" / "report"
    assert f"Report: {tmp_path}/runs/latest/report/report.html" in done.stdout
    names = {"report.html", "results.csv", "results.json", "results.md"}
    assert {path.name for path in report.iterdir()} == names
    assert done.stderr == ""


def test_a_failed_trial_costs_itself_and_fails_the_run_after_the_report(
    tmp_path, stand_in_tensorflow, sweep_here
):
    """One fails by an exception, one is killed, one ends silently; the fourth is finished."""
    results = tmp_path / "runs"
    reasons = {
        "l2r": "RuntimeError: boom",
        "mixup": "killed by SIGKILL",
        "fsr": "exit code 7: bye",
    }
    planned = plan.plan(request(results, methods=("supervised", *reasons)))
    finish(results, trial_of(planned, "supervised"))
    know_the_rate(results, trial_of(planned, "l2r"))
    stand_in = stand_in_tensorflow(
        """trial = sys.argv[2]
if "-l2r-" in trial:
    raise RuntimeError("boom")
if "-mixup-" in trial:
    os.kill(os.getpid(), 9)
print("bye")
os._exit(7)"""
    )
    code, output, error = sweep_here(
        arguments(results, methods=",".join(["supervised", *reasons])), stand_in.environment
    )
    assert code == 1, output + error
    rows = json.loads((results / "latest" / "report" / "results.json").read_text())["trials"]
    assert {row["method"]: row["status"] for row in rows} == {
        "supervised": "finished",
        **dict.fromkeys(reasons, "failed"),
    }
    lines = error.splitlines()
    assert len(lines) == len(reasons)
    for method, reason in reasons.items():
        trial = trial_of(planned, method)
        (line,) = (line for line in lines if line.startswith(f"failed: {trial}: {reason}"))
        assert f"{results}/trials/{trial}/log.txt" in line
    assert output.count(": failed: ") == len(reasons)  # while it ran
    page = results / "latest" / "report" / "report.html"
    assert f"Live report: {page}\n" in output
    assert 'http-equiv="refresh"' not in page.read_text()
    log = (results / "latest" / "log.txt").read_text()
    assert "Inner task failed: 'check-results'" in log


def test_a_pipeline_that_breaks_down_says_where_it_tells_more(tmp_path, sweep_here):
    results = tmp_path / "runs"
    planned = plan.plan(request(results))
    for trial in planned.trials:
        finish(results, trial)
    (results / "sweeps" / planned.sweep / "report").write_text("in the way of the report")
    code, _, error = sweep_here(arguments(results), {})
    assert code == 1
    log = results / "sweeps" / planned.sweep / "log.txt"
    (line,) = error.splitlines()
    assert line.startswith("the pipeline failed before its report: RuntimeError: Pipeline")
    assert "Inner task failed: 'report'" in line
    assert line.endswith(f"({log})")
    assert "cannot write results under" in log.read_text()
    assert (results / "latest").resolve() == log.parent


def test_trials_run_side_by_side_each_in_its_slot(tmp_path, stand_in_tensorflow, sweep_here):
    """Each trial waits until both have come; then both fail, having seen their threads."""
    results = tmp_path / "runs"
    planned = plan.plan(request(results))
    know_the_rate(results, planned.trials[0])
    know_the_rate(results, planned.trials[1])
    stand_in = stand_in_tensorflow(
        f"""deadline = time.monotonic() + 300
while len(open({str(tmp_path / "imports")!r}).readlines()) < 2:
    if time.monotonic() > deadline:
        raise RuntimeError("alone")
    time.sleep(0.05)
raise RuntimeError(f"met with {{os.environ['OMP_NUM_THREADS']}} threads")"""
    )
    sweep_here(arguments(results), stand_in.environment)
    rows = json.loads((results / "latest" / "report" / "results.json").read_text())["trials"]
    expected = "met with 1 threads" if machine.usable_cores() > 1 else "alone"
    assert {row["reason"] for row in rows} == {f"RuntimeError: {expected}"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--methods=l2x", "unknown method 'l2x': did you mean 'l2r'"),
        ("--noise=1.5", "1.5"),
        ("--noise=nan", "nan"),
        ("--dataset=digits_unifrom", "digits_unifrom"),
        ("--network=resnet30", "resnet30"),
        ("--recipe=digit", "'digits'"),
        ("--set=optimizer.learning_rat=1", "'optimizer.learning_rate'"),
        ("--steps=0", "STEPS='0'"),
        ("--unknown=1", "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(
    tmp_path, monkeypatch, capsys, argument, message
):
    monkeypatch.setattr(sweep, "_run_pipeline", lambda *args: pytest.fail("it started"))
    argv = [*COMMAND[3:], *arguments(tmp_path / "runs"), argument]
    assert command_line.main(argv) == errors.EXIT_USER_ERROR
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith("ieg: error: ")
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert not list(tmp_path.rglob("*.json"))


def test_a_sweep_that_takes_too_long_is_refused_with_its_estimate(tmp_path, monkeypatch, capsys):
    """36,000 steps at 1 step/s are 10 hours, those of l2r three times that."""
    monkeypatch.setattr(sweep, "_run_pipeline", lambda *args: pytest.fail("it started"))
    results = tmp_path / "runs"
    planned = plan.plan(request(results, steps=36_000))
    know_the_rate(results, trial_of(planned, "supervised"), steps_per_second=1.0)
    argv = [*COMMAND[3:], *arguments(results, steps=36_000)]
    assert command_line.main(argv) == errors.EXIT_USER_ERROR
    output = capsys.readouterr()
    assert "Estimate: " in output.out
    assert "more than MAX_HOURS=4" in output.err
    assert output.err.count("\n") == 1


@pytest.fixture
def running(tmp_path, slow_tensorflow):
    """A sweep of two trials in the middle of its training."""
    results = tmp_path / "runs"
    planned = plan.plan(request(results))
    for trial in planned.trials:
        know_the_rate(results, trial)
    process = subprocess.Popen(
        [*COMMAND, *arguments(results)],
        cwd=ROOT,
        env=slow_tensorflow.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    slow_tensorflow.wait_until_imported(min(2, machine.usable_cores()))
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_says_one_line_and_leaves_no_process(
    running, slow_tensorflow, tmp_path, number
):
    running.send_signal(number)
    output, error = running.communicate(timeout=3600)
    assert running.returncode == errors.EXIT_INTERRUPTED
    assert error == "\nieg: interrupted; run the same command again to continue\n"
    assert output.startswith("Sweep ")
    slow_tensorflow.wait_until_ended()
    assert not list((tmp_path / "runs").rglob("failure.json"))


def test_a_killed_sweep_leaves_no_process_and_a_folder_to_the_next(
    running, slow_tensorflow, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (scratch,) = tmp_path.glob("ieg-sweep-*")
    with sweep._scratch_folder():
        assert scratch.exists()  # its sweep lives
    running.kill()
    running.communicate()
    slow_tensorflow.wait_until_ended()
    assert not list((tmp_path / "runs").rglob("failure.json"))
    with sweep._scratch_folder() as next_one:
        assert list(tmp_path.glob("ieg-sweep-*")) == [next_one]
    assert not next_one.exists()
