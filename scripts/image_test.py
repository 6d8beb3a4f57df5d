# SPDX-License-Identifier: Apache-2.0
"""Builds the cpu image and runs a sweep of one trial in it as KFP would, then kills and resumes it.

1. user, labels, size, `ieg --version`, no development tools, only /tmp is writable
2. the compiled pipeline, one container per task: not root, read-only root, no network, 4 GB memory
3. the training again: SIGTERM to the whole process group and the end of the container's first
   process 1 ms later, like a preempted pod; then a second container that resumes it
4. both checkpoints, tensor by tensor

Each check prints a line; the first that fails ends the test with exit code 1.
"""

import contextlib
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ieg_core.errors import FailedError
from ieg_core.host.clock import CLOCK
from ieg_core.host.program import program
from ieg_core.store import layout
from ieg_core.store.records import ProgressRecord, ResultRecord
from pipelines import compile as packages
from pipelines.cluster_files import ClusterFile
from scripts import image, kfp_pods
from scripts.containers import USER, Box, Pods

OUT = image.ROOT / "build" / "image-test"
MEMORY_LIMIT = 4e9
LARGEST = {"cpu": 3.2e9, "gpu": 9e9}
"""Maximum size in bytes of each target, to detect unintended growth."""
DATASET = "digits_uniform_0.4"
METHOD = "l2r"
STEPS = 300
WAIT_SECONDS = 900
EXIT_TERMINATED = 143


def require(holds: bool, what: str) -> None:
    """Prints a line if the condition holds, else ends the test."""
    if not holds:
        raise FailedError(what)
    print(f"  {what}", flush=True)


def inspect(box: Box, built: image.Image) -> None:
    """Checks the image's metadata, commands, packages and permissions."""
    (about,) = json.loads(
        subprocess.run(
            [box.runner, "image", "inspect", box.image], capture_output=True, text=True, check=True
        ).stdout
    )
    config = about["Config"]
    require(config.get("User") == USER, f"user {config.get('User')}")
    labels = config.get("Labels") or {}
    label = "org.opencontainers.image.revision"
    require(labels.get(label) == built.revision, f"label {label}={labels.get(label)}")
    version = image.project_version()
    label = "org.opencontainers.image.version"
    require(labels.get(label) == version, f"label {label}={labels.get(label)}")
    size = about["Size"]
    limit = LARGEST[built.target]
    require(size < limit, f"size {size / 1e9:.2f} GB, of {limit / 1e9:.1f} GB at most")

    started = CLOCK.monotonic()
    printed = box.run("ieg", "--version")
    seconds = CLOCK.monotonic() - started
    require(printed == f"ieg {version}", f"`ieg --version` prints {printed!r} in {seconds:.1f} s")
    printed = box.run("ieg", "--version", user="12345:12345")
    require(printed == f"ieg {version}", "and as a user unknown to the image")
    box.run("python3", "-m", "kfp.dsl.executor_main", "--help", flags=("--env=_KFP_RUNTIME=true",))
    require(True, "`python3 -m kfp.dsl.executor_main` is there")

    names = set(box.run("python3", "-c", INSTALLED).split())
    tools = {re.split(r"[<>=\[ ]", each)[0].lower() for each in developers_packages()}
    require(not tools & names, f"{len(names)} packages, none of the {len(tools)} development tools")
    writable = set(box.run("python3", "-c", WRITABLE, flags=("--tmpfs=/tmp",)).split())
    require(writable == {"/tmp"}, f"writable: {' '.join(sorted(writable))}")


INSTALLED = """
from importlib import metadata
print(*{each.metadata["Name"].lower() for each in metadata.distributions()})
"""
WRITABLE = """
import os, tempfile
for folder in ("/", "/app", "/app/ieg_core", "/etc", "/home", "/root", "/tmp", "/usr/local/bin"):
    try:
        with tempfile.TemporaryFile(dir=folder):
            print(folder)
    except OSError:
        pass
"""


def developers_packages() -> list[str]:
    """Returns the packages of the group "dev" in pyproject.toml."""
    text = (image.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(text)["dependency-groups"]["dev"])


def compiled_package() -> tuple[Any, Any]:
    """Compiles the package for clusters without GPUs, as `make compile` does.

    It uses the default cluster file: yours may name a bucket, which no container here can access.
    """
    (profile,) = (each for each in packages.all_profiles(ClusterFile()) if each.name == "cpu")
    spec, platforms = packages.package(profile)
    return spec, platforms["platforms"]["kubernetes"]


def newest_checkpoint(trial: Path) -> Path | None:
    """Returns the checkpoint of a trial's newest attempt."""
    return max((trial / layout.CHECKPOINTS).glob("[!.]*"), default=None)


def read_checkpoint(trial: Path) -> tuple[int, dict[str, str]]:
    """Reads the newest checkpoint of a trial: its step, and a digest of each tensor."""
    path = newest_checkpoint(trial)
    if path is None:
        raise FailedError(f"{trial} has no checkpoint: expected one after its training")
    digests = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            front = f"{tensor.dtype}{tensor.shape}".encode()
            digests[name] = hashlib.sha256(front + tensor.tobytes()).hexdigest()
        return int(json.loads(file.metadata()["ieg"])["step"]), digests


def wait_for(what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Waits for a condition while a process runs."""
    limit = CLOCK.monotonic() + WAIT_SECONDS
    while not ready():
        if process.poll() is not None:
            raise FailedError(f"the container ended with {process.returncode} before {what}")
        if CLOCK.monotonic() > limit:
            process.kill()
            raise FailedError(f"waited {WAIT_SECONDS} s for {what}")
        CLOCK.sleep(0.02)


@contextlib.contextmanager
def stopped_at_the_end(runner: str, name: str) -> Iterator[None]:
    """Removes a container, however the test ends."""
    try:
        yield
    finally:
        subprocess.run([runner, "rm", "--force", name], capture_output=True, check=False)


class TrainingReachedError(Exception):
    """Raised when the run reaches a training."""


def first_training(spec: Any, platform: Any, wanted: Any, pods: Pods) -> kfp_pods.Task:
    """Runs a pipeline up to its first training; returns that task.

    Args:
      spec: The compiled pipeline.
      platform: Its settings for Kubernetes.
      wanted: Arguments of the pipeline, by name.
      pods: Runs the tasks before the training.
    """
    reached: list[kfp_pods.Task] = []

    def pod(task: kfp_pods.Task) -> Mapping[str, Any]:
        if task.component == "train":
            reached.append(task)
            raise TrainingReachedError
        return pods(task)

    with contextlib.suppress(TrainingReachedError):
        kfp_pods.run(spec, platform, wanted, pod)
    if reached:
        return reached[0]
    raise FailedError("the pipeline trains nothing")


def kill_in_training(pods: Pods, task: kfp_pods.Task) -> int:
    """Starts a training and kills its container halfway; returns the checkpoint's step."""
    name = f"ieg-killed-{uuid.uuid4().hex[:8]}"
    scratch, command = pods.command(task, name)
    trial = pods.trial()
    with (
        stopped_at_the_end(pods.box.runner, name),
        (scratch / layout.LOG).open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):

        def halfway() -> bool:
            path = newest_checkpoint(trial)
            progress = ProgressRecord.read(trial)
            return path is not None and progress is not None and progress.step > STEPS // 2

        wait_for("it was halfway and had a checkpoint", halfway, process)
        kill = [pods.box.runner, "kill", "--signal=TERM", name]
        subprocess.run(kill, capture_output=True, check=True)
        code = process.wait()
    require(code == EXIT_TERMINATED, f"killed in mid-training: exit code {code}")
    require(not ResultRecord.exists(trial), "it left no result")
    step, _ = read_checkpoint(trial)
    require(0 < step < STEPS, f"it left a whole checkpoint of step {step} of {STEPS}")
    return step


def compare(first: Path, second: Path) -> None:
    """Requires two trained trials' checkpoints to be equal, tensor by tensor."""
    (step, digests), (other_step, others) = read_checkpoint(first), read_checkpoint(second)
    different = {name for name, _ in digests.items() ^ others.items()}
    both = hashlib.sha256(json.dumps([step, digests], sort_keys=True).encode()).hexdigest()
    require(
        step == other_step == STEPS and not different,
        f"{len(digests)} tensors at step {STEPS}, {len(different)} differ from the undisturbed "
        f"run's; digest {both[:16]}",
    )


@program("image-test")
def main() -> None:
    """Builds and tests the image."""
    options = image.parser(__doc__)
    options.add_argument("--run-flags", default="", help="additional flags for each container")
    arguments = options.parse_args()
    arguments.dirty = "1"
    runner = image.find_runner(image.find_engine(arguments.engine))
    started = CLOCK.monotonic()
    built = image.build(arguments)
    print(f"  built in {CLOCK.monotonic() - started:.0f} s")
    runner_flags = shlex.split(arguments.run_flags)
    box = Box(runner, built.name, tuple(runner_flags))
    print("The image", flush=True)
    inspect(box, built)

    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir(parents=True)
    spec, platform = compiled_package()
    wanted = {"dataset": DATASET, "methods": [METHOD], "steps": STEPS}
    print("A sweep of one trial, as KFP runs it", flush=True)
    whole = Pods(box, OUT / "undisturbed")
    kfp_pods.run(spec, platform, wanted, whole)
    require(whole.peak < MEMORY_LIMIT, f"memory {whole.peak / 1e9:.2f} GB of 4 GB at most")
    trial = whole.trial()
    result = layout.read_result(layout.root_of(trial), trial.name)
    print(f"  {trial.name}: accuracy {result.accuracy_ema_last:.1%}")
    record = layout.read_planned(layout.root_of(trial), trial.name)
    require(record.git_revision == built.revision, "its record names the image's revision")
    (page,) = whole.folder.glob(f"claims/*/{layout.relative_report('*')}/{layout.REPORT_PAGE}")
    require(page.stat().st_size > 10_000, f"report of {page.stat().st_size / 1e3:.0f} kB")

    print("The training again, its pod killed", flush=True)
    broken = Pods(box, OUT / "disturbed")
    task = first_training(spec, platform, wanted, broken)
    require(broken.trial().name == whole.trial().name, "the same trial")
    kill_in_training(broken, task)
    broken(task)
    require(ResultRecord.exists(broken.trial()), "a second container resumed it to its result")
    compare(whole.trial(), broken.trial())


if __name__ == "__main__":
    sys.exit(main())
