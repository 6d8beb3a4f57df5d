# SPDX-License-Identifier: Apache-2.0
"""Fourth step of a sweep: reports all trials, and judges a reproduction."""

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
      plan: The plan that `prepare` wrote; its metadata contain the sweep's name.
      evaluated: The trials of each pod of this run, separated by blanks; the report covers all
        trials of the sweep.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      schedule: Name of the schedule that started this run; empty: none did.
      tolerance: Allowed difference of a result, in percentage points of accuracy; negative: any.
      accepted: A results.json to compare with; empty: that of the schedule's accepted run.
      page: report.html, for the KFP UI.
      table: The verdicts and results.md, for the KFP UI.

    Returns:
      The trials of this run that did not finish and why, and the results not reproduced; "" if
      there are none. `check_results` then fails, not this task: KFP discards the outputs of a
      failed task.
    """
    import shutil
    from pathlib import Path

    from ieg_core.host import processes
    from ieg_core.report import acceptance
    from ieg_core.report.write import write_report
    from ieg_core.store import mirror, runs
    from ieg_core.store.layout import REPORT_PAGE, REPORT_TABLE, report_folder, set_latest
    from ieg_core.tasks import kfp_ui

    processes.die_with_parent()
    sweep = plan.metadata["sweep"]
    with mirror.sweep(runs.results_root(results, results_namespace, run), sweep) as root:
        written, folder = write_report(root, sweep), report_folder(root, sweep)
        set_latest(root, sweep)
        shutil.copy(folder / REPORT_PAGE, page.path)
        verdicts, wrong = acceptance.judge_report(
            written.groups,
            folder,
            results=results,
            schedule=schedule,
            tolerance=tolerance,
            accepted=accepted,
        )
        text = verdicts + (folder / REPORT_TABLE).read_text(encoding="utf-8")
        Path(table.path).write_text(kfp_ui.short_markdown(text), encoding="utf-8")
        return acceptance.failures_text(
            kfp_ui.failures(written.rows, " ".join(evaluated).split()), wrong
        )
