# SPDX-License-Identifier: Apache-2.0
"""Measures `ieg audit` on folders of photos made of CIFAR-10, some of them in the wrong folder.

    python -m scripts.folder_bench --data-dir data             # 300 photos of 4 classes, five seeds
    python -m scripts.folder_bench --data-dir data --photos 10000 --classes 10 --seeds 0

For each seed it writes the photos as JPEG and PNG files of 48 to 160 pixels,
moves a share of them to another class's folder, runs the command with an empty cache and again, and
compares its lists with the truth.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ieg_core.audit.label_audit import LabelAuditRecord
from ieg_core.data.public.cifar import LAYOUTS, read_records, split_of
from ieg_core.errors import FailedError
from ieg_core.experiment.base_datasets import BASES
from ieg_core.host.program import Parser, program

CHOSEN = ("cat", "dog", "horse", "truck")
LEAST_SIDE, MOST_SIDE = 48, 160


def write_photos(
    folder: Path, data_dir: Path, photos: int, used: Sequence[str], swapped: float, seed: int
) -> dict[str, str]:
    """Writes photos into class folders, a share of them into a wrong one.

    Args:
      folder: Where to.
      data_dir: The folder with cifar-10-batches-bin/.
      photos: How many, equally many of each class.
      used: The classes.
      swapped: Share of the photos in a wrong folder.
      seed: Of all draws.

    Returns:
      The true class of each path.
    """
    layout = LAYOUTS["cifar10"]
    split = split_of(read_records(data_dir / layout.folder, "train", layout), layout)
    names = BASES["cifar10"].class_names
    classes = len(used)
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [
            rng.permutation(np.flatnonzero(split.labels == names.index(name)))[: photos // classes]
            for name in used
        ]
    )
    true = np.repeat(np.arange(classes), photos // classes)
    wrong = np.zeros(len(chosen), bool)
    wrong[rng.permutation(len(chosen))[: round(swapped * len(chosen))]] = True
    given = np.where(wrong, (true + rng.integers(1, classes, len(chosen))) % classes, true)
    truth = {}
    for number, place in enumerate(chosen.tolist()):
        side = int(rng.integers(LEAST_SIDE, MOST_SIDE + 1))
        image = Image.fromarray(split.images[place].transpose(1, 2, 0))
        kind = "jpg" if rng.random() < 0.7 else "png"
        path = f"{used[given[number]]}/{number:05d}.{kind}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.resize((side, side), Image.Resampling.BICUBIC).save(folder / path)
        truth[path] = used[true[number]]
    return truth


def run_audit(photos: Path, out: Path, cache: Path) -> tuple[float, float, str]:
    """Runs the command; returns its seconds, those of all processors, and what it printed."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "ieg_core.cli.main", "audit", str(photos), "--out", str(out)]
    command += ["--write-labels", str(out / "cleaned.csv")]
    began, before = time.monotonic(), os.times()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return time.monotonic() - began, used, done.stdout


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@program("folder-bench")
def main() -> None:
    """Prints a line for each seed."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--classes", default=",".join(CHOSEN), help="names, or how many")
    parser.add_argument("--swapped", type=float, default=0.15)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--show", action="store_true", help="show what the command prints, too")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each seed")
    arguments = parser.parse_args()
    used = arguments.classes.split(",")
    if arguments.classes.isdigit():
        others = [name for name in BASES["cifar10"].class_names if name not in CHOSEN]
        used = [*CHOSEN, *others][: int(arguments.classes)]
    for seed in map(int, arguments.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            truth = write_photos(
                root / "photos",
                arguments.data_dir,
                arguments.photos,
                used,
                arguments.swapped,
                seed,
            )
            first, first_cpu, told = run_audit(root / "photos", root / "out", root / "cache")
            again, again_cpu, _ = run_audit(root / "photos", root / "out", root / "cache")
            rows = read_rows(root / "out" / "audit.csv")
            wrong = {row["path"] for row in rows if truth[row["path"]] != row["given"]}
            caught = sum(row["path"] in wrong for row in rows[: len(wrong)])
            cleaned = read_rows(root / "out" / "cleaned.csv")
            given = {row["path"]: row["given"] for row in rows}
            changed = [row for row in cleaned if row["label"] != given[row["path"]]]
            left = sum(row["label"] != truth[row["path"]] for row in cleaned)
            summary = LabelAuditRecord.read(root / "out")
            if summary is None:
                raise FailedError(f"{root / 'out'} has no summary: the audit failed")
            share = f"{caught / len(wrong):.1%}" if wrong else "none"
            if arguments.show:
                print(told)
            if arguments.json:
                line = {
                    "seed": seed,
                    "wrong": len(wrong),
                    "found": caught / len(wrong) if wrong else None,
                    "expected wrong": summary.expected_wrong,
                    "changed": len(changed),
                    "changed rightly": sum(row["label"] == truth[row["path"]] for row in changed),
                    "wrong after": left,
                }
                print(json.dumps(line), flush=True)
                continue
            print(
                f"seed {seed}: {len(wrong)} of {len(rows)} labels wrong, "
                f"{summary.expected_wrong:.1f} expected; {share} of them among "
                f"{len(wrong)} top suspects; cleaning changed {len(changed)}, {left} wrong after "
                f"it; {first:.1f} s ({first_cpu:.1f} of CPU), again {again:.1f} s "
                f"({again_cpu:.1f} of CPU); load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
