# SPDX-License-Identifier: Apache-2.0
"""Runs a pipeline on this machine with kfp.local, working around defects of kfp 2.17.

Each defect has a test in tests/pipelines/local/test_runner.py:

- It always runs two iterations of a loop at the same time: here, `at_once`.
- Each thread wraps `print` and the root logger's handlers and leaves some wrappers behind, so that
  the output is indented ever deeper: not wrapped here.
- It writes terminal colors into its log and its error messages: not here.
- It replaces "python3" in every argument, including data, so that a results root
  `python3-project/` becomes another folder: here, only in the command.
- A parameter that contains `{{$` breaks its placeholders: refused here.
- A pipeline root `gs://…` becomes a local folder with that name: refused here.
"""

import contextlib
import json
import logging
import shlex
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
    """Runs a pipeline in subprocesses of this process.

    Args:
      pipeline: The compiled pipeline.
      arguments: Its parameters.
      scratch: A folder for KFP's files, which can be removed afterwards.
      at_once: Maximum number of concurrent iterations of a loop.
      where: Checks in addition to `checks.ALL`; for a package of a cluster, the cluster's: its
        placement has no effect here.

    Raises:
      UserError: When kfp.local would misread an argument or the folder.
      ValueError: When a check fails, or an argument has the wrong type.
      RuntimeError: When a task fails.
    """
    for name, value in arguments.items():
        if "{{$" in json.dumps(value):
            raise UserError(f"{name}={value!r}: kfp reads '{{{{$' as a placeholder; rename it")
    if "://" in str(scratch):
        raise UserError(f"expected a local folder for kfp's files, got {scratch}")
    checks.require_sound(checks.compiled(pipeline), [*checks.ALL, *where])
    with _patched(at_once):
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(scratch),
            raise_on_error=True,
            enable_caching=False,
        )
        pipeline(**arguments)


@contextlib.contextmanager
def _patched(at_once: int) -> Iterator[None]:
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
    """Replaces `python3` with this interpreter in the shell line, but not in the arguments."""
    end = next((i for i, part in enumerate(full_command) if PROGRAM in part), -1) + 1
    word = shlex.quote(interpreter)
    shell = [
        interpreter if part == "python3" else part.replace("python3", word)
        for part in full_command[:end]
    ]
    return shell + full_command[end:]


def log_to_stdout() -> None:
    """Sends kfp's log lines to standard output, where the tasks' lines go."""
    form = "%(asctime)s %(message)s"
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format=form, datefmt="%H:%M:%S")
