# SPDX-License-Identifier: Apache-2.0
"""Results roots of the shape that training leaves behind, with plausible numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.store.arrays import encode
from tests.records import put

FINAL = {  # accuracy without noise, and what full noise would cost
    "supervised": (0.975, 0.42, 3.0),
    "probe_only": (0.927, 0.0, 0.0),
    "l2r": (0.972, 0.05, 1.4),
    "fsr": (0.978, 0.08, 1.6),
    "ieg": (0.984, 0.015, 1.0),
}
DIGITS = [str(digit) for digit in range(10)]

Builder = Callable[..., Path]


def write(path: Path, value: dict[str, Any]) -> None:
    put(path, **value)


def build_results_root(
    root: Path,
    *,
    dataset: str = "digits_uniform",
    rates: Sequence[float] = (0.2, 0.4, 0.8),
    methods: Sequence[str] = ("supervised", "l2r"),
    seeds: Sequence[int] = (0,),
    class_names: Sequence[str] = DIGITS,
    failed: Sequence[tuple[str, float, int]] = (),
    skipped: Sequence[tuple[str, float, int]] = (),
    sweep: str = "s1",
    steps: int = 600,
) -> Path:
    """Writes a results root; `failed` and `skipped` name trials as (method, rate, seed)."""
    trials = []
    for seed in seeds:
        for method in methods:
            for rate in rates:
                name = f"{dataset}_{rate:g}-{method}-seed{seed}-0123456789ab"
                trials.append(name)
                write_trial(
                    root, name, f"{dataset}_{rate:g}", method, rate, seed, class_names, steps
                )
                folder = root / "trials" / name
                if (method, rate, seed) in failed:
                    (folder / "result.json").unlink()
                    reason = "the loss is not finite (nan) at step 37; try a lower learning rate"
                    log = "step 36 loss 8.1e+12\nstep 37 loss nan\n<b>not bold</b>"
                    write(
                        folder / "failure.json",
                        {"phase": "training", "reason": reason, "step": 37, "log": log},
                    )
                if (method, rate, seed) in skipped:
                    (folder / "result.json").unlink()
    command = f"make sweep DATASET={dataset} METHODS={','.join(methods)} SEEDS=0"
    write(
        root / "sweeps" / sweep / "plan.json",
        {
            "schema": 1,
            "sweep": sweep,
            "command": command,
            "request": {"dataset": dataset, "methods": list(methods)},
            "trials": trials,
            "created": "2025-01-02T03:04:05+00:00",
        },
    )
    return root


def write_trial(
    root: Path,
    name: str,
    dataset: str,
    method: str,
    rate: float,
    seed: int,
    class_names: Sequence[str],
    steps: int,
) -> None:
    """Writes one finished trial and its label set's manifest."""
    rng = np.random.default_rng([seed, int(100 * rate), len(method)])
    clean, cost, power = FINAL[method]
    final = clean - cost * rate ** max(power, 0.1) + 0.006 * rng.standard_normal()
    num_classes = len(class_names)
    label_set = f"{dataset}-seed{seed}-probe10-01234567"
    manifest = {"class_names": list(class_names), "base_digest": ""}
    write(root / "label_sets" / label_set / "manifest.json", manifest)
    probe = 0 if method in ("supervised", "fsr") else 10 * num_classes
    settings = {
        "trial": name, "label_set": label_set, "dataset": dataset, "method": method, "seed": seed,
        "network": "preact8", "num_steps": steps, "noise_rate": rate,
        "true_flip_rate": rate * (num_classes - 1) / num_classes, "clean_labels_used": probe,
        "backend": "tensorflow", "precision": "float32", "code_version": "0f1e2d3c4b5a",
        "git_revision": "a81c79b", "recipe": "digits",
        "versions": {"numpy": "2.3.1", "tensorflow": "2.21.0"},
        "config": {
            "recipe": "digits", "dataset": dataset, "method": method, "seed": seed,
            "batch_size": 100, "probe_per_class": 10 if probe else 0,
            "optimizer": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0005},
            "schedule": {"name": "cosine", "num_steps": steps, "boundary_epochs": []},
            "method_settings": {"lookahead_lr": 0.1} if method == "l2r" else {"label_smoothing": 0},
        },
    }  # fmt: skip
    folder = root / "trials" / name
    write(folder / "config.json", settings)
    at = [steps * i // 12 for i in range(1, 13)]
    rise = [final * (1 - 0.85 * (np.exp(-5 * step / steps) - np.exp(-5))) for step in at]
    peak = [y + (0.1 * cost * rate if i == 7 else 0.0) for i, y in enumerate(rise)]
    evaluations = [
        {"step": s, "accuracy_ema": float(y), "accuracy": float(y) - 0.01, "loss_ema": 1.0}
        for s, y in zip(at, peak, strict=True)
    ]
    training = []
    for step in range(20, steps + 1, max(20, steps // 60)):
        record = {"step": step, "epoch": step // 13, "learning_rate": 0.1,
                  "loss": 2.3 * float(np.exp(-2 * step / steps)) + 0.2 + 0.8 * rate}  # fmt: skip
        if method in ("l2r", "ieg"):
            record["zero_weights"] = 0.3 + 0.1 * float(rng.random())
            record["weight_on_clean"] = 1 - rate + rate * (1 - float(np.exp(-step / 90)))
        training.append(record)
    write(folder / "curves.json", {"training": training, "evaluations": evaluations})
    per_class = np.clip(final + 0.03 * rng.standard_normal(num_classes), 0, 1)
    counts = np.stack(
        [
            rng.multinomial(36, confusion_row(i, per_class[i], num_classes))
            for i in range(num_classes)
        ]
    )
    matrices = {"confusion_ema_last": counts, "confusion_last": counts}
    (folder / "matrices.safetensors").write_bytes(encode(matrices))
    result = {key: settings[key] for key in (
        "trial", "dataset", "method", "seed", "network", "noise_rate", "true_flip_rate",
        "clean_labels_used", "backend", "precision", "code_version", "versions")}  # fmt: skip
    result |= {
        "steps": steps, "accuracy_ema_last": final, "accuracy_ema_best": float(max(peak)),
        "accuracy_last": final - 0.01, "accuracy_best": float(max(peak)) - 0.01,
        "top5_ema_last": min(1.0, final + 0.02), "top5_last": min(1.0, final + 0.02),
        "balanced_accuracy_ema_last": final, "per_class_accuracy_ema_last": per_class.tolist(),
        "status": "finished", "reason": "", "train_seconds": 31.5, "steps_per_second": steps / 31.5,
        "total_seconds": 43.2, "num_parameters": 1234567, "device": "cpu", "threads": 1,
        "run_directory": f"trials/{name}",
    }  # fmt: skip
    write(folder / "result.json", result)


def confusion_row(true_class: int, accuracy: float, num_classes: int) -> np.ndarray:
    """Puts half of the mistakes on the neighbor and the rest everywhere else."""
    row = np.full(num_classes, 0.5 * (1 - accuracy) / max(1, num_classes - 2))
    row[(true_class + 1) % num_classes] = 0.5 * (1 - accuracy)
    row[true_class] = accuracy
    return row / row.sum()
