# SPDX-License-Identifier: Apache-2.0
"""Damages a finished results root at random, and checks what its readers make of it.

    python -m scripts.chaos [mutations] [flips] [--tries 1000] [--seed 0] [--root runs]

`mutations` replaces a file by another value, a folder, a link or a pipe, or changes or cuts it;
`flips` changes one bit. Without a root a small sweep is trained first. A root is copied, never
changed. Each try damages one file, runs every reader, and puts the file back. It survives if

* no reader fails, other than with one line that names the file,
* the report is written, and the rows of the other trials are the same as before,
* the row of the file's own trial has no other number than before, and
* the file's content is the same as before, or its reader refuses it.

Prints how many tries survived, and each one that did not; the exit code is 1 if there are any.
"""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ieg_core.data.label_set import load_label_set
from ieg_core.errors import FailedError, UserError
from ieg_core.host.program import Parser, program
from ieg_core.report.write import write_report
from ieg_core.store import arrays, layout, leases, model_file, seal
from ieg_core.store.records import PlanRecord, ReportRecord
from ieg_core.sweep import estimate, plan, progress, slots, worker
from ieg_core.sweep.request import SweepRequest
from ieg_core.training.checkpoint import read_progress

Damage = Callable[[Path, random.Random], None]
Reader = Callable[[Path, str], object]

READ_BACK: Final = (".json", ".safetensors", ".keras")
"""Suffixes of the files that the program reads back."""

VALUES: Final[tuple[Any, ...]] = (None, {}, [], 3, -1, 0.5, "text", True, [[]], {"a": None}, "9e9")
CONTENTS: Final = (
    b"",
    b"null",
    b"{}",
    b"[]",
    b"3",
    b'"text"',
    b"[" * 100_000,
    b"9" * 5_000,
    b"1e999",
    b"NaN",
    b"\xff\xfe\x00",
    b"PK\x03\x04",
    bytes(64),
)


def flip(path: Path, rng: random.Random) -> None:
    """Changes one bit."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content) * 8)
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cuts the file off."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def extend(path: Path, rng: random.Random) -> None:
    """Appends bytes."""
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 64)))


def overwrite(path: Path, rng: random.Random) -> None:
    """Overwrites a part."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 32] = rng.randbytes(min(32, len(content) - start))
    path.write_bytes(content)


def replace_content(path: Path, rng: random.Random) -> None:
    """Replaces the content by another value."""
    path.write_bytes(rng.choice(CONTENTS))


def replace_value(path: Path, rng: random.Random) -> None:
    """Gives a key another value, as someone who edits the file does."""
    _edit(path, rng, sealed=False)


def replace_sealed_value(path: Path, rng: random.Random) -> None:
    """Gives a key a value of another type and renews the digest, as another version could."""
    _edit(path, rng, sealed=True)


def take_anothers_content(path: Path, rng: random.Random) -> None:
    """Replaces the content by that of a file of another name in the same folder."""
    others = [each for each in sorted(path.parent.iterdir()) if each.suffix in READ_BACK]
    others = [each for each in others if each.is_file() and each != path]
    path.write_bytes(rng.choice(others).read_bytes() if others else b"{}")


def become_folder(path: Path, rng: random.Random) -> None:
    """Replaces the file by a folder."""
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "inside").write_text("something")


def become_dangling_link(path: Path, rng: random.Random) -> None:
    """Replaces the file by a link to nothing."""
    path.unlink()
    path.symlink_to("nowhere")


def become_link_loop(path: Path, rng: random.Random) -> None:
    """Replaces the file by a link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def become_pipe(path: Path, rng: random.Random) -> None:
    """Replaces the file by a pipe, which would block its reader."""
    path.unlink()
    os.mkfifo(path)


MUTATIONS: Final[tuple[Damage, ...]] = (
    truncate,
    extend,
    overwrite,
    replace_content,
    replace_value,
    replace_sealed_value,
    take_anothers_content,
    become_folder,
    become_dangling_link,
    become_link_loop,
    become_pipe,
)
ATTACKS: Final[Mapping[str, Sequence[Damage]]] = {"mutations": MUTATIONS, "flips": (flip,)}


def _edit(path: Path, rng: random.Random, sealed: bool) -> None:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return replace_content(path, rng)
    value.pop(seal.DIGEST, None) if sealed else None
    place = value
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or (not sealed and rng.random() < 0.3):
            break
        place = inner
    others = [each for each in VALUES if type(each) is not type(inner)]
    place[key] = rng.choice(others if sealed else [each for each in VALUES if each != inner])
    text = json.dumps(seal.seal(value) if sealed else value)
    path.write_text(text, encoding="utf-8")
    return None


@dataclass(frozen=True)
class Outcome:
    """The counts of an attack.

    Attributes:
      tried: Number of tries.
      failures: One line for each that did not survive.
    """

    tried: int
    failures: Sequence[str]

    @property
    def line(self) -> str:
        """The counts, formatted for people."""
        return f"{self.tried - len(self.failures):,} of {self.tried:,} survived"


def read_status(root: Path, sweep: str) -> None:
    """Reads the progress of all trials, as `ieg status` does."""
    folder, _, trials = layout.find_trials(layout.sweep_folder(root, sweep))
    for trial in trials:
        progress.read_trial(folder, trial, 0.0, time.time())


def read_estimate(root: Path, sweep: str) -> None:
    """Estimates the unfinished trials, as `make sweep` does before it starts."""
    trials = layout.planned_trials(layout.sweep_folder(root, sweep)) or []
    estimate.seconds_per_trial(root, trials, slots.Slot(threads=1))


def read_leases(root: Path, sweep: str) -> None:
    """Asks of every trial whether it is being trained."""
    for folder in sorted((root / layout.TRIALS).iterdir()):
        leases.is_live_elsewhere(folder)


def plan_again(root: Path, sweep: str) -> None:
    """Plans the sweep again, as a second `make sweep` does."""
    record = PlanRecord.read(layout.sweep_folder(root, sweep))
    if record:
        values = {**record.request, "results": str(root)}
        tuples: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
        }
        plan.plan(SweepRequest(**tuples))


READERS: Final[tuple[Reader, ...]] = (
    write_report,
    read_status,
    read_estimate,
    read_leases,
    plan_again,
)


class Target:
    """A finished results root that is damaged and put back.

    Args:
      root: The root; it is changed.
      readers: What reads it in each try; the first one writes the report.
    """

    def __init__(self, root: Path, readers: Sequence[Reader] = READERS) -> None:
        self.root, self.readers = root, readers
        self.sweep = layout.planned_sweeps(root)[0]
        for read in readers:
            read(root, self.sweep)
        paths = [path for path in sorted(root.rglob("*")) if not path.is_symlink()]
        self._contents = {path: path.read_bytes() for path in paths if path.is_file()}
        self.files = [
            path
            for path in self._contents
            if path.suffix in READ_BACK and layout.REPORT not in path.parts[len(root.parts) :]
        ]
        self._values = {path: self._value(path) for path in self.files}
        self._rows = self._read_rows()

    def attack(
        self,
        damages: Sequence[Damage],
        tries: int,
        seed: int,
        report: Callable[[str], None] = lambda line: None,
    ) -> Outcome:
        """Damages files in turn, `tries` times.

        Args:
          damages: The kinds of damage to choose from.
          tries: Number of tries.
          seed: Seed of all choices.
          report: Receives a line for each try that did not survive, and after each 500 tries.
        """
        failures: list[str] = []
        for number in range(tries):
            rng = random.Random(f"{seed} {number}")
            path, damage = self.files[number % len(self.files)], rng.choice(damages)
            try:
                damage(path, rng)
                with contextlib.redirect_stderr(io.StringIO()):
                    problem = self._problem(path)
            finally:
                self._restore()
            if problem:
                name = path.relative_to(self.root)
                failures.append(f"try {number}, {damage.__name__} {name}: {problem}")
                report(failures[-1])
            if not (number + 1) % 500:
                report(Outcome(number + 1, failures).line)
        return Outcome(tries, failures)

    def _problem(self, path: Path) -> str:
        """Returns what the readers do wrong with a damaged file; "" if nothing."""
        try:
            is_altered = self._value(path) != self._values[path]
        except FileNotFoundError:
            pass  # a dangling link counts as a missing file
        except UserError as error:
            if not self._is_named(path, str(error)):
                return f"its own reader says: {error}"
        else:
            if is_altered and path.read_bytes().find(seal.DIGEST.encode()) < 0:
                return "read without a word"
        for read in self.readers:
            try:
                read(self.root, self.sweep)
            except UserError as error:
                if path.name != PlanRecord.NAME or not self._is_named(path, str(error)):
                    return f"{read.__name__}: {error}"
            except Exception as error:
                return f"{read.__name__}: {type(error).__name__}: {error}"
        return self._changed_rows(path)

    def _is_named(self, path: Path, text: str) -> bool:
        return "\n" not in text and (str(path) in text or str(path.parent) in text)

    def _changed_rows(self, path: Path) -> str:
        if path.name == PlanRecord.NAME:
            return ""
        rows = self._read_rows()
        for trial, before in self._rows.items():
            after = rows[trial]
            if after == before:
                continue
            if trial not in path.parts:
                return f"the row of {trial} changed"
            different = {key for key in before if after[key] not in (before[key], None)}
            if different - {"status", "reason"}:
                return f"its row has other values of {', '.join(sorted(different))}"
            if after["status"] != before["status"] and not after["reason"]:
                return "its row has no reason"
        return ""

    def _read_rows(self) -> Mapping[str, Mapping[str, Any]]:
        record = ReportRecord.read(layout.sweep_folder(self.root, self.sweep))
        return {row["trial"]: row for row in record.trials} if record else {}

    def _value(self, path: Path) -> object:
        """Returns what a file means to its reader."""
        if path.suffix == ".keras":
            return model_file.read_facts(path)
        if path.is_relative_to(layout.label_sets_folder(self.root)):
            return load_label_set(path.parent).digest
        if path.suffix == ".safetensors":
            if path.parent.name == layout.CHECKPOINTS:
                read_progress(path.parent.parent)
            tensors, facts = arrays.read(path, "")
            return arrays.digest(tensors), facts
        try:
            return seal.unseal(seal.parse_json(seal.read_file(path)))
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error

    def _restore(self) -> None:
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path not in self._contents and (path.is_symlink() or not path.is_dir()):
                path.unlink()
        for path, content in self._contents.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.is_fifo():
                path.unlink()
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def train_root(root: Path) -> None:
    """Trains a small sweep: two methods, two seeds."""
    request = SweepRequest(
        "digits_uniform_0.4",
        methods=("supervised", "l2r"),
        seeds=(0, 1),
        network="docs.examples.small_network:build",
        steps=20,
        results=str(root),
    )
    planned = plan.plan(request)
    for trial in planned.trials:
        for step in ("train", "evaluate"):
            if code := worker.run_step(step, trial, root, Path("data"), echo=False):
                raise FailedError(f"{trial} failed with exit code {code}: see {root}")
    write_report(root, planned.sweep)


@program("chaos")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs attacks; returns 1 if a try did not survive."""
    parser = Parser(description=__doc__)
    parser.add_argument("attacks", nargs="+", choices=ATTACKS)
    parser.add_argument("--tries", type=int, default=1000, help="of each attack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, help="a finished results root")
    options = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory(prefix="ieg-chaos-") as folder:
        root = Path(folder) / layout.DEFAULT_ROOT
        if options.root:
            shutil.copytree(options.root, root, symlinks=True)
        else:
            train_root(root)
        report = functools.partial(print, flush=True)
        for name in options.attacks:
            damages = ATTACKS[name]
            # Planning takes as long as all other readers; the mutations cover it.
            readers = READERS if damages is MUTATIONS else READERS[:-1]
            outcome = Target(root, readers).attack(damages, options.tries, options.seed, report)
            print(f"{name}: {outcome.line}", flush=True)
            failed |= bool(outcome.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
