# SPDX-License-Identifier: Apache-2.0
"""A trial survives its process: training processes, killed with their group and tried again."""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from ieg_core.host.files import read_json
from ieg_core.store import gcs as storage
from ieg_core.store import mirror
from ieg_core.store.layout import trial_folder
from ieg_core.store.records import LeaseRecord, ProgressRecord
from ieg_core.sweep import plan as sweep
from ieg_core.sweep import worker
from ieg_core.sweep.request import SweepRequest
from ieg_core.training import checkpoint
from tests import gcs
from tests.records import example, put_json

ROOT = Path(__file__).parents[2]
SETTINGS = ("evaluations=3", "batch_size=50")
STEPS = {"l2r": 150, "supervised": 400}  # long enough to be killed or stopped in


def plan(root: Path, method: str) -> str:
    request = SweepRequest(
        "digits_uniform_0.4",
        methods=(method,),
        steps=STEPS[method],
        settings=SETTINGS,
        results=str(root),
    )
    return sweep.plan(request).trials[0]


PROGRAM = """
import sys
from pathlib import Path
from ieg_core.store import mirror
from ieg_core.sweep import slots, worker
from tests.clock import ImpatientClock
root, trial = sys.argv[1:]
with mirror.trial(root, trial, ImpatientClock()) as local:
    code = worker.run_step("train", trial, local, Path("data"), slot=slots.Slot(1))
sys.exit(code % 256)
"""


def start(root: Path | str, trial: str, **environment: str) -> subprocess.Popen[str]:
    """Starts what a pod runs for the trial, in a process group of its own."""
    settings = {"IEG_CHECKPOINT_SECONDS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(root), trial],
        cwd=ROOT,
        env=os.environ | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def finish(root: Path | str, trial: str) -> None:
    process = start(root, trial)
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, output


def outcome(root: Path, trial: str) -> dict[str, object]:
    """Returns all that a trial's computation decides: checkpoint, curves, matrices, accuracies."""
    folder = trial_folder(root, trial)
    found: dict[str, object] = {"curves": read_json(folder / "curves.json")}
    (attempt,) = checkpoint.saved_attempts(folder)
    for path in (checkpoint.checkpoint_path(folder, attempt), folder / "matrices.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                found[f"{path.suffix}/{path.parent.name}/{name}"] = file.get_tensor(name).tobytes()
    row = read_json(folder / "result.json")
    return found | {name: value for name, value in row.items() if "accuracy" in name}


@dataclasses.dataclass(frozen=True)
class Whole:
    """An undisturbed run: its trial, what came of it, and its times in seconds."""

    trial: str
    outcome: dict[str, object]
    first_save: float
    duration: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    root = tmp_path_factory.mktemp("whole")
    trial = plan(root, "l2r")
    began = time.monotonic()
    process = start(root, trial)
    _wait_for_a_checkpoint(process, trial_folder(root, trial))
    first_save = time.monotonic() - began
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, output
    duration = time.monotonic() - began
    expected = outcome(root, trial)
    assert len(expected) > 50
    return Whole(trial, expected, first_save, duration)


def kill_at_random_moments(tmp_path: Path, whole: Whole, count: int, seed: int) -> list[int]:
    """Kills `count` first attempts at random moments and tries each of them again once.

    Every other moment is drawn from an undisturbed run's whole time, most of which goes into
    imports and compilation, the others from the time between its first checkpoint and its end.
    Each second attempt must end with the undisturbed run's bits.

    Returns:
      The steps that the killed attempts had saved; 0 for those killed before their first save.
    """
    moments = random.Random(seed)
    saved = []
    for number in range(count):
        root = tmp_path / str(number)
        trial = plan(root, "l2r")
        assert trial == whole.trial
        folder = trial_folder(root, trial)
        process = start(root, trial)
        if number % 2:
            _wait_for_a_checkpoint(process, folder)
            time.sleep(moments.uniform(0.0, whole.duration - whole.first_save))
        else:
            time.sleep(moments.uniform(0.0, whole.duration))
        # The worker leads a group of its own, which its component's end takes along.
        lease = read_json(folder / "leases" / "000001.json") or {}
        if lease.get("pid") and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(lease["pid"], signal.SIGKILL)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done = checkpoint.read_progress(folder)
        saved.append(done.step if done else 0)
        finish(root, trial)
        assert outcome(root, trial) == whole.outcome, f"killed after step {saved[-1]}"
    return saved


def _wait_for_a_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 3600
    while not checkpoint.saved_attempts(folder):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def test_killed_at_two_random_moments_a_trial_ends_bit_identical(tmp_path, whole):
    kill_at_random_moments(tmp_path, whole, 2, seed=1)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_a_trial_ends_bit_identical(tmp_path, whole):
    saved = kill_at_random_moments(tmp_path, whole, 20, seed=2)
    assert sum(0 < step < STEPS["l2r"] for step in saved) >= 5, saved
    print(f"killed after saving step {sorted(saved)}")


def test_a_promised_gpu_that_is_not_there_fails_the_trial_in_one_line(tmp_path):
    trial = plan(tmp_path, "supervised")
    shutil.rmtree(tmp_path / "label_sets")  # it is looked for before the data, which may take long
    process = start(tmp_path, trial, IEG_REQUIRE_GPU="1", CUDA_VISIBLE_DEVICES="-1")
    output, _ = process.communicate(timeout=3600)
    assert process.returncode == worker.EXIT_USER_ERROR
    assert output.strip().splitlines()[-1].startswith("ieg: error: a GPU is required")
    failure = read_json(trial_folder(tmp_path, trial) / "failure.json")
    assert "tensorflow sees no GPU" in failure["reason"]
    assert not (trial_folder(tmp_path, trial) / "training.json").exists()


def test_a_stale_process_stops_quietly_and_its_trial_goes_on(tmp_path, request):
    """Two live processes: the first is thought dead and goes on writing beside its successor."""
    trial = plan(tmp_path, "supervised")
    folder = trial_folder(tmp_path, trial)
    stale = start(tmp_path, trial)
    _wait_for_a_checkpoint(stale, folder)
    worker_pid = read_json(folder / "leases" / "000001.json")["pid"]
    os.kill(worker_pid, signal.SIGSTOP)
    request.addfinalizer(lambda: _kill(worker_pid))
    # As another machine sees it: the lock means nothing, the last heartbeat is long ago.
    path = folder / "leases" / "000001.json"
    put_json(path, read_json(path) | {"machine": "other", "started": 0})
    path = folder / "progress.json"
    put_json(path, read_json(path) | {"updated": 0})
    successor = start(tmp_path, trial)
    request.addfinalizer(lambda: _kill(successor.pid))
    deadline = time.monotonic() + 3600
    while 2 not in checkpoint.saved_attempts(folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker_pid, signal.SIGCONT)
    output, _ = stale.communicate(timeout=3600)
    assert stale.returncode == worker.EXIT_SUPERSEDED
    assert "attempt 1 stops, because attempt 2" in output
    assert not (folder / "failure.json").exists()
    output, _ = successor.communicate(timeout=3600)
    assert successor.returncode == 0, output
    assert checkpoint.saved_attempts(folder) == [2]
    assert read_json(folder / "result.json")["status"] == "finished"
    assert read_json(folder / "progress.json")["attempt"] == 2


def test_a_pod_killed_in_training_goes_on_from_the_bucket_bit_for_bit(whole, tmp_path, monkeypatch):
    bucket = f"gs://{gcs.BUCKET}/runs"
    url = f"{bucket}/trials/{whole.trial}"
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        with mirror.planning(bucket) as root:
            assert plan(root, "l2r") == whole.trial
        killed = start(bucket, whole.trial)
        deadline = time.monotonic() + 3600
        while not storage.list_files(url, "checkpoint/"):
            assert time.monotonic() < deadline
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert "result.json" not in storage.list_files(url)
        # What its heartbeat would have become three minutes later.
        dataclasses.replace(LeaseRecord.read(url, 1), started=0).write(url, 1)
        example(ProgressRecord, attempt=1, updated=0).write(url)
        finish(bucket, whole.trial)
        assert mirror.fetch(bucket, f"trials/{whole.trial}", trial_folder(tmp_path, whole.trial))
    assert outcome(tmp_path, whole.trial) == whole.outcome
