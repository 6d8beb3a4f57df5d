# SPDX-License-Identifier: Apache-2.0
"""Fourth step of a sweep: put all trials into one report, and judge a reproduction."""

from kfp.dsl import HTML, Input, Markdown, Output

from components import component


@component
def report(
    plan: Input[Markdown],
    evaluated: list[str],
    results: str,
    results_namespace: str,
    run: str,
    schedule: str,
    tolerance: float,
    accepted: str,
    page: Output[HTML],
    table: Output[Markdown],
) -> str:
    """Writes the sweep's report from the results root.

    Args:
      plan: The plan that `prepare` wrote; its metadata name the sweep.
      evaluated: The trials of this run; the report is about all of the sweep's.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      schedule: Name of the schedule that started this run; empty: none did.
      tolerance: Points of accuracy, per cent, by which a result may differ; negative: any.
      accepted: Another results.json to compare with; empty: the schedule's accepted run.
      page: report.html, for the KFP UI.
      table: The verdicts and results.md, for the KFP UI.

    Returns:
      Which trials of this run did not finish and why, and what was not reproduced; "" if all is
      well. It is `check_results` that fails then: what a failed task has written KFP does not keep.
    """
    import shutil
    from pathlib import Path

    from ieg_core.host import processes
    from ieg_core.report import acceptance
    from ieg_core.report.write import write_report
    from ieg_core.store import mirror, runs
    from ieg_core.store.layout import report_folder, set_latest
    from ieg_core.tasks import kfp_ui

    processes.die_with_parent()
    sweep = plan.metadata["sweep"]
    with mirror.sweep(runs.results_root(results, results_namespace, run), sweep) as root:
        written, folder = write_report(root, sweep), report_folder(root, sweep)
        set_latest(root, sweep)
        shutil.copy(folder / "report.html", page.path)
        verdicts, wrong = acceptance.judge_report(
            written.groups,
            folder,
            results=results,
            schedule=schedule,
            tolerance=tolerance,
            accepted=accepted,
        )
        text = verdicts + (folder / "results.md").read_text()
        Path(table.path).write_text(kfp_ui.short_markdown(text))
        return acceptance.failures_text(kfp_ui.failures(written.rows, evaluated), wrong)
