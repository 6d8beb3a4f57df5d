# SPDX-License-Identifier: Apache-2.0
"""`make schedule`: makes the recurring runs of a KFP match schedules.yaml.

KFP cannot change a recurring run, so a changed one is created again before the old one is deleted:
a failure in between leaves both, and the next `make schedule` deletes the old one. A run in
progress survives that (propagation policy ORPHAN). Our recurring runs have a marker in their
description, with a digest of everything that was sent; others are not touched.
"""

import functools
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from ieg_core.errors import require
from ieg_core.host.clock import CLOCK, Clock
from pipelines import cluster_files
from pipelines.cluster_files import ROOT, ClusterFile
from pipelines.scheduling.schedules import FILE, Schedule, read

MARKER = re.compile(r"\[ieg-schedule ([a-z0-9-]+) ([0-9a-f]{16})\]")
PAGE = 100


@dataclass(frozen=True)
class Wanted:
    """A desired recurring run: everything that is sent, and its digest."""

    schedule: Schedule
    package: Mapping[str, Any]
    service_account: str

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of a digest of everything that is sent."""
        sent = {
            "cron": self.schedule.cron,
            "arguments": self.schedule.arguments,
            "package": self.package,
            "service_account": self.service_account,
        }
        return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def description(self) -> str:
        """The text for the KFP UI, with our marker."""
        return (
            f"Scheduled reproduction, created by `make schedule` from {FILE}: change it there. "
            f"[ieg-schedule {self.schedule.name} {self.digest}]"
        )


@dataclass(frozen=True)
class Existing:
    """One of our recurring runs on the cluster."""

    id: str
    name: str
    digest: str
    enabled: bool
    cron: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Action:
    """One step toward the desired state.

    Attributes:
      verb: "create", "replace", "enable", "disable" or "delete".
      name: The schedule's name.
      why: The reason, for the user.
      ids: The recurring runs that it deletes, enables or disables.
      wanted: The recurring run that it creates.
    """

    verb: str
    name: str
    why: str
    ids: tuple[str, ...] = ()
    wanted: Wanted | None = None


def plan(wanted: Sequence[Wanted], existing: Sequence[Existing]) -> list[Action]:
    """Lists the actions that make the cluster match schedules.yaml.

    Args:
      wanted: The schedules of schedules.yaml.
      existing: Our recurring runs on the cluster.

    Returns:
      The actions; none if the cluster already matches.
    """
    actions = []
    for want in wanted:
        name = want.schedule.name
        same_name = [each for each in existing if each.name == name]
        same = sorted(
            (e for e in same_name if e.digest == want.digest), key=lambda e: not e.enabled
        )
        rest = tuple(each.id for each in same_name if each not in same[:1])
        if not same_name:
            actions.append(Action("create", name, "new", wanted=want))
        elif not same:
            actions.append(Action("replace", name, _difference(want, same_name[0]), rest, want))
        else:
            if not same[0].enabled:
                actions.append(Action("enable", name, "it was disabled", (same[0].id,)))
            if rest:
                actions.append(Action("delete", name, "left by an earlier change", rest))
    names = {want.schedule.name for want in wanted}
    for each in existing:
        if each.name not in names and each.enabled:
            actions.append(Action("disable", each.name, f"no longer in {FILE}", (each.id,)))
    return actions


def _difference(want: Wanted, old: Existing) -> str:
    """Describes what changed, as far as the cluster shows it."""
    new = want.schedule.arguments
    changed = sorted(
        key
        for key in {*new, *old.arguments}
        if _plain(new.get(key)) != _plain(old.arguments.get(key))
    )
    changed = (["cron"] if want.schedule.cron != old.cron else []) + changed
    return f"changed: {', '.join(changed) or 'the pipeline package or the service account'}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_int=float)


def compile_wanted(schedules: Iterable[Schedule], cluster_file: ClusterFile) -> list[Wanted]:
    """Compiles the package of each schedule, once per profile."""
    from pipelines import compile as packages

    profiles = {profile.name: profile for profile in packages.all_profiles(cluster_file)}
    compiled: dict[str, Mapping[str, Any]] = {}
    wanted = []
    for schedule in schedules:
        if schedule.profile not in compiled:
            profile = packages.require_cuda(profiles[schedule.profile])
            spec, platform = packages.package(profile)
            compiled[schedule.profile] = {"spec": spec, "platform": platform}
        package = compiled[schedule.profile]
        inputs = package["spec"]["root"]["inputDefinitions"]["parameters"]
        unknown = sorted(set(schedule.arguments) - set(inputs))
        require(not unknown, "parameters", unknown, "inputs of the compiled pipeline")
        wanted.append(Wanted(schedule, package, cluster_file.service_account))
    return wanted


def main(
    cluster_file: ClusterFile,
    *,
    only_plan: bool,
    path: Path = ROOT / FILE,
    rates: str = "",
    say: Callable[[str], None] = print,
    clock: Clock = CLOCK,
) -> int:
    """Runs `make schedule`: prints the actions, and carries them out unless `only_plan` is set.

    Args:
      cluster_file: The cluster file.
      only_plan: Whether to print the actions without carrying them out.
      path: schedules.yaml.
      rates: Known step rates, as in RATES.
      say: Prints a line.
      clock: Tells the time between two tries of a request.

    Returns:
      The exit code.

    Raises:
      UserError: When schedules.yaml is invalid, a schedule that would start costs more than its
        budget, or the cluster refuses.
    """
    from pipelines import profiles
    from pipelines.cluster import client as clients
    from pipelines.cluster import cost, submit
    from pipelines.scheduling import schedule_cost

    known = cost.read_rates(rates)
    schedules = read(path, cluster_file, max_trials=profiles.MAX_TRIALS)
    wanted = compile_wanted(schedules, cluster_file)
    client = clients.connect(cluster_file, clock=clock)
    experiment = submit.look_at_kfp(client, cluster_file, clock)
    look = functools.partial(list_existing, client, experiment)
    doing = "list the schedules"
    existing = clients.ask(cluster_file, doing, look, clock) if experiment else []
    actions = plan(wanted, existing)
    address = cluster_files.endpoint(cluster_file)
    say(
        f"{len(schedules)} in {path.name}, {len(existing)} of ours at {address}; "
        f"times are in {cluster_file.time_zone}"
    )
    known = {**submit.measured(cluster_file), **known}
    for line in schedule_cost.table(schedules, cluster_file, known):
        say(line)
    for action in actions:
        when = f"  {action.wanted.schedule.cron}" if action.wanted else ""
        say(f"  {action.verb:<8} {action.name}{when}  ({action.why})")
    if not actions:
        say("  nothing to do")
    started = {action.name for action in actions if action.verb in ("create", "replace", "enable")}
    for schedule in schedules:
        if schedule.name in started:
            schedule_cost.accept(schedule, cluster_file, known)
    if only_plan or not actions:
        return 0
    experiment = experiment or submit.create_experiment(client, cluster_file, clock)
    for action in actions:
        apply(client, cluster_file, experiment, action, clock)
        say(f"  done: {action.verb} {action.name}")
    return 0


def list_existing(client: Any, experiment: str) -> list[Existing]:
    """Lists the recurring runs of an experiment that have our marker, newest first."""
    existing, token = [], ""
    while True:
        answer = client.list_recurring_runs(
            page_token=token, page_size=PAGE, experiment_id=experiment, sort_by="created_at desc"
        )
        for each in answer.recurring_runs or []:
            marker = MARKER.search(each.description or "")
            if marker:
                schedule = each.trigger.cron_schedule if each.trigger else None
                config = each.runtime_config
                existing.append(
                    Existing(
                        id=each.recurring_run_id,
                        name=marker[1],
                        digest=marker[2],
                        enabled=str(each.status) == "ENABLED",
                        cron=schedule.cron if schedule else "",
                        arguments=(config.parameters if config else None) or {},
                    )
                )
        token = answer.next_page_token or ""
        if not token:
            return existing


def apply(
    client: Any,
    cluster_file: ClusterFile,
    experiment: str,
    action: Action,
    clock: Clock = CLOCK,
) -> None:
    """Carries out one action; a replacement is created before the old one is deleted.

    Args:
      client: KFP's client.
      cluster_file: The cluster.
      experiment: Id of the experiment of new schedules.
      action: What to do.
      clock: Tells the time between two tries of a request.

    Raises:
      UserError: When KFP refuses, or does not answer for two minutes.
    """
    from pipelines.cluster import client as clients

    doing = f"{action.verb} the schedule {action.name}"
    wanted = action.wanted
    if wanted is not None:

        def create() -> bool:
            _create(client, experiment, wanted)
            return True

        def find() -> bool | None:
            there = {(each.name, each.digest) for each in list_existing(client, experiment)}
            return (wanted.schedule.name, wanted.digest) in there or None

        clients.create(cluster_file, doing, create, find, clock)
    clients.ask(cluster_file, doing, functools.partial(_change, client, action), clock)


def _change(client: Any, action: Action) -> None:
    """Enables, disables or deletes the recurring runs of an action."""
    from kfp_server_api import ApiException

    for id_ in action.ids:
        if action.verb == "enable":
            client.enable_recurring_run(id_)
        elif action.verb == "disable":
            client.disable_recurring_run(id_)
        else:
            # kfp's method cannot set a policy, and the server's default, cascading deletion, would
            # end a run in progress.
            try:
                client._recurring_run_api.recurring_run_service_delete_recurring_run(
                    recurring_run_id=id_, propagation_policy="ORPHAN"
                )
            except ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:  # deleted by a try without an answer
                    raise


def _create(client: Any, experiment: str, wanted: Wanted) -> None:
    documents = [part for part in (wanted.package["spec"], wanted.package["platform"]) if part]
    with tempfile.TemporaryDirectory(prefix="ieg-schedule-") as folder:
        path = Path(folder) / "package.yaml"
        path.write_text(yaml.safe_dump_all(documents, sort_keys=True), encoding="utf-8")
        client.create_recurring_run(
            experiment_id=experiment,
            job_name=wanted.schedule.name,
            description=wanted.description,
            cron_expression=wanted.schedule.cron,
            max_concurrency=1,
            no_catchup=True,
            params=wanted.schedule.arguments,
            pipeline_package_path=str(path),
            enabled=True,
            service_account=wanted.service_account or None,
        )
