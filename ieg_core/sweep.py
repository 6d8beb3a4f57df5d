# SPDX-License-Identifier: Apache-2.0
"""A sweep: which cells it has, and each step of its pipeline as a plain function.

Components, the command line and notebooks call these. Planning imports no deep-learning framework.
"""

import contextlib
import json
import os
import platform
import shlex
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ieg_core import network_names, ownership, recipes, results
from ieg_core.config import Config, ImagesConfig, from_dict, override, settable_keys, to_dict
from ieg_core.data import open_source, prepare_overlay
from ieg_core.data.folder import describe_notes
from ieg_core.data.given import GivenLabels, check_labels_file, open_given
from ieg_core.data.overlay import Overlay
from ieg_core.data.source import Source
from ieg_core.errors import DivergedError, UserError
from ieg_core.heartbeat import beating
from ieg_core.length import evaluation_steps, num_steps, steps_per_epoch
from ieg_core.runtime import Runtime, chosen_backend, set_environment
from ieg_core.settings import DEFAULT_METHODS, METHODS, FSRSettings, method_facts
from ieg_core.spec import DatasetSpec, combine

MAX_CELLS = 1000


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep was asked to do.

    Attributes:
      dataset: Data set, complete or to be completed by the noise ratios (ieg_core.spec.combine).
      noise_ratios: Empty for the data set's defaults.
      methods: Names of methods.
      seeds: Seeds, each varying corruption, probe, initial weights and batches.
      recipe: Recipe family; empty chooses by data set and device.
      network: Another network than the recipe's.
      steps: Another length than the recipe's; 0 keeps it.
      settings: Overrides such as "optimizer.learning_rate=0.05", for every cell.
      accelerator: Whether the cells will have GPUs; decides the default recipe.
      data_dir: Where base data sets lie.
      results: The results root.
      labels: The label file of `<base>_labels`; empty for other data sets.
    """

    dataset: str
    noise_ratios: tuple[float, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: tuple[int, ...] = (0,)
    recipe: str = ""
    network: str = ""
    steps: int = 0
    settings: tuple[str, ...] = ()
    accelerator: bool = False
    data_dir: str = "data"
    results: str = "runs"
    labels: str = ""

    def __post_init__(self) -> None:
        for name in ("methods", "seeds"):
            if not getattr(self, name):
                raise UserError(f"a sweep needs at least one of {name}")
        for method in self.methods:
            method_facts(method)
        if min(self.seeds) < 0:
            raise UserError(f"seeds must be at least 0, got {min(self.seeds)}")

    @property
    def command(self) -> str:
        """The `make sweep` command that asks for this again."""
        values = {
            "DATASET": self.dataset,
            "LABELS": self.labels,
            "NOISE": ",".join(f"{ratio:g}" for ratio in self.noise_ratios),
            "METHODS": ",".join(self.methods),
            "SEEDS": ",".join(map(str, self.seeds)),
            "RECIPE": self.recipe,
            "NETWORK": self.network,
            "STEPS": str(self.steps or ""),
            "SET": " ".join(self.settings),
            "DATA_DIR": "" if self.data_dir in ("data", "./data") else self.data_dir,
        }
        given = [f"{name}={shlex.quote(value)}" for name, value in values.items() if value]
        return " ".join(["make", "sweep", *given])


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep.

    Attributes:
      sweep: The sweep's name, the same for the same cells.
      cells: Names of the cells, the longest first.
      notes: What reading the data brought to light, a line each for people.
    """

    sweep: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()


def configs(request: SweepRequest) -> list[tuple[DatasetSpec, Config]]:
    """Lists what each cell would train, without touching data or disk.

    Raises:
      UserError: Any unknown name, malformed spec, bad ratio, bad override, or too many cells.
    """
    specs = combine(request.dataset, request.noise_ratios or None)
    check_labels_file(specs[0], request.labels)
    if len(specs) * len(request.methods) * len(request.seeds) > MAX_CELLS:
        raise UserError(
            f"{len(specs)} data sets × {len(request.methods)} methods × {len(request.seeds)} seeds "
            f"are more than {MAX_CELLS} cells: ask for fewer"
        )
    plain = [
        (
            spec,
            recipes.build_config(
                spec,
                method,
                seed=seed,
                recipe=request.recipe,
                network=request.network,
                num_steps=request.steps,
                accelerator=request.accelerator,
                image_size=_image_size(request.settings),
            ),
        )
        for spec in specs
        for method in dict.fromkeys(request.methods)
        for seed in dict.fromkeys(request.seeds)
    ]
    for setting in request.settings:
        if not any(_takes(config, setting) for _, config in plain):
            override(plain[0][1], [setting])  # raises, and says why
    return [
        (spec, override(config, [s for s in request.settings if _takes(config, s)]))
        for spec, config in plain
    ]


def _image_size(settings: Sequence[str]) -> int:
    """Returns the size of images that the settings ask for, which network and views go by; or 0."""
    text = next((s for s in settings if s.partition("=")[0].strip() == "images.size"), "=0")
    try:
        return max(0, int(text.partition("=")[2]))
    except ValueError:
        return 0  # `override` says what is wrong


def _takes(config: Config, setting: str) -> bool:
    """Returns whether a setting is for this cell's method: others' settings pass it by."""
    key = setting.partition("=")[0].strip()
    if key == "probe_per_class":
        return method_facts(config.method).uses_probe
    return key in settable_keys(config)


def plan(request: SweepRequest) -> Plan:
    """Validates a request, prepares its data and writes down its cells.

    1. Every cell's configuration, from names alone.
    2. Each distinct overlay, once.
    3. A folder with config.json for each cell that has none, and the sweep's plan.json.

    Doing it again changes nothing.

    Raises:
      UserError: Anything wrong with the request, its data, or the results folder.
    """
    wanted = configs(request)
    root = Path(request.results)
    with results.writable(root):
        results.overlays_folder(root).mkdir(parents=True, exist_ok=True)
    sources: dict[tuple[str, ImagesConfig | None], Source] = {}
    given: dict[DatasetSpec, GivenLabels | None] = {}
    overlays: dict[tuple[str, int, int], Overlay] = {}
    records = []
    for spec, config in wanted:
        read = (spec.base, config.images)
        if read not in sources:
            sources[read] = open_source(spec.base, Path(request.data_dir), config.images)
        if spec not in given:
            data_dir = Path(request.data_dir)
            given[spec] = open_given(spec, sources[read], data_dir, request.labels)
        key = (config.dataset, config.seed, config.probe_per_class)
        if key not in overlays:
            overlays[key] = prepare_overlay(
                spec,
                seed=config.seed,
                probe_per_class=config.probe_per_class,
                source=sources[read],
                overlays_dir=results.overlays_folder(root),
                given=given[spec],
            )
        config = recipes.fit_to_classes(config, overlays[key].num_classes, request.settings)
        records.append(_record(spec, config, overlays[key]))
    for record in records:
        path = results.cell_folder(root, record["cell"]) / "config.json"
        if not path.exists():
            results.write_json_atomic(path, record)
    # The longest first: side by side, a long cell that starts last would be waited for alone.
    records.sort(key=lambda record: -record["num_steps"] * METHODS[record["method"]].relative_cost)
    cells = tuple(record["cell"] for record in records)
    digest = results.short_digest(cells)
    notes = [line for source in sources.values() for line in describe_notes(source.notes)]
    sweep = Plan(f"{request.dataset}-{digest}", cells, tuple(dict.fromkeys(notes)))
    path = results.sweep_folder(root, sweep.sweep) / "plan.json"
    asked = asdict(replace(request, results="", data_dir=""))
    old = results.read_json(path) or {}
    results.write_json_atomic(
        path,
        {
            "schema": 1,
            "sweep": sweep.sweep,
            "command": request.command,
            "request": {key: value for key, value in asked.items() if value != ""},
            "cells": list(cells),
            "created": old.get("created") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
    return sweep


def _record(spec: DatasetSpec, config: Config, overlay: Overlay) -> dict[str, Any]:
    """Makes what config.json holds: all that decides a cell's outcome, and where it came from."""
    examples = len(overlay.train_ids)
    if config.batch_size > examples:
        raise UserError(
            f"{config.dataset} has {examples} training examples, too few for a batch of "
            f"{config.batch_size}: lower batch_size"
        )
    if isinstance(config.method_settings, FSRSettings):
        config.method_settings.check_classes(overlay.num_classes)
    epoch_steps = steps_per_epoch(config, examples)
    steps = num_steps(config, epoch_steps)
    outcome = {
        "config": json.loads(json.dumps(to_dict(config))),
        "overlay_digest": overlay.digest,
        "code_version": results.code_version(),
        "backend": chosen_backend(),
        "precision": config.precision,
    }
    if own := network_names.source_digest(config.network):
        outcome["network_digest"] = own
    cell = results.cell_name(config.dataset, config.method, config.seed, outcome)
    return {
        "cell": cell,
        "overlay": overlay.name,
        "base": spec.base,
        **outcome,
        "dataset": config.dataset,
        "method": config.method,
        "seed": config.seed,
        "network": config.network,
        "recipe": config.recipe,
        "num_steps": steps,
        "image_shape": list(overlay.image_shape),
        "num_classes": overlay.num_classes,
        "recipe_steps": _recipe_steps(config, examples),
        "changed_settings": recipes.changed_settings(config),
        "num_evaluations": len(evaluation_steps(config, epoch_steps, steps)),
        "num_test_examples": len(overlay.test_labels),
        "noise_rate": overlay.manifest["noise_rate"],
        "true_flip_rate": overlay.manifest["true_flip_rate"],
        "clean_labels_used": len(overlay.probe_ids),
        "versions": {"python": platform.python_version(), **results.library_versions()},
        "git_revision": _git_revision(),
    }


def _recipe_steps(config: Config, examples: int) -> int:
    plain = recipes.recipe_of(config)
    return num_steps(plain, steps_per_epoch(plain, examples))


def _git_revision() -> str:
    """Returns the checkout's revision, "" outside one; "+" marks uncommitted changes.

    In the image, which is no checkout, the revision that it was built from.
    """
    if built_from := os.environ.get("IEG_REVISION"):
        return built_from
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def is_finished(root: Path, cell: str) -> bool:
    """Returns whether a cell has its result."""
    return (results.cell_folder(root, cell) / "result.json").exists()


def train_cell(
    cell: str,
    root: Path,
    data_dir: Path,
    runtime: Runtime,
    watch: Callable[[Any], None] = lambda moment: None,
) -> None:
    """Trains and evaluates a cell, from its checkpoint if it has one; returns at once if trained.

    A resumed cell computes with the threads and replicas that its checkpoint was made with.

    Raises:
      UserError, DivergedError, or whatever went wrong; failure.json says it too.
      CellBusyError: Another process trains it.
      SupersededError: Another machine has taken it over: no failure of the cell.
    """
    folder = results.cell_folder(root, cell)
    if is_finished(root, cell) or (folder / "training.json").exists():
        return
    with ownership.owned(folder) as claim, _recorded(claim, "training"):
        from ieg_core.training import checkpoint

        done = checkpoint.read_progress(folder)
        if done is not None:
            runtime = replace(runtime, threads=done.threads, num_replicas=done.num_replicas)
        with beating(claim, "starting", done.step if done else 0) as show:
            set_environment(runtime)
            from ieg_core.training.cell import train_here

            train_here(root, claim, data_dir, runtime, watch, show)


def evaluate_cell(
    cell: str, root: Path, data_dir: Path, runtime: Runtime, *, again: bool = False
) -> Mapping[str, Any]:
    """Evaluates a trained cell from its checkpoint, or returns its result if it has one.

    Training ends with an evaluation of its own, so there is something to do only if it was stopped
    in between, or if `again` asks for it.

    Returns:
      The cell's row of the results table.

    Raises:
      UserError: The cell is not trained yet; failure.json keeps an older reason.
      CellBusyError: Another process works on it.
      SupersededError: Another machine has taken it over.
    """
    folder = results.cell_folder(root, cell)
    if is_finished(root, cell) and not again:
        return results.read_json(folder / "result.json")
    with (
        ownership.owned(folder) as claim,
        _recorded(claim, "evaluating"),
        beating(claim, "evaluating") as show,
    ):
        set_environment(runtime)
        from ieg_core.training.cell import evaluate_here

        return evaluate_here(root, claim, data_dir, runtime, show)


@contextlib.contextmanager
def _recorded(claim: ownership.Claim, phase: str) -> Iterator[None]:
    """Clears failure.json on entry and writes it when the body fails, as long as it may."""
    folder = claim.folder
    (folder / "failure.json").unlink(missing_ok=True)
    try:
        yield
    except ownership.SupersededError:
        raise
    except Exception as error:
        ownership.require_current(claim)
        plain = isinstance(error, UserError | DivergedError)
        progress = results.read_json(folder / "progress.json") or {}
        failure = {
            "phase": phase,
            "reason": str(error) if plain else f"{type(error).__name__}: {error}",
            "step": progress.get("step", 0),
            "log": "" if plain else traceback.format_exc(),
        }
        results.write_json_atomic(folder / "failure.json", failure)
        raise


def read_config(root: Path, cell: str) -> Config:
    """Reads a planned cell's configuration."""
    record = results.read_json(results.cell_folder(root, cell) / "config.json")
    if record is None:
        raise UserError(f"there is no cell {cell!r} under {root}")
    return from_dict(record["config"])
