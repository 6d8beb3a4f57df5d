# SPDX-License-Identifier: Apache-2.0
"""After a cell's training: list the labels that look wrong."""

from kfp.dsl import HTML, Metrics, Output

from components import component


@component
def audit(
    cell: str,
    data_dir: str,
    results: str,
    results_namespace: str,
    run: str,
    page: Output[HTML],
    measures: Output[Metrics],
) -> str:
    """Audits one trained cell; one that cannot be audited says why, and the pipeline goes on.

    Args:
      cell: The cell's name.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      results_namespace: Part of the results root that this run works in.
      run: The run's id.
      page: audit.html, for the KFP UI.
      measures: How many labels look wrong, and how good the score is where that is known.

    Returns:
      The cell's name.
    """
    from pathlib import Path

    from ieg_core import mirror, parent, runs
    from ieg_core.audit.run import page_and_measures
    from ieg_core.results import cell_folder

    parent.die_with_parent()
    with mirror.cell(runs.results_root(results, results_namespace, run), cell) as root:
        text, numbers = page_and_measures(cell_folder(root, cell), Path(data_dir))
    measures.metadata.update(numbers)
    Path(page.path).write_text(text, encoding="utf-8")
    Path(measures.path).write_text("{}")
    return cell
