# SPDX-License-Identifier: Apache-2.0
"""Runs a pipeline on this machine by kfp.local, with what bites in kfp 2.17 taken care of.

Each of these was seen (docs/decisions.md) and has a test in tests/pipelines/local/test_runner.py:

- It runs two iterations of a loop at once whatever is asked for: here, `at_once`.
- It wraps `print` and the root logger's handlers a thread and leaves some of that behind, so that
  the output is indented ever deeper: not wrapped.
- It writes terminal colours into its log and its error messages: not here.
- It replaces the text "python3" in every argument, data included, so that a results root
  `python3-project/` becomes another folder: only in the command here.
- A parameter's text holding `{{$` breaks its placeholders: refused.
- A pipeline root `gs://…` becomes a local folder of that name: refused.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import logging_utils, subprocess_task_handler
from kfp.local.orchestrator import enhanced_dag_orchestrator

from ieg_core.errors import UserError
from pipelines import checks

PROGRAM = "ephemeral_component.py"


def run(
    pipeline: Any,
    arguments: Mapping[str, Any],
    *,
    scratch: Path,
    at_once: int,
    where: Sequence[checks.Check] = checks.LOCAL,
) -> None:
    """Runs a pipeline in subprocesses of this one.

    Args:
      pipeline: The compiled pipeline.
      arguments: Its parameters.
      scratch: A folder for KFP's own files, worth nothing afterwards.
      at_once: Iterations of a loop to run at the same time.
      where: Checks besides `checks.ALL`; those of clusters for a package made for one, whose
        placement does nothing here.

    Raises:
      UserError: An argument or the folder that kfp.local would get wrong.
      ValueError: The pipeline has one of KFP's traps in it, or an argument is of another type.
      RuntimeError: A task failed.
    """
    for name, value in arguments.items():
        if "{{$" in json.dumps(value):
            raise UserError(f"{name}={value!r}: kfp takes '{{{{$' for a placeholder; rename it")
    if "://" in str(scratch):
        raise UserError(f"expected a local folder for kfp's files, got {scratch}")
    checks.require_sound(checks.compiled(pipeline), [*checks.ALL, *where])
    with _cured(at_once):
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(scratch),
            raise_on_error=True,
            enable_caching=False,
        )
        pipeline(**arguments)


@contextlib.contextmanager
def _cured(at_once: int) -> Iterator[None]:
    class Executor(enhanced_dag_orchestrator.ParallelExecutor):
        def __init__(self, max_workers: int | None = None) -> None:
            super().__init__(max_workers)
            self.conservative_max = self.max_workers = at_once

    def nothing(*args: object, **kwargs: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    replacements = [
        (enhanced_dag_orchestrator, "ParallelExecutor", Executor),
        (logging_utils, "indented_print", nothing),
        (logging_utils, "local_logger_context", nothing),
        (logging_utils, "color_text", lambda text, color: text),
        (subprocess_task_handler, "replace_python_executable", _with_interpreter),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        yield


def _with_interpreter(full_command: list[str], interpreter: str) -> list[str]:
    """Puts this interpreter for `python3` into the shell line, and nowhere else."""
    end = next((i for i, part in enumerate(full_command) if PROGRAM in part), -1) + 1
    shell = [part.replace("python3", interpreter) for part in full_command[:end]]
    return shell + full_command[end:]


def log_to_stdout() -> None:
    """Sends kfp's own log lines to standard output, among those of the tasks."""
    form = "%(asctime)s %(message)s"
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format=form, datefmt="%H:%M:%S")
