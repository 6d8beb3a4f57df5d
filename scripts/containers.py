# SPDX-License-Identifier: Apache-2.0
"""Runs containers of one image with a cluster's restrictions, and the pods of a run."""

import json
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ieg_core.errors import FailedError
from ieg_core.store.layout import LOG, relative_trial
from ieg_core.store.records import TrialRecord
from pipelines.checks.arguments import OUTPUT_FILE
from scripts import kfp_pods

SECURITY = (
    "--read-only", "--network=none", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--memory=4g", "--pull=never",
)  # fmt: skip
USER = "1000:1000"
CHECKPOINT_SECONDS = "2"
PEAK = "/tmp/peak"

FIRST_PROCESS = """
import os, resource, signal, subprocess, sys, time
child = subprocess.Popen(sys.argv[2:], process_group=0)
def stop(number, frame):
    os.killpg(child.pid, signal.SIGTERM)
    time.sleep(0.001)
    os._exit(128 + number)
signal.signal(signal.SIGTERM, stop)
code = child.wait()
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
"""Process 1, like Argo's: it sends SIGTERM to its child's process group. KFP's launcher ends
immediately, so process 1 ends too, and the kernel kills all other processes of the container.

Source: argoproj/argo-workflows 4.0.5, cmd/argoexec/commands/emissary.go.
"""


@dataclass(frozen=True)
class Box:
    """How to run containers of one image.

    Attributes:
      runner: docker or podman.
      image: The image's name.
      flags: Additional flags for the runner.
    """

    runner: str
    image: str
    flags: tuple[str, ...] = ()

    def command(self, *words: str, user: str = USER, flags: tuple[str, ...] = ()) -> list[str]:
        """Returns the command that runs `words` in a container."""
        return [
            self.runner, "run", "--rm", *SECURITY, f"--user={user}", *self.flags, *flags,
            self.image, *words,
        ]  # fmt: skip

    def run(self, *words: str, user: str = USER, flags: tuple[str, ...] = ()) -> str:
        """Runs `words` in a container and returns what it printed.

        Raises:
          FailedError: When it fails.
        """
        command = self.command(*words, user=user, flags=flags)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FailedError(
                f"`{shlex.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout.strip()


def open_folder(path: Path) -> Path:
    """Creates a folder that the container's user can write to, whatever its id outside."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    return path


class Pods:
    """Runs each task of one run in a separate container, on the run's volumes."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.folder = folder
        self.store = open_folder(folder / kfp_pods.STORE)
        self.peak = 0

    def volumes(self, task: kfp_pods.Task, scratch: Path) -> dict[str, Path]:
        """Returns the folder that serves as each volume, by mount path."""
        claims = {
            each["mountPath"]: open_folder(self.folder / "claims" / each["constant"])
            for each in task.settings["pvcMount"]
        }
        (tmp,) = (each["mountPath"] for each in task.settings["emptyDirMounts"])
        return claims | {tmp: scratch, f"/{kfp_pods.STORE}": self.store}

    def command(self, task: kfp_pods.Task, name: str) -> tuple[Path, list[str]]:
        """Returns the pod's /tmp and the command that runs the task in a container."""
        scratch = open_folder(self.folder / "pods" / name)
        volumes = self.volumes(task, scratch)
        for each in task.folders:
            mount = max((m for m in volumes if Path(each).is_relative_to(m)), key=len)
            deep = Path(each).relative_to(mount)
            for folder in (*reversed(deep.parents), deep):
                open_folder(volumes[mount] / folder)
        security = task.settings["securityContext"]
        env = dict(task.env) | {"IEG_CHECKPOINT_SECONDS": CHECKPOINT_SECONDS}
        flags = (
            f"--name={name}", f"--hostname={name}",
            *(f"--volume={folder}:{mount}:z" for mount, folder in volumes.items()),
            *(f"--env={key}={value}" for key, value in env.items()),
        )  # fmt: skip
        words = ("python3", "-c", FIRST_PROCESS, PEAK, *task.command)
        user = f"{security['runAsUser']}:{security['runAsGroup']}"
        return scratch, self.box.command(*words, user=user, flags=flags)

    def __call__(self, task: kfp_pods.Task) -> Mapping[str, Any]:
        """Runs a task until it ends; returns its executor output."""
        name = f"ieg-{task.component}-{uuid.uuid4().hex[:8]}"
        scratch, command = self.command(task, name)
        started = time.monotonic()
        with (scratch / LOG).open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        seconds = time.monotonic() - started
        if code:
            tail = (scratch / LOG).read_text(encoding="utf-8").strip()[-1500:]
            print(tail, file=sys.stderr)
            raise FailedError(f"{task.name} ended with exit code {code}, see above")
        peak = int((scratch / Path(PEAK).name).read_text(encoding="utf-8")) * 1024
        self.peak = max(self.peak, peak)
        print(f"  {task.name}: {seconds:.0f} s, {peak / 1e9:.2f} GB", flush=True)
        output = scratch / OUTPUT_FILE.removeprefix("/tmp/")
        written: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return written

    def trial(self) -> Path:
        """Returns the folder of the run's only trial."""
        (config,) = self.folder.glob(f"claims/*/**/{relative_trial('*')}/{TrialRecord.NAME}")
        return config.parent
