# SPDX-License-Identifier: Apache-2.0
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.ieg_core.data.trees import write_tree

# Started in the background by a shell, the tests inherit a SIGINT that is ignored, and so would the
# programs that they interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]

# The same examples each time: a failure is there to stay, and no test depends on a clock.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


# With two workers, a long file that comes last leaves one of them idle.
SLOWEST = (
    "docs/test_tutorial.py",  # in `make test-docs`
    "docs/test_own_images.py",
    "integration/test_survival.py",
    "integration/test_steps.py",
    "pipelines/test_noise_sweep.py",
    "integration/test_runs.py",
    "integration/test_both_backends.py",
    "ieg_core/data/public/test_webvision.py",
    "ieg_core/test_auditing.py",
    "ieg_core/cli/test_predict.py",
    "pipelines/manifests/test_render.py",
    "ieg_core/models/test_zoo.py",
    "integration/test_makefile.py",
    "ieg_core/augment/test_strong.py",
    "pipelines/test_doctor.py",
    "integration/test_scheduled_run.py",
    "ieg_core/methods/test_fsr.py",
    "ieg_core/test_fitting.py",
    "ieg_core/training/test_head_trial.py",
    "pipelines/cluster/test_submit.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keeps the garbage collector off what the tests import, which is there to stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slowest files first; the workers take files in this order."""
    order = {ROOT / "tests" / name: place for place, name in enumerate(SLOWEST)}
    missing = [str(path) for path in order if not path.exists()]
    if missing:
        raise pytest.UsageError(f"SLOWEST in tests/conftest.py names {', '.join(missing)}")
    items.sort(key=lambda item: order.get(item.path, len(order)))


@dataclass
class StandIn:
    """A module in the place of TensorFlow, for programs started with `environment`.

    Attributes:
      environment: For the programs under test.
      imports: File with a line for each process that imported it so far: its id.
    """

    environment: dict[str, str]
    imports: Path

    def pids(self) -> list[int]:
        return [int(line) for line in self.imports.read_text().split()]

    def wait_until_imported(self, count: int) -> None:
        _wait(lambda: len(self.pids()) >= count, f"{count} processes that import TensorFlow")

    def wait_until_ended(self) -> None:
        _wait(lambda: not any(map(_is_running, self.pids())), "the end of every process")


def _wait(condition, what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def stand_in_tensorflow(tmp_path) -> Callable[[str], StandIn]:
    """Builds a stand-in that runs some code when it is imported."""

    def build(code: str) -> StandIn:
        package = tmp_path / "stand-in" / "tensorflow"
        package.mkdir(parents=True)
        imports = tmp_path / "imports"
        imports.touch()
        (package / "__init__.py").write_text(
            "import os, sys, time\n"
            f"with open({str(imports)!r}, 'a') as file:\n"
            "    file.write(f'{os.getpid()}\\n')\n"
            f"{code}\n"
        )
        environment = os.environ | {
            "PYTHONPATH": f"{package.parent}{os.pathsep}{ROOT}",
            "KERAS_BACKEND": "tensorflow",
            "TMPDIR": str(tmp_path),  # a killed program cannot tidy up
        }
        return StandIn(environment, imports)

    return build


@pytest.fixture
def slow_tensorflow(stand_in_tensorflow) -> Iterator[StandIn]:
    """Programs that import TensorFlow hang there, like a long training."""
    stand_in = stand_in_tensorflow("time.sleep(3600)")
    yield stand_in
    stand_in.wait_until_ended()


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """Images in data/, which is where all commands look by themselves; 42 files."""
    monkeypatch.chdir(tmp_path)
    return write_tree(tmp_path / "data", {"train": 12, "test": 2})
