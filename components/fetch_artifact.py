# SPDX-License-Identifier: Apache-2.0
"""Second half of the check of KFP's object store: reads what `leave_artifact` stored there."""

from kfp.dsl import Artifact, Input

from components import component


@component
def fetch_artifact(note: Input[Artifact], results: str, run: str) -> str:
    """Reads an artifact that KFP's launcher has fetched from its object store.

    Args:
      note: The artifact.
      results: The results root, a folder or gs://bucket/prefix.
      run: The expected content.

    Returns:
      The finding, in one line.

    Raises:
      RuntimeError: When the content differs.
    """
    from pathlib import Path

    from ieg_core.host import processes
    from ieg_core.tasks import examine

    processes.die_with_parent()
    finding = examine.check_artifact(Path(note.path), note.uri, run)
    examine.write_down(results, run, finding)
    print(finding.line)
    if not finding.ok:
        raise RuntimeError(finding.line)
    return finding.line
