# SPDX-License-Identifier: Apache-2.0
"""Checks that a cluster or machine can run a sweep, by trying each thing that a sweep does.

Each check tests one thing and returns one line. It cleans up after itself and leaves only that
line, in the results root.
"""

import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from safetensors.numpy import load_file, save

from ieg_core import __version__
from ieg_core.data.open import open_source
from ieg_core.data.public.cifar import LAYOUTS
from ieg_core.data.public.fashion_mnist import LAYOUT as FASHION_MNIST
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec
from ieg_core.host import files, machine
from ieg_core.recipes import build
from ieg_core.store import fingerprint, gcs, leases
from ieg_core.store.records import Finding

ARTIFACT = "artifact"
"""The check that takes two tasks, and so is not in `CHECKS`."""
POD_USER = "IEG_POD_USER"
"""The user and group that a pod was asked to run as, "1000:1000"; unset for the platform's."""
CHECKPOINT_BYTES = 32 * 2**20
GPU_SECONDS = 300
DIGITS = "78e65efe8e1df24e2cde579c82788b8744bc1b8e2029d00a053d163a5309cbe1"
KNOWN_DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        "digits": DIGITS,
        "fashion_mnist": FASHION_MNIST.digest or "",
        **{name: layout.digest or "" for name, layout in LAYOUTS.items()},
    }
)
"""The expected `Source.digest` of base data sets; for others, the digest is not checked."""


@dataclass(frozen=True)
class Place:
    """What the checks examine.

    Attributes:
      base: The base data set to open.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      require_gpu: Whether a GPU is required.
    """

    base: str
    data_dir: str
    results: str
    require_gpu: bool


def examine(check: str, place: Place) -> Finding:
    """Runs one of `CHECKS`; an exception becomes its finding."""
    try:
        return Finding(check, True, CHECKS[check](place))
    except UserError as error:
        return Finding(check, False, str(error))
    except Exception as error:
        return Finding(check, False, f"{type(error).__name__}: {' '.join(str(error).split())}")


def checks_for(results_root: str, require_gpu: bool) -> list[str]:
    """Returns the names of the checks that apply to a results root and a profile."""
    store = ["store"] if gcs.is_url(results_root) else []
    return ["image", *(["gpu"] if require_gpu else []), "data", "checkpoint", *store]


def write_down(results_root: str, run: str, finding: Finding) -> None:
    """Writes a finding to the results root, if it is writable."""
    with contextlib.suppress(UserError, OSError):
        finding.write(results_root, run, finding.check)


def check_image(place: Place) -> str:
    """Describes the image; that this runs at all proves that it could be pulled."""
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    probe = scratch / f".ieg-doctor-{secrets.token_hex(4)}"
    with files.writable(scratch):
        probe.write_bytes(b"x")
        probe.unlink()
    actual = f"{os.getuid()}:{os.getgid()}"
    asked = os.environ.get(POD_USER, actual)
    if asked != actual:
        raise UserError(
            f"this pod runs as {actual}, but pod_user is {asked}: an administrator's default "
            "overrides it (KFP's or the platform's); set pod_user to that, or to nothing"
        )
    is_rooted = os.getuid() == 0 and "KUBERNETES_SERVICE_HOST" in os.environ
    user = f"user {actual}" + (", which is root: set runAsNonRoot" if is_rooted else "")
    libraries = fingerprint.library_versions()
    keras = f"TensorFlow {libraries.get('tensorflow', 'absent')}, Keras {libraries.get('keras')}"
    return (
        f"ieg {__version__}, code {fingerprint.code_version()}, Python "
        f"{platform.python_version()}, {keras}, {user}, {os.cpu_count()} cores"
    )


def check_gpu(place: Place) -> str:
    """Multiplies matrices on the GPU with the training framework, in a separate process."""
    command = [sys.executable, "-m", "ieg_core.tasks.examine"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "IEG_REQUIRE_GPU": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=GPU_SECONDS, env=environment
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last_line = " ".join((done.stderr.strip().splitlines() or ["no output"])[-1].split())
        raise UserError(
            f"the framework does not start: {last_line[:500]}; use the image that make image built"
        )
    device = json.loads(lines[-1])
    if place.require_gpu and not device["gpus"]:
        raise UserError(
            f"{device['backend']} sees no GPU in this pod, on {device['device']}: check that the "
            "node has the driver, that the pod requests the accelerator, and that the image is the "
            "one with CUDA (target gpu)"
        )
    gpus = f"{device['gpus']} GPU, {device['device']}" if device["gpus"] else "no GPU, as expected"
    driver = f", driver {device['driver']}" if device["driver"] else ""
    return f"{device['backend']} sees {gpus}{driver}; a matrix product is correct"


def check_data(place: Place) -> str:
    """Opens the base data set as a sweep would, and compares its digest with the expected one."""
    began = time.monotonic()
    images = build.build_config(dataset_spec.parse(place.base), "supervised").images
    source = open_source(place.base, Path(place.data_dir), images)
    known = KNOWN_DIGESTS.get(place.base, "")
    if known and source.digest != known:
        raise UserError(
            f"{place.base} from {source.origin} has the digest {source.digest[:12]}, expected "
            f"{known[:12]}: another version or altered files; fetch it again (make data)"
        )
    size = f"{len(source.train_labels)} training and {len(source.test_labels)} test images"
    status = "as expected" if known else "not checked"
    seconds = time.monotonic() - began
    return f"{place.base}, {size}, digest {source.digest[:12]} ({status}), {seconds:.1f} s"


def check_checkpoint(place: Place) -> str:
    """Writes, syncs, renames, reads and locks a file in the checkpoints' file system."""
    remote = gcs.is_url(place.results)
    root = Path(os.environ.get("TMPDIR", "/tmp") if remote else place.results)
    folder = root / Finding.FOLDER / f".probe-{secrets.token_hex(4)}"
    weights = np.arange(CHECKPOINT_BYTES // 4, dtype=np.float32)
    try:
        began = time.monotonic()
        files.write_bytes_atomic(folder / "weights", b"older")
        files.write_bytes_atomic(folder / "weights", save({"weights": weights}))
        seconds = max(time.monotonic() - began, 1e-9)
        if not np.array_equal(load_file(folder / "weights")["weights"], weights):
            raise UserError(f"{folder} returned other bytes than were written: use another volume")
        _check_lock(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    rate = CHECKPOINT_BYTES / 2**20 / seconds
    free = shutil.disk_usage(root).free / 2**30
    where = f"scratch {root} (checkpoints then go to {place.results})" if remote else str(root)
    return f"written, renamed and read back in {where}, {rate:.0f} MiB/s, {free:.0f} GiB free"


def _check_lock(folder: Path) -> None:
    """Refuses a file system on which two processes can hold the lock of one trial.

    One without any locks is fine: there the trial's heartbeat decides.
    """
    code = (
        "import sys, pathlib; from ieg_core.store import leases\n"
        "try:\n with leases.trial_lock(pathlib.Path(sys.argv[1])): print('taken')\n"
        "except leases.TrialBusyError: print('busy')"
    )
    with leases.trial_lock(folder) as is_locked:
        if not is_locked:
            return
        answer = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
        )
    if answer.stdout.strip() != "busy":
        raise UserError(
            f"{folder.parent} grants a file lock twice, so two pods could train the same trial: "
            "use a volume with working locks, such as NFS 4 or a local disk"
        )


def check_store(place: Place) -> str:
    """Writes an object to the bucket, reads it, fails to overwrite it, and deletes it."""
    name = f"{Finding.FOLDER}/.probe-{secrets.token_hex(4)}"
    url = gcs.join(place.results, name)
    data = secrets.token_bytes(2**20)
    began = time.monotonic()
    try:
        gcs.write(url, data, 0)
        stored = gcs.read(url)
        if stored is None or stored[0] != data:
            raise UserError(
                f"{place.results} returned other bytes than were written: use another bucket"
            )
        with contextlib.suppress(gcs.StaleWriterError):
            gcs.write(url, b"a second writer", 0)
            raise UserError(
                f"{place.results} lets a second writer overwrite an object: expected a bucket "
                "that supports generation preconditions"
            )
    finally:
        gcs.delete(place.results, [name])
    seconds = time.monotonic() - began
    return (
        f"1 MiB written to {place.results}, read back, protected from a second writer, "
        f"{seconds:.1f} s"
    )


def check_artifact(path: Path, uri: str, expected: str) -> Finding:
    """Checks that an artifact of one task reached another through KFP's object store.

    Args:
      path: The file that KFP made of it for this task.
      uri: Its address in the object store.
      expected: The content that the other task wrote.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        return Finding(ARTIFACT, False, f"{uri} did not come back: {error.strerror}")
    if content != expected:
        return Finding(
            ARTIFACT, False, f"{uri} came back as {content[:80]!r}, expected {expected!r}"
        )
    return Finding(ARTIFACT, True, f"written to {uri} by one task and read by another")


CHECKS: Mapping[str, Callable[[Place], str]] = MappingProxyType(
    {
        "image": check_image,
        "gpu": check_gpu,
        "data": check_data,
        "checkpoint": check_checkpoint,
        "store": check_store,
    }
)


def main() -> None:
    """Runs in the child of `check_gpu`: computes, and prints what the framework sees."""
    from ieg_core.host.runtime import Runtime, chosen_backend, set_environment

    set_environment(Runtime())
    from keras import ops

    from ieg_core import backend

    left = np.arange(64 * 32, dtype=np.float32).reshape(64, 32) % 7
    product = np.asarray(ops.matmul(left, left.T))
    if not np.array_equal(product, left @ left.T):
        raise SystemExit("a matrix product is wrong on this device")
    device = {
        "backend": chosen_backend(),
        "gpus": backend.accelerators(),
        "device": backend.device_description(),
        "driver": machine.driver_version(),
    }
    print(json.dumps(device))


if __name__ == "__main__":
    main()
