# SPDX-License-Identifier: Apache-2.0
"""Half of a check of KFP's object store: what this task leaves there, another fetches."""

from kfp.dsl import Artifact, Output

from components import component


@component
def leave_artifact(run: str, note: Output[Artifact]) -> None:
    """Writes an artifact, which KFP's launcher puts into its object store.

    Args:
      run: What to write.
      note: The artifact.
    """
    from pathlib import Path

    from ieg_core.host import processes

    processes.die_with_parent()
    Path(note.path).write_text(run)
