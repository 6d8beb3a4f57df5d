# SPDX-License-Identifier: Apache-2.0
"""Checks and measures the training steps on one GPU, over as many calls as it takes.

    python3 -m scripts.gpu_check --state gpu-check --seconds 540 --wheels wheels --data-dir data

Each stage leaves a JSON file in the state folder and is not repeated; a training continues from its
checkpoint there. No stage is started that is not expected to end within --seconds. After each call
performance.md, results.md and results.json sum up what there is. Exits with 2 without a GPU.

It runs from a checkout, without setting it up and without a network, on Python from 3.11 with JAX
for the GPU, and PyTorch for the stages torch-…. TensorFlow is not needed.
"""

import argparse
import dataclasses
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError
from ieg_core.experiment.methods import method_spec
from ieg_core.host import machine
from ieg_core.host.files import write_bytes_atomic, write_json_atomic
from ieg_core.host.program import Parser, program
from ieg_core.host.runtime import Runtime, set_environment
from scripts.gpu_check import side_by_side, tables
from scripts.gpu_check.sizes import GPU, REHEARSAL, Sizes
from scripts.gpu_check.stages import Outcome, Stage, read_outcome, run_stages
from scripts.gpu_check.wheels import NEEDED, make_importable

RATES = "rates"
PRECISIONS = ("float32", "bfloat16")
COLLAPSE_SECONDS = 120.0
MIN_TRAINING_SECONDS = 120.0
REHEARSAL_IMAGES = 200

Left = Callable[[], float]


def all_stages(sizes: Sizes, state: Path, data_dir: Path | None, *, is_rehearsal: bool) -> Any:
    """Lists the stages, the most valuable first.

    Args:
      sizes: The sizes.
      state: The folder of the outcomes.
      data_dir: CIFAR-10, see `trainings.open_packed`; None skips the trainings, or lets a rehearsal
        train on random images.
      is_rehearsal: Whether this is a rehearsal on a CPU.
    """
    small, large = sizes.networks
    best, *others = sizes.methods
    steps = functools.partial(_steps, sizes=sizes, state=state)
    torch = functools.partial(_torch, sizes=sizes)
    skip = "" if is_rehearsal or data_dir is not None else "no --data-dir, expected CIFAR-10"
    collapse, *rows = _trainings(sizes, state, data_dir, skip)
    side_by_side_seconds = sum(20 + sizes.companion_seconds for _ in sizes.companions)
    stages = [
        Stage(RATES, RATES, 20, lambda left: _rates(sizes, is_rehearsal=is_rehearsal)),
        steps(small, "float32", best),
        collapse,
        steps(small, "bfloat16", best),
        steps(large, "bfloat16", best),
        torch(small, "supervised"),
        Stage(
            "side-by-side",
            "side-by-side",
            side_by_side_seconds,
            functools.partial(side_by_side.measure, sizes),
        ),
        *(steps(small, precision, each) for each in others[:2] for precision in PRECISIONS),
        steps(large, "float32", best),
        *(torch(small, each) for each in sizes.torch_methods if each != "supervised"),
        *(steps(small, precision, each) for each in others[2:] for precision in PRECISIONS),
        *(steps(large, precision, each) for precision in PRECISIONS for each in others),
        *(torch(large, each) for each in sizes.torch_methods),
    ]
    for network in sizes.networks:
        for precision in PRECISIONS:
            stages += [steps(network, precision, each) for each in sizes.other_methods]
    stages += rows
    return [dataclasses.replace(stage, seconds=sizes.seconds * stage.seconds) for stage in stages]


def _rates(sizes: Sizes, *, is_rehearsal: bool) -> Outcome:
    from importlib import metadata

    from ieg_core import backend
    from scripts.gpu_check import steps

    names = [each for each in ("jax", "keras", "torch", "numpy") if importlib.util.find_spec(each)]
    return {
        "rehearsal": is_rehearsal,
        "device": backend.device_description(),
        "driver": machine.driver_version(),
        "versions": {name: metadata.version(name) for name in names},
        "rates": steps.matrix_rates(sizes.matrix_side),
    }


def _steps(network: str, precision: str, method: str, *, sizes: Sizes, state: Path) -> Stage:
    # Most of it is compilation, and IEG's step has four times the operations of a supervised one.
    costs = 15 + 15 * min(4.0, method_spec(method).relative_cost)
    return Stage(
        f"steps-{network}-{precision}-{method}",
        "steps",  # a small network's show how slow a large one's will be
        costs * (1.5 if network == sizes.networks[1] else 1.0),
        functools.partial(_check_steps, network, precision, method, sizes, state),
    )


def _check_steps(
    network: str, precision: str, method: str, sizes: Sizes, state: Path, left: Left
) -> Outcome:
    from scripts.gpu_check import steps

    outcome = read_outcome(state, RATES)
    if outcome is None or "rates" not in outcome:
        raise UserError(f"the stage {RATES!r} has no outcome: delete its file and run it again")
    return steps.check_steps(network, precision, method, sizes, outcome["rates"])


def _trainings(sizes: Sizes, state: Path, data_dir: Path | None, skip: str) -> Iterator[Stage]:
    """Yields the first part of a row, which shows the early collapse, and the papers' rows."""
    from scripts.gpu_check import trainings

    def stage(name: str, seconds: float, row: tuple[str, str], until: int = 0) -> Stage:
        folder = state / "-".join(("row", *row))
        run = functools.partial(_train, *row, until, sizes, folder, data_dir)
        return Stage(name, "trainings", seconds, run, stops_in_time=True, skip=skip)

    yield stage("collapse", COLLAPSE_SECONDS, trainings.COLLAPSE, sizes.collapse_steps)
    for row in trainings.ROWS:
        yield stage("-".join(("row", *row)), MIN_TRAINING_SECONDS, row)


def _train(
    dataset: str,
    method: str,
    until: int,
    sizes: Sizes,
    folder: Path,
    data_dir: Path | None,
    left: Left,
) -> Outcome:
    from scripts.gpu_check import trainings

    network = sizes.trained_network
    config = trainings.papers_config(dataset, method, network, sizes.row_steps, sizes.batch_size)
    source = (
        trainings.random_source(REHEARSAL_IMAGES)
        if data_dir is None
        else trainings.open_packed(data_dir)
    )
    names = {"dataset": dataset, "method": method, "network": network}
    return names | trainings.continue_training(
        config, source, folder, left, sizes.call_steps, until
    )


def _torch(network: str, method: str, *, sizes: Sizes) -> Stage:
    is_there = importlib.util.find_spec("torch") is not None
    return Stage(
        f"torch-{network}-{method}",
        "torch",
        90 if method == "supervised" else 60,
        functools.partial(_check_torch, network, method, sizes),
        skip="" if is_there else "PyTorch is not installed",
    )


def _check_torch(network: str, method: str, sizes: Sizes, left: Left) -> Outcome:
    from ieg_core import backend
    from scripts.gpu_check import plain_torch

    device = "cuda" if backend.accelerators() else "cpu"
    return plain_torch.check_torch(network, method, sizes, device)


def write_summary(state: Path, names: list[str]) -> None:
    """Writes performance.md, results.md and results.json from the outcomes of these stages."""
    outcomes: Mapping[str, Outcome] = {
        name: outcome for name in names if (outcome := read_outcome(state, name)) is not None
    }
    write_json_atomic(state / "results.json", outcomes)
    for name, lay_out in (("performance", tables.performance), ("results", tables.results)):
        write_bytes_atomic(state / f"{name}.md", lay_out(outcomes).encode())


@program("gpu-check")
def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser(
        prog="python -m scripts.gpu_check",
        description=__doc__,
        epilog="Packages that must be there or in --wheels, one wheel each, for this Python:\n"
        + ", ".join(NEEDED.values()),
        allow_abbrev=False,
    )
    parser.add_argument("--state", type=Path, default=Path("gpu-check"), help="state folder")
    parser.add_argument("--seconds", type=float, default=540, help="time budget of this call")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install in the state")
    parser.add_argument(
        "--data-dir", type=Path, help="CIFAR-10: the folder of data sets, or a file of --pack"
    )
    parser.add_argument("--cpu", action="store_true", help="rehearse with tiny sizes on the CPU")
    parser.add_argument("--pack", type=Path, help="write CIFAR-10 of --data-dir as a file, and end")
    parser.add_argument("--images", type=int, default=0, help="training images of --pack; 0: all")
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    if options.pack is not None:
        from scripts.gpu_check import trainings

        trainings.pack(options.data_dir or Path("data"), options.pack, options.images)
        return 0
    state, is_rehearsal = options.state, options.cpu
    known = read_outcome(state, RATES)
    if known is not None and known.get("rehearsal", is_rehearsal) != is_rehearsal:
        kinds = (
            ("a rehearsal", "measurements")
            if known["rehearsal"]
            else ("measurements", "a rehearsal")
        )
        raise UserError(f"{state} holds {kinds[0]}, expected {kinds[1]}: choose another --state")
    make_importable(options.wheels, state)
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if is_rehearsal:
        os.environ["JAX_PLATFORMS"] = "cpu"
        # Compilation would take most of a rehearsal.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0"
    elif platforms := os.environ.get("JAX_PLATFORMS"):
        os.environ["JAX_PLATFORMS"] = f"{platforms},cpu"  # its steps are the reference
    set_environment(Runtime(threads=machine.usable_cores()))
    from ieg_core import backend

    backend.start(Runtime())
    if not is_rehearsal and not backend.accelerators():
        raise UserError("JAX sees no GPU here: run on a machine with one, or rehearse with --cpu")
    sizes = REHEARSAL if is_rehearsal else GPU
    stages = all_stages(sizes, state, options.data_dir, is_rehearsal=is_rehearsal)
    left = run_stages(stages, state, options.seconds)
    write_summary(state, [stage.name for stage in stages])
    names = [f"{name} ({seconds:.0f} s)" for name, seconds in left.items()]
    print(f"{state}/performance.md, results.md; left: {', '.join(names) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
