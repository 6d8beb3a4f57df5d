# SPDX-License-Identifier: Apache-2.0
"""A step of `make doctor`: runs one check; the task fails if the check does."""

from components import component


@component
def examine(check: str, base: str, data_dir: str, results: str, require_gpu: bool, run: str) -> str:
    """Runs one check of `ieg_core.tasks.examine` and records its finding in the results root.

    Args:
      check: Name of the check.
      base: Base data set to open.
      data_dir: Folder of the base data sets.
      results: The results root, a folder or gs://bucket/prefix.
      require_gpu: Whether there must be a GPU.
      run: Name of this run of the doctor.

    Returns:
      The finding, in one line.

    Raises:
      RuntimeError: When the check fails; the message says how to fix it.
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
