# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' tables in Markdown."""

from collections.abc import Mapping, Sequence

from ieg_core.report.summary import statistic

Row = Mapping[str, float | None]


def to_table(rows_by_name: Mapping[str, Sequence[Row]], heading: str = "data") -> str:
    """Lays figures out as Markdown: a line each, mean ± sample deviation over seeds.

    Args:
      rows_by_name: For each line, the figures by name, one row a seed; a missing one is shown
        as "-".
      heading: Of the first column.
    """
    names = list(
        dict.fromkeys(name for rows in rows_by_name.values() for row in rows for name in row)
    )
    lines = [f"| {' | '.join([heading, *names])} |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for label, rows in rows_by_name.items():
        texts = [_mean_text([row.get(name) for row in rows]) for name in names]
        lines.append(f"| {' | '.join([label, *texts])} |")
    return "\n".join(lines)


def _mean_text(values: Sequence[float | None]) -> str:
    mean = statistic(values)
    if mean is None:
        return "-"
    return f"{mean.mean:.4f}" + ("" if mean.deviation is None else f" ± {mean.deviation:.4f}")
