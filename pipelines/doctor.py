# SPDX-License-Identifier: Apache-2.0
"""`make doctor`: a small run that checks everything a sweep needs, one line per check.

On a cluster each check is a separate task, placed like the sweep's tasks: the GPU check like a
training, the others like small tasks. KFP's object store takes two: one stores an artifact, the
other fetches it. Findings are read from the results root; if this machine cannot read it, only the
tasks' states are known, and details are in the logs in the KFP UI.
"""

import contextlib
import io
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import urllib3
from google.protobuf import json_format
from kfp import dsl

from components.examine import examine
from components.fetch_artifact import fetch_artifact
from components.leave_artifact import leave_artifact
from ieg_core.errors import EXIT_FAILED, EXIT_OK, UserError
from ieg_core.experiment.dataset_spec import base_of
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.store import gcs
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.store.records import Finding
from ieg_core.tasks.examine import ARTIFACT, checks_for
from pipelines import checks as traps
from pipelines import cluster_files, profiles, variables
from pipelines.cluster_files import ClusterFile
from pipelines.local import runner as local
from pipelines.options import check_choice
from pipelines.profiles import Profile

SUCCEEDED, ENDED = "SUCCEEDED", ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
TIME_LIMIT = 900
PATIENCE_SECONDS = 1200.0
POLL_SECONDS = 5.0
LOOK_SECONDS = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The options of `make doctor`.

    Attributes:
      runner: "auto", "local" or "cluster".
      profile: "gpu" or "cpu", on a cluster.
      base: Base data set to open; "" for the profile's default.
      data_dir: Folder of the base data sets, on this machine.
      out: The results root, on this machine.
    """

    runner: str = "auto"
    profile: str = "gpu"
    base: str = ""
    data_dir: str = "data"
    out: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        check_choice(variables.RUNNER, self.runner)
        check_choice(variables.PROFILE, self.profile)


def build(profile: Profile, checks: Sequence[str]) -> Any:
    """Builds the pipeline: one independent task per check, two for the artifact.

    Args:
      profile: The profile.
      checks: Names of checks of `ieg_core.tasks.examine`; `ARTIFACT`, if present, is last.

    Returns:
      The pipeline.
    """
    quick = _without_retries(profile)

    @dsl.pipeline(name="doctor", description="Checks what a sweep needs, one task per check.")
    def doctor(
        base: str = base_of(profile.dataset),
        data_dir: str = profile.data_dir,
        results: str = profile.results,
        require_gpu: bool = profile.accelerator,
        run: str = "by-hand",
    ) -> None:
        """Checks what a sweep needs.

        Args:
          base: Base data set to open.
          data_dir: Folder of the base data sets, as the pods see it.
          results: Results root, a folder as the pods see it, or gs://bucket/prefix.
          require_gpu: Whether there must be a GPU.
          run: Name of this run, under which the results root stores its findings.
        """
        for check in checks:
            if check == ARTIFACT:
                left = leave_artifact(run=run)
                profiles.place(left, "small", quick)
                task = fetch_artifact(note=left.outputs["note"], results=results, run=run)
            else:
                task = examine(
                    check=check,
                    base=base,
                    data_dir=data_dir,
                    results=results,
                    require_gpu=require_gpu,
                    run=run,
                )
            if profile.pod_templates:
                task.set_display_name(check)
            profiles.place(task, "train" if check == "gpu" else "small", quick)

    return doctor


def _without_retries(profile: Profile) -> Profile:
    quick = {
        kind: replace(each, retries=0, grace=0, time_limit=min(each.time_limit, TIME_LIMIT))
        for kind, each in profile.pod_templates.items()
    }
    return replace(profile, pod_templates=quick)


def main(cluster_file: ClusterFile, options: Options, say: Say = print) -> int:
    """Runs `make doctor`.

    Without an endpoint it checks this machine, unless RUNNER says otherwise.

    Returns:
      The exit code: 0, or 1 if a check failed.

    Raises:
      UserError: When the cluster cannot be reached or refuses the run.
    """
    configured = cluster_files.endpoint_configured(cluster_file)
    if options.runner == "cluster" or (options.runner == "auto" and configured):
        return on_cluster(cluster_file, options, say)
    why = "" if options.runner == "local" else "; for a cluster set endpoint in cluster.yaml"
    say(f"Examining this machine, results in {options.out}{why}")
    return here(options, say)


def here(options: Options, say: Say) -> int:
    """Runs each check on this machine with kfp.local."""
    run = _name()
    base = options.base or base_of(profiles.LOCAL.dataset)
    arguments = {"base": base, "data_dir": options.data_dir, "results": options.out}
    arguments["run"] = run
    findings = []
    with tempfile.TemporaryDirectory(prefix="ieg-doctor-", ignore_cleanup_errors=True) as scratch:
        for check in checks_for(options.out, require_gpu=True):
            output = _run_quietly(check, arguments, Path(scratch) / check)
            findings.append(_read(options.out, run, check) or _parse(output, check))
            say(f"  {findings[-1].line}")
    if gcs.is_url(options.out):
        names = [Finding.name(run, finding.check) for finding in findings]
        with contextlib.suppress(UserError):
            gcs.delete(options.out, names)
    else:
        folder = Path(options.out) / Finding.FOLDER
        shutil.rmtree(folder / run, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
    return _conclude(findings, say)


def _run_quietly(check: str, arguments: Mapping[str, str], scratch: Path) -> str:
    """Runs one check with kfp.local and returns everything that it printed."""
    output = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(output):
            local.run(build(profiles.LOCAL, [check]), arguments, scratch=scratch, at_once=1)
    except RuntimeError as error:
        output.write(f"\n{error}")
    finally:
        logging.disable(logging.NOTSET)
    return output.getvalue()


def _parse(output: str, check: str) -> Finding:
    """Reads the finding that a check printed but could not write to the results root."""
    lines = output.strip().splitlines() or ["no output"]
    for line in reversed(lines):
        for ok, word in ((True, "ok  "), (False, "FAIL")):
            _, separator, text = line.partition(f"{word} {check}: ")
            if separator:
                return Finding(check, ok, text)
    return Finding(check, False, lines[-1])


def on_cluster(
    cluster_file: ClusterFile,
    options: Options,
    say: Say,
    clock: Clock = CLOCK,
) -> int:
    """Submits the run and prints each check's finding as it ends.

    Args:
      cluster_file: The cluster.
      options: What to check.
      say: Prints a line.
      clock: Tells the time between two looks.

    Returns:
      The exit code: 0, or 1 if a check failed.

    Raises:
      UserError: When the cluster refuses, or does not answer.
    """
    from pipelines import compile as packages
    from pipelines.cluster import client as clients
    from pipelines.cluster import follow

    (profile,) = [p for p in packages.all_profiles(cluster_file) if p.name == options.profile]
    packages.require_cuda(profile)
    wanted = [*checks_for(cluster_file.results, profile.accelerator), ARTIFACT]
    base = options.base or base_of(profile.dataset)
    pipeline = build(profile, wanted)
    traps.require_sound(traps.compiled(pipeline), traps.ALL)
    client = clients.connect(cluster_file, clock=clock)
    run = _name()
    run_id = _submit(client, cluster_file, pipeline, {"base": base, "run": run}, run, clock)
    say(
        f"Examining {cluster_files.endpoint(cluster_file)}, profile {profile.name}, image "
        f"{profile.image}"
    )
    say(f"  {clients.run_link(cluster_file, run_id)}")
    findings: dict[str, Finding] = {}
    began = looked = clock.monotonic()
    waits = ""
    while True:
        doing = "follow the doctor's run"
        answer = clients.ask(cluster_file, doing, lambda: client.get_run(run_id), clock)
        state, tasks = _states(answer)
        for position, check in enumerate(wanted):
            task_state = tasks.get(check) or tasks.get(_task_name(check, position), "")
            if check not in findings and (task_state in ENDED or state in ENDED):
                findings[check] = _finding(cluster_file, run, check, task_state)
                say(f"  {findings[check].line}")
        if len(findings) == len(wanted):
            return _conclude([findings[check] for check in wanted], say)
        now = clock.monotonic()
        if now - looked > LOOK_SECONDS:
            looked, before, waits = now, waits, _why_pods_wait(cluster_file, run_id)
            if waits and waits != before:
                say(f"  waiting: {waits}")
        if now - began > PATIENCE_SECONDS:
            break
        clock.sleep(POLL_SECONDS)
    follow.cancel(client, cluster_file, run_id, clock)
    for check in (check for check in wanted if check not in findings):
        why = waits or "no node that fits, a quota, or an image that cannot be pulled: see its page"
        text = (
            f"did not end within {PATIENCE_SECONDS / 60:.0f} minutes, the run was canceled; {why}"
        )
        findings[check] = Finding(check, False, text)
        say(f"  {findings[check].line}")
    return _conclude([findings[check] for check in wanted], say)


def _why_pods_wait(cluster_file: ClusterFile, run_id: str) -> str:
    """Explains why pods of the run wait; "" if this machine cannot see them."""
    from pipelines.cluster import preflight, waiting

    kubernetes = preflight.reach(cluster_file)
    if kubernetes is None:
        return ""
    try:
        pods = waiting.look(kubernetes, cluster_file.kubernetes_namespace, [run_id])
    except (urllib3.exceptions.HTTPError, OSError):
        return ""
    return "; ".join(dict.fromkeys(pods.waiting.values()))


def _submit(
    client: Any,
    cluster_file: ClusterFile,
    pipeline: Any,
    arguments: Mapping[str, Any],
    name: str,
    clock: Clock,
) -> str:
    from pipelines.cluster import submit

    experiment = submit.look_at_kfp(client, cluster_file, clock)
    experiment = experiment or submit.create_experiment(client, cluster_file, clock)
    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    body = {"pipeline_spec": submit.whole(spec, json_format.MessageToDict(pipeline.platform_spec))}
    return submit.create_run(client, cluster_file, experiment, name, arguments, body, clock).run_id


def _states(run: Any) -> tuple[str, dict[str, str]]:
    """Returns the state of a run, and those of its tasks by name."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return str(run.state), {str(each.display_name): str(each.state) for each in details}


def _task_name(check: str, position: int) -> str:
    """Returns KFP's name for a check's task: it numbers tasks of the same component."""
    if check == ARTIFACT:
        return "fetch-artifact"
    return "examine" if position == 0 else f"examine-{position + 1}"


def _finding(cluster_file: ClusterFile, run: str, check: str, state: str) -> Finding:
    root = cluster_file.results if gcs.is_url(cluster_file.results) else cluster_file.results_mount
    record = _read(root, run, check) if root else None
    if record:
        return record
    unread = "the results root cannot be read from here" if not root else "it wrote no finding"
    if state == SUCCEEDED:
        return Finding(check, True, f"succeeded ({unread})")
    return Finding(check, False, f"{(state or 'did not start').lower()} ({unread}): see its log")


def _read(root: str, run: str, check: str) -> Finding | None:
    return Finding.look(root, run, check)[0]


def _conclude(findings: Sequence[Finding], say: Say) -> int:
    failed = [finding.check for finding in findings if not finding.ok]
    say(f"{len(findings) - len(failed)} of {len(findings)} checks passed"
        + (f"; failed: {', '.join(failed)}" if failed else ""))  # fmt: skip
    return EXIT_FAILED if failed else EXIT_OK


def _name() -> str:
    return f"doctor-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
