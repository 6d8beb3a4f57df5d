# SPDX-License-Identifier: Apache-2.0
"""The outcomes of the stages as Markdown, for docs/PERFORMANCE.md and docs/RESULTS.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Outcomes = Mapping[str, Mapping[str, Any]]
MIB = 1024**2


def performance(outcomes: Outcomes) -> str:
    """Lays out the machine, the steps, the trials side by side and PyTorch's steps."""
    parts = [_machine(outcomes), _errors(outcomes)]
    steps = _group(outcomes, "steps-")
    if steps:
        rows = [
            (
                each["network"],
                each["precision"],
                each["method"],
                f"{each['distance']:.1e}{'' if each['equal'] else ' (above the limit)'}",
                f"{each['memory'] / MIB:.0f}",
                f"{each['compile_seconds']:.1f}",
                f"{1000 * each['step_seconds']:.2f}",
                _percent(each["busy_share"]),
                _percent(each["rate_share"]),
            )
            for each in steps
        ]
        heading = (
            "network",
            "precision",
            "method",
            "distance from the CPU's gradient",
            "MiB",
            "compilation, s",
            "a step, ms",
            "device busy",
            "share of the matrix rate",
        )
        parts.append("### A step of each method\n\n" + _table(heading, rows))
    plain = _group(outcomes, "torch-")
    if plain:
        rows = [
            (
                each["network"],
                each["method"],
                f"{each['distance']:.1e}{'' if each['equal'] else ' (above the limit)'}",
                variant,
                f"{timed['compile_seconds']:.1f}",
                f"{1000 * timed['step_seconds']:.2f}",
            )
            for each in plain
            for variant, timed in each["variants"].items()
        ]
        heading = (
            "network",
            "method",
            "distance from our gradient",
            "variant",
            "compilation, s",
            "a step, ms",
        )
        parts.append("### The same steps in plain PyTorch\n\n" + _table(heading, rows))
    for each in _group(outcomes, "side-by-side"):
        rows = []
        measured = {
            count: tuple(zip(*trials, strict=True)) for count, trials in each["trials"].items()
        }
        alone = sum(measured["1"][0]) if "1" in measured else None
        for count, (speeds, gpu, host) in measured.items():
            gain = "-" if alone is None else f"{sum(speeds) / alone:.2f}"
            sizes = (f"{max(gpu) / MIB:.0f}", f"{max(host) / MIB:.0f}")
            rows.append((count, f"{min(speeds):.1f}", f"{sum(speeds):.1f}", gain, *sizes))
        heading = (
            "trials",
            "slowest, steps/s",
            "together, steps/s",
            "of one alone",
            "GPU memory of one, MiB",
            "host memory of one, MiB",
        )
        title = f"### Small trials side by side ({each['dataset']}, {each['method']})\n\n"
        parts.append(title + _table(heading, rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def results(outcomes: Outcomes) -> str:
    """Lays out the trainings: the early collapse, and the papers' rows."""
    parts = [_machine(outcomes), _errors(outcomes)]
    for each in _group(outcomes, "collapse"):
        rows = [(step, f"{100 * share:.1f}") for step, share in each["pseudo_label_accuracy"]]
        title = f"### Right pseudo-labels of {each['method']}, {each['dataset']}\n\n"
        body = _table(("step", "right pseudo-labels, %"), rows)
        parts.append(f"{title}{_training(each)}\n\n{body}")
    trained = _group(outcomes, "row-")
    if trained:
        rows = [
            (
                each["dataset"],
                each["method"],
                f"{each['step']} of {each['num_steps']}",
                each["train_images"],
                "-" if each["accuracy"] is None else f"{100 * each['accuracy']:.1f}",
            )
            for each in trained
        ]
        heading = ("data set", "method", "steps", "training images", "accuracy, %")
        parts.append(f"### The papers' rows, {trained[0]['network']}\n\n" + _table(heading, rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(outcomes: Outcomes) -> str:
    measured = outcomes.get("rates")
    if measured is None or "error" in measured:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    rates = ", ".join(f"{rate / 1e12:.1f} in {name}" for name, rate in measured["rates"].items())
    kind = "a rehearsal with tiny sizes on a CPU, no measurement" if measured["rehearsal"] else ""
    lines = [
        f"`make gpu-check`: {measured['device']}, driver {measured['driver'] or '-'}, {versions},"
    ]
    lines.append(f"{measured['date']}{f' ({kind})' if kind else ''}. Measured TFLOP/s of a matrix")
    lines.append(f"product: {rates}.")
    return "\n".join(lines)


def _errors(outcomes: Outcomes) -> str:
    failed = {name: each["error"] for name, each in outcomes.items() if "error" in each}
    return "\n".join(f"- {name} failed: {error}" for name, error in failed.items())


def _training(outcome: Mapping[str, Any]) -> str:
    return (
        f"{outcome['network']}, {outcome['step']} of {outcome['num_steps']} steps, "
        f"{outcome['train_images']} training images."
    )


def _group(outcomes: Outcomes, prefix: str) -> list[Mapping[str, Any]]:
    """Returns the outcomes of a kind that measured something."""
    return [
        each
        for name, each in outcomes.items()
        if name.startswith(prefix) and "error" not in each and each.get("step") != 0
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
