# SPDX-License-Identifier: Apache-2.0
"""What a place must be able to do before a sweep is worth starting there, each proved by doing it.

Each check looks at one thing and ends in one line. It leaves nothing behind but that line, in
the results root for those who asked and can read it.
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
from ieg_core.host import files
from ieg_core.recipes import build
from ieg_core.store import fingerprint, gcs, leases
from ieg_core.store.records import Finding

ARTIFACT = "artifact"
"""The check that takes two tasks, so that no function of `CHECKS` can make it."""
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
"""What `Source.digest` must be; a base that is not here can be opened and read only."""


@dataclass(frozen=True)
class Place:
    """Where the checks look.

    Attributes:
      base: Base data set to open.
      data_dir: Where base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      require_gpu: Whether a GPU must be there.
    """

    base: str
    data_dir: str
    results: str
    require_gpu: bool


def examine(check: str, place: Place) -> Finding:
    """Runs one of `CHECKS`; whatever goes wrong in it is its finding."""
    try:
        return Finding(check, True, CHECKS[check](place))
    except UserError as error:
        return Finding(check, False, str(error))
    except Exception as error:
        return Finding(check, False, f"{type(error).__name__}: {' '.join(str(error).split())}")


def checks_for(results_root: str, require_gpu: bool) -> list[str]:
    """Returns the checks that make sense for a results root and a profile."""
    store = ["store"] if gcs.is_url(results_root) else []
    return ["image", *(["gpu"] if require_gpu else []), "data", "checkpoint", *store]


def write_down(results_root: str, run: str, finding: Finding) -> None:
    """Leaves a finding in the results root, as well as that can be done."""
    with contextlib.suppress(UserError, OSError):
        finding.write(results_root, run, finding.check)


def check_image(place: Place) -> str:
    """Says what runs here: that it runs at all proves that the image could be pulled."""
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    probe = scratch / f".ieg-doctor-{secrets.token_hex(4)}"
    with files.writable(scratch):
        probe.write_bytes(b"x")
        probe.unlink()
    is_rooted = os.getuid() == 0 and "KUBERNETES_SERVICE_HOST" in os.environ
    user = f"user {os.getuid()}" + (", which is root: set runAsNonRoot" if is_rooted else "")
    libraries = fingerprint.library_versions()
    keras = f"TensorFlow {libraries.get('tensorflow', 'absent')}, Keras {libraries.get('keras')}"
    return (
        f"ieg {__version__}, code {fingerprint.code_version()}, Python "
        f"{platform.python_version()}, "
        f"{keras}, {user}, {os.cpu_count()} cores"
    )


def check_gpu(place: Place) -> str:
    """Multiplies matrices on the GPU in a process of its own, by the framework that trains."""
    command = [sys.executable, "-m", "ieg_core.tasks.examine"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "IEG_REQUIRE_GPU": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=GPU_SECONDS, env=environment
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = " ".join((done.stderr.strip().splitlines() or ["no output"])[-1].split())
        raise UserError(f"the framework does not start: {words[:500]}")
    found = json.loads(lines[-1])
    if place.require_gpu and not found["gpus"]:
        raise UserError(
            f"{found['backend']} sees no GPU in this pod, on {found['device']}: check that the "
            "node has the driver, that the pod asks for the accelerator, and that the image is the "
            "one with CUDA (target gpu)"
        )
    what = f"{found['gpus']} GPU, {found['device']}" if found["gpus"] else "no GPU, as expected"
    driver = f", driver {found['driver']}" if found["driver"] else ""
    return f"{found['backend']} sees {what}{driver}; a product of matrices is right"


def check_data(place: Place) -> str:
    """Opens the base data set as a sweep would, and compares its digest with the known one."""
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
    word = "as known" if known else "of which none is known"
    seconds = time.monotonic() - began
    return f"{place.base}, {size}, digest {source.digest[:12]} {word}, {seconds:.1f} s"


def check_checkpoint(place: Place) -> str:
    """Writes, syncs, renames, locks and reads back a file where checkpoints go, then removes it."""
    remote = gcs.is_url(place.results)
    root = Path(os.environ.get("TMPDIR", "/tmp") if remote else place.results)
    folder = root / "doctor" / f".probe-{secrets.token_hex(4)}"
    weights = np.arange(CHECKPOINT_BYTES // 4, dtype=np.float32)
    try:
        began = time.monotonic()
        files.write_bytes_atomic(folder / "weights", b"older")
        files.write_bytes_atomic(folder / "weights", save({"weights": weights}))
        seconds = max(time.monotonic() - began, 1e-9)
        if not np.array_equal(load_file(folder / "weights")["weights"], weights):
            raise UserError(f"{folder} gives back other bytes than were written")
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
    """Refuses a file system on which two processes could hold a trial's lock."""
    code = (
        "import sys, pathlib; from ieg_core.store import leases\n"
        "try:\n with leases.trial_lock(pathlib.Path(sys.argv[1])): print('taken')\n"
        "except leases.TrialBusyError: print('busy')"
    )
    with leases.trial_lock(folder):
        answer = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
        )
    if answer.stdout.strip() != "busy":
        raise UserError(
            f"{folder.parent} does not lock files: two pods could train the same trial; expected "
            "a volume with flock, such as NFS 4 or a local disk"
        )


def check_store(place: Place) -> str:
    """Writes, reads back, refuses to overwrite and deletes an object in the bucket."""
    name = f"doctor/.probe-{secrets.token_hex(4)}"
    url = gcs.join(place.results, name)
    data = secrets.token_bytes(2**20)
    began = time.monotonic()
    try:
        gcs.write(url, data, 0)
        there = gcs.read(url)
        if there is None or there[0] != data:
            raise UserError(f"{place.results} gives back other bytes than were written")
        with contextlib.suppress(gcs.StaleWriterError):
            gcs.write(url, b"a second writer", 0)
            raise UserError(f"{place.results} lets a second writer overwrite: it keeps no rules")
    finally:
        gcs.delete(place.results, [name])
    seconds = time.monotonic() - began
    return (
        f"1 MiB written to {place.results}, read back, kept from a second writer, {seconds:.1f} s"
    )


def check_artifact(path: Path, uri: str, expected: str) -> Finding:
    """Says whether an artifact that one task left in KFP's object store reached another whole.

    Args:
      path: Where KFP put it for this task.
      uri: Where it lies in the object store.
      expected: What the other task wrote.
    """
    try:
        found = path.read_text()
    except OSError as error:
        return Finding(ARTIFACT, False, f"{uri} did not come back: {error.strerror}")
    if found != expected:
        return Finding(ARTIFACT, False, f"{uri} came back as {found[:80]!r}, not {expected!r}")
    return Finding(ARTIFACT, True, f"went from one task to {uri} and came back in another")


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
    """Runs in the child of `check_gpu`: prints what the framework sees, and that it can compute."""
    from ieg_core.host.runtime import Runtime, chosen_backend, set_environment

    set_environment(Runtime())
    from keras import ops

    from ieg_core import backend

    left = np.arange(64 * 32, dtype=np.float32).reshape(64, 32) % 7
    product = np.asarray(ops.matmul(left, left.T))
    if not np.array_equal(product, left @ left.T):
        raise SystemExit("a product of matrices is wrong on this device")
    found = {
        "backend": chosen_backend(),
        "gpus": backend.accelerators(),
        "device": backend.device_description(),
        "driver": _driver(),
    }
    print(json.dumps(found))


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return answer.stdout.split("\n")[0].strip()
    return ""


if __name__ == "__main__":
    main()
