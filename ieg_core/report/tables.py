# SPDX-License-Identifier: Apache-2.0
"""The results as files for programs and for pasting: results.json, results.csv, results.md."""

import csv
import io
import json
from collections.abc import Sequence

from ieg_core.data.tables import safe_cell
from ieg_core.report.expected import NOTE
from ieg_core.report.join import Changes
from ieg_core.report.model import Report
from ieg_core.report.summary import Group, accuracy_text, column_text
from ieg_core.report.trials import Row, with_same_keys
from ieg_core.store.seal import seal

SCHEMA = 1


def results_json(report: Report) -> str:
    """Writes {"schema": 1, "trials": [...]} and its digest as strict JSON, without NaN."""
    document = {"schema": SCHEMA, "trials": list(report.rows)}
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    # File names that are not UTF-8 change when the file is written: the digest is of what it holds.
    written = json.loads(text.encode("utf-8", "replace"))
    return json.dumps(seal(written), indent=2, ensure_ascii=False) + "\n"


def results_csv(report: Report) -> str:
    """Writes one line per trial; lists and mappings, such as per-class accuracies, are left out."""
    rows = report.rows
    nested = {key for row in rows for key, value in row.items() if isinstance(value, dict | list)}
    nested |= {"per_class_accuracy_ema_last", "versions"}
    rows = with_same_keys([{**row, **_flat_sets(row)} for row in rows])
    columns = [key for key in rows[0] if key not in nested] if rows else []
    text = io.StringIO()
    cells = [[row[key] for key in columns] for row in rows]
    csv.writer(text, lineterminator="\n").writerows(
        [[safe_cell(c) if isinstance(c, str) else c for c in line] for line in (columns, *cells)]
    )
    return text.getvalue()


def results_markdown(report: Report) -> str:
    """Writes the headline, methods against noise rates, and the details, as GitHub Markdown."""
    sweep, main = report.sweep, report.headline
    parts = [f"# {_inline(main.sentence)}"]
    for advice in report.advice:
        name = f"{_inline(advice.family)}: " if len(report.advice) > 1 else ""
        parts.append(f"{name}**{_inline(advice.sentence)}**")
        parts.append("\n".join(f"- {_inline(caveat)}" for caveat in advice.caveats))
    parts.append(" ".join(map(_inline, (*main.notes, main.missing))))
    parts += [_inline(note) for note in sweep.notes]
    for name, groups in report.families.items():
        parts.append(f"## {_inline(name)}")
        parts.append(
            "Test accuracy in percent after the last step (moving average of the parameters), "
            "by share of labels redrawn or flipped."
        )
        parts.append(_markdown_table(_matrix(groups)))
    parts += ["## Details", _markdown_table(report.table)]
    parts.append(
        "*best on test* is the maximum over the evaluations on the test set, so it is optimistic; "
        "every other figure is from the last step. GPU-hours count every GPU for as long as the "
        "trial held it."
    )
    if report.published:
        parts += ["## Published figures", NOTE, _markdown_table(report.published)]
    if changes := report.changes:
        parts += ["## Changes from A to B", _markdown_table(changes_table(changes))]
        if changes.settings:
            parts.append(_markdown_table([["setting", "A", "B"], *changes.settings]))
    if report.missing:
        table = [["data set", "method", "seed", "status", "reason"]]
        table += [
            [
                str(row["dataset"] or row["trial"]),
                str(row["method"] or "unknown"),
                "?" if row["seed"] is None else str(row["seed"]),
                row["status"],
                str(row["reason"]),
            ]
            for row in (trial.row for trial in report.missing)
        ]
        parts += ["## Trials without a result", _markdown_table(table)]
    if sweep.command:
        fence = "`" * (3 if "```" not in sweep.command else 8)
        parts += ["## Run it again", f"{fence}sh\n{sweep.command}\n{fence}"]
    return "\n\n".join(part for part in parts if part) + "\n"


def changes_table(changed: Changes) -> list[list[str]]:
    """Lays out accuracies before and after, header first; differences in percentage points."""
    table = [["data set", "method", "A", "B", "B \N{MINUS SIGN} A"]]
    for each in changed.accuracy:
        points = "" if each.points is None else f"{each.points:+.1f}".replace("-", "\N{MINUS SIGN}")
        before, after = accuracy_text(each.before), accuracy_text(each.after)
        table.append([each.dataset, each.label, before, after, points])
    return table


def _flat_sets(row: Row) -> Row:
    """Names each figure of an additional test set as in curves.json: "accuracy_ema_imagenet"."""
    return {
        f"{figure}_{name}": value
        for name, figures in (row.get("eval_sets") or {}).items()
        for figure, value in (figures if isinstance(figures, dict) else {}).items()
    }


def _matrix(groups: Sequence[Group]) -> list[list[str]]:
    datasets = {group.dataset: column_text(group) for group in groups}
    clean_labels = {group.label: group.clean_labels_used for group in groups}
    texts = {(g.label, g.dataset): accuracy_text(g.accuracy_ema_last) for g in groups}
    table = [["method", "clean labels used", *datasets.values()]]
    for label, clean in clean_labels.items():
        line = [label, "?" if clean is None else str(clean)]
        table.append([*line, *(texts.get((label, dataset), "") for dataset in datasets)])
    return table


def _markdown_table(table: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(table[0])
    lines = [table[0], rule, *table[1:]]
    return "\n".join(f"| {' | '.join(map(_inline, line))} |" for line in lines)


def _inline(text: str) -> str:
    """Escapes what would break a Markdown table or be read as markup."""
    for character in "\\`*<>|[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
