# SPDX-License-Identifier: Apache-2.0
"""The outcomes of the stages as Markdown, for docs/PERFORMANCE.md and docs/RESULTS.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ieg_core.recipes.cifar import CIFAR

Outcomes = Mapping[str, Mapping[str, Any]]
MIB = 1024**2
DISTANCES = (
    "worst tensor's gradient (limit)",
    "loss (limit)",
    "weights (limit)",
    "share of other λ (limit)",
    "equal",
)


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
                *_distances(each),
                f"{each['memory'] / MIB:.0f}",
                _peak(each),
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
            *DISTANCES,
            "compiler's MiB",
            "peak MiB",
            "compilation, s",
            "a step, ms",
            "device busy",
            "share of the matrix rate",
        )
        title = "### A step of each method, and its distance from the CPU's\n\n"
        parts.append(title + _table(heading, rows))
    plain = _group(outcomes, "torch-")
    if plain:
        rows = [
            (
                each["network"],
                each["method"],
                *_distances(each),
                variant,
                _peak(timed),
                f"{timed['compile_seconds']:.1f}",
                f"{1000 * timed['step_seconds']:.2f}",
            )
            for each in plain
            for variant, timed in each["variants"].items()
        ]
        heading = (
            "network",
            "method",
            *DISTANCES,
            "variant",
            "peak MiB",
            "compilation, s",
            "a step, ms",
        )
        title = "### The same steps in plain PyTorch, and our distance from them\n\n"
        parts.append(title + _table(heading, rows))
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
        rows = [
            (step, f"{100 * right:.1f}", f"{100 * most_frequent:.1f}")
            for step, right, most_frequent in each["pseudo_labels"]
        ]
        title = f"### Pseudo-labels of {each['method']}, {each['dataset']}\n\n"
        body = _table(("step", "right, %", "of the most frequent class, %"), rows)
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
                _published(each),
            )
            for each in trained
        ]
        heading = ("data set", "method", "steps", "training images", "accuracy, %", "published, %")
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
    lines = [
        f"- {name} failed: {each['error']}" for name, each in outcomes.items() if "error" in each
    ]
    lines += [
        f"- {name} was skipped: {each['skipped']}"
        for name, each in outcomes.items()
        if "skipped" in each
    ]
    return "\n".join(lines)


def _distances(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the cells of DISTANCES: each distance and its limit."""
    distances, limits = outcome["distances"], outcome["limits"]
    cells = {
        name: f"{_number(distance)} ({_number(limits[name])})"
        for name, distance in distances.items()
    }
    cells["tensor"] += f" {outcome['tensor']}"
    names = ("tensor", "loss", "weight", "label_coefficient")
    return *(cells.get(name, "-") for name in names), "yes" if outcome["equal"] else "no"


def _number(value: float | str) -> str:
    """Formats a number, or the name of one that is not finite."""
    return value if isinstance(value, str) else f"{value:.1e}"


def _peak(outcome: Mapping[str, Any]) -> str:
    if not outcome["peak_memory"]:
        return "-"
    return f"{'≤ ' if outcome.get('peak_is_older') else ''}{outcome['peak_memory'] / MIB:.0f}"


def _published(outcome: Mapping[str, Any]) -> str:
    """Returns the published figures of a row, each with its network."""
    figures = [
        f"{figure.text} by {figure.network}"
        f"{'' if figure.network == outcome['network'] else ', another network'}"
        for figure in CIFAR.figures
        if (figure.dataset, figure.method) == (outcome["dataset"], outcome["method"])
    ]
    return "; ".join(figures)


def _training(outcome: Mapping[str, Any]) -> str:
    return (
        f"{outcome['network']}, {outcome['step']} of {outcome['num_steps']} steps, "
        f"{outcome['train_images']} training images. Published at the end: {_published(outcome)}."
    )


def _group(outcomes: Outcomes, prefix: str) -> list[Mapping[str, Any]]:
    """Returns the outcomes of a kind that measured something."""
    return [
        each
        for name, each in outcomes.items()
        if name.startswith(prefix) and not {"error", "skipped"} & each.keys()
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
