# SPDX-License-Identifier: Apache-2.0
"""One check of a place: the task succeeds if all is well, so that its state says so too."""

from components import component


@component
def examine(check: str, base: str, data_dir: str, results: str, require_gpu: bool, run: str) -> str:
    """Runs one check of `ieg_core.tasks.examine` and leaves its line in the results root.

    Args:
      check: Name of the check.
      base: Base data set to open.
      data_dir: Where the base data sets lie.
      results: The results root, a folder or gs://bucket/prefix.
      require_gpu: Whether a GPU must be there.
      run: Name of this examination.

    Returns:
      What was found, in one line.

    Raises:
      RuntimeError: What was found is wrong; the line says what mends it.
    """
    from ieg_core.host import processes
    from ieg_core.tasks import examine as doctor

    processes.die_with_parent()
    place = doctor.Place(base, data_dir, results, require_gpu)
    finding = doctor.examine(check, place)
    doctor.write_down(results, run, finding)
    print(finding.line)
    if not finding.ok:
        raise RuntimeError(finding.line)
    return finding.line
