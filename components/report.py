# SPDX-License-Identifier: Apache-2.0
"""Fourth step of a sweep: put all cells into one report."""

from kfp.dsl import HTML, Input, Markdown, Output

from components import component


@component
def report(
    plan: Input[Markdown],
    evaluated: list[str],
    results: str,
    page: Output[HTML],
    table: Output[Markdown],
) -> str:
    """Writes the sweep's report from the results root.

    Args:
      plan: The plan that `prepare` wrote; its metadata name the sweep.
      evaluated: The cells, only to run after all of them.
      results: The results root.
      page: report.html, for the KFP UI.
      table: results.md, for the KFP UI.

    Returns:
      Which cells did not finish and why; "" if all did.
    """
    import shutil
    from pathlib import Path

    from ieg_core import parent
    from ieg_core.report import load_sweep, write_report
    from ieg_core.results import set_latest

    parent.die_with_parent()
    sweep = plan.metadata["sweep"]
    folder = write_report(Path(results), sweep)
    set_latest(Path(results), sweep)
    shutil.copy(folder / "report.html", page.path)
    shutil.copy(folder / "results.md", table.path)
    rows = load_sweep(Path(results), sweep).rows
    lost = [f"{row['cell']}: {row['reason']}" for row in rows if row["status"] != "finished"]
    return "; ".join(lost)[:4000]
