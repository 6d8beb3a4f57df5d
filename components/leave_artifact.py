# SPDX-License-Identifier: Apache-2.0
"""First half of the check of KFP's object store: stores an artifact for `fetch_artifact`."""

from kfp.dsl import Artifact, Output

from components import component


@component
def leave_artifact(run: str, note: Output[Artifact]) -> None:
    """Writes an artifact, which KFP's launcher uploads to its object store.

    Args:
      run: The content.
      note: The artifact.
    """
    from pathlib import Path

    from ieg_core.host import processes

    processes.die_with_parent()
    Path(note.path).write_text(run, encoding="utf-8")
