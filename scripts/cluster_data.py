# SPDX-License-Identifier: Apache-2.0
"""Fills the cluster's data volume, with kubectl and the jobs that `make manifests` rendered.

Without FROM, a job in the cluster downloads CIFAR-10 and CIFAR-100 and verifies them. With
FROM=folder, the data sets in that folder are copied into a waiting pod as a tar stream.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ieg_core.errors import FailedError, UserError
from ieg_core.host.clock import CLOCK
from ieg_core.host.files import expand
from ieg_core.host.program import Parser, program
from pipelines import cluster_files

ROOT = Path(__file__).parents[1]
RENDERED = ROOT / "build" / "k8s"
KNOWN = (
    *("cifar-10-batches-bin", "cifar-100-binary", "fashion-mnist"),
    *("cifar10", "cifar100", "fashion_mnist"),
)
"""Folders of data sets: those of the official files, and of TensorFlow Datasets."""
DOWNLOAD_SECONDS, START_SECONDS, POLL_SECONDS = 3600.0, 600.0, 2.0


def kubectl(context: str, namespace: str) -> list[str]:
    """Returns the start of a kubectl command.

    Raises:
      UserError: When kubectl is not installed.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise UserError("found no kubectl: install it, or apply the jobs in build/k8s by hand")
    chosen = [f"--context={context}"] if context else []
    return [program, *chosen, f"--namespace={namespace}"]


def _run(what: str, command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise FailedError(f"could not {what}, see above")


def start(call: list[str], path: Path) -> None:
    """Starts a job, after removing an old one: a job's pod template cannot be changed."""
    if not path.exists():
        raise UserError(f"{path} is missing: run `make manifests`")
    _run("remove the old job", [*call, "delete", "--ignore-not-found", "--wait", "-f", str(path)])
    _run(f"start the job {path.stem}", [*call, "apply", "-f", str(path)])


def wait_for(call: list[str], job: str, seconds: float, *, pod: bool = False) -> str:
    """Waits until a job has ended, or until its pod is ready.

    `kubectl wait` waits for a single condition: if the job fails instead, it waits until its
    timeout; and it fails immediately if the job has not created its pod yet.

    Args:
      call: The start of a kubectl command.
      job: "job/<name>".
      seconds: The timeout.
      pod: Whether to wait for its pod.

    Returns:
      "Complete", "Failed", "ready", or "" after the timeout.
    """
    print(f"waiting for {job}; why it may not start: kubectl describe pod "
          f"--selector=job-name={job.partition('/')[2]}", flush=True)  # fmt: skip
    limit = CLOCK.monotonic() + seconds
    while CLOCK.monotonic() < limit:
        answer = subprocess.run(
            [*call, "get", job, "--output=json"], stdout=subprocess.PIPE, text=True, check=False
        )
        if answer.returncode:
            raise FailedError(f"could not read {job}, see above")
        status: Mapping[str, Any] = json.loads(answer.stdout).get("status", {})
        for condition in status.get("conditions") or []:
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                return str(condition["type"])
        if pod and status.get("ready"):
            return "ready"
        CLOCK.sleep(POLL_SECONDS)
    return ""


def download(call: list[str], rendered: Path) -> None:
    """Lets the cluster download the data sets; prints the job's log."""
    start(call, rendered / "fill-data.yaml")
    job = "job/ieg-fill-data"
    ended = wait_for(call, job, DOWNLOAD_SECONDS)
    subprocess.run([*call, "logs", job, "--tail=20"], check=False)
    if ended != "Complete":
        raise FailedError(f"{job} did not finish: `kubectl describe {job}` says why")


def data_sets(folder: Path) -> list[str]:
    """Returns the data sets in a folder.

    Raises:
      UserError: When there are none.
    """
    names = [name for name in KNOWN if (folder / name).is_dir()]
    if not names:
        raise UserError(f"FROM={folder}: expected one of {', '.join(KNOWN)} in it")
    return names


def copy(call: list[str], rendered: Path, folder: Path) -> None:
    """Copies data sets from a folder of this machine into the data volume."""
    names = data_sets(folder)
    path = rendered / "receive-data.yaml"
    start(call, path)
    pod = "job/ieg-receive-data"
    try:
        if wait_for(call, pod, START_SECONDS, pod=True) != "ready":
            raise FailedError(
                f"no pod of {pod} became ready to receive files: `kubectl describe {pod}` says why"
            )
        unpack = [*call, "exec", "--stdin", pod, "--", "tar", "-C", "/data", "-xf", "-"]
        pack = ["tar", "-C", str(folder), "--dereference", "-cf", "-", *names]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
            unpacked = subprocess.run(unpack, stdin=packing.stdout, check=False)
        if packing.returncode or unpacked.returncode:
            raise FailedError("could not copy the files, see above")
        _run("list the files", [*call, "exec", pod, "--", "ls", "-l", "/data"])
    finally:
        subprocess.run([*call, "delete", "--ignore-not-found", "-f", str(path)], check=False)
    print(f"copied {', '.join(names)}")


@program("data")
def main() -> None:
    """Fills the volume."""
    options = Parser(description=__doc__, allow_abbrev=False)
    options.add_argument("--from", dest="folder", default="", help="folder of this machine")
    options.add_argument(
        "--cluster", default="", help="cluster file; else IEG_CLUSTER, else cluster.yaml"
    )
    options.add_argument("--rendered", type=Path, default=RENDERED, help="the rendered jobs")
    arguments = options.parse_args()
    cluster_file = cluster_files.load(arguments.cluster or None)
    if not cluster_file.data_claim:
        raise UserError(
            "data_claim is empty: there is no volume to fill; name one in the cluster file, or put "
            f"the data sets into {cluster_file.data_dir} by hand"
        )
    folder = expand(arguments.folder) if arguments.folder else None
    if folder:
        data_sets(folder)
    call = kubectl(cluster_file.kube_context, cluster_file.kubernetes_namespace)
    if folder:
        copy(call, arguments.rendered, folder)
    else:
        download(call, arguments.rendered)


if __name__ == "__main__":
    sys.exit(main())
