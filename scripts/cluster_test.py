# SPDX-License-Identifier: Apache-2.0
"""`make cluster-test`: the acceptance of an installation of KFP, written to cluster-test.md.

Each check does what a user does and checks the outcome; its row names what was done, what was
seen, and how long it took. The next checks run even if one fails. All results go to a separate
namespace, which is removed at the end or after Ctrl-C, as are the runs and schedules.

The checks need an endpoint, a kubeconfig that may list and delete pods, and a results root that
this machine can read (`results_mount`, or gs://). A row names what is missing.
"""

import contextlib
import dataclasses
import datetime
import io
import json
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from ieg_core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UserError
from ieg_core.host.clock import CLOCK, Clock
from ieg_core.host.program import Parser, program
from ieg_core.store import gcs, mirror
from ieg_core.store.layout import (
    CHECKPOINTS,
    REPORT_PAGE,
    SCHEDULED,
    relative_report,
    relative_sweep,
    relative_trial,
)
from ieg_core.store.record import below
from ieg_core.store.records import Finding, ReportRecord
from ieg_core.sweep.progress import FINISHED, TrialProgress
from ieg_core.sweep.request import SweepRequest
from pipelines import cluster_files, doctor
from pipelines.cluster import client as clients
from pipelines.cluster import follow, preflight, resume, submit, waiting
from pipelines.cluster.options import Order
from pipelines.cluster.run_root import Root, root_of, seen_here
from pipelines.cluster.submit import Run
from pipelines.cluster_files import ClusterFile, Resources
from pipelines.profiles import MAX_TRIALS
from pipelines.scheduling import recurring, schedules
from scripts.image_test import read_checkpoint

T = TypeVar("T")
NAMESPACE = "cluster-test"
PAGE = Path("cluster-test.md")
SHORT = 60
LONG = {"cpu": 4000, "gpu": 60_000}
"""Steps of a training that is disturbed on its way: a minute or more, by profile."""
CHECKPOINT_MINUTES = 0.1
"""A disturbed training must go on from a checkpoint, not from its start."""
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 1800.0
SUCCEEDED = "SUCCEEDED"
SMALL_MEMORY = "600Mi"
"""Enough to start Python, too little to train."""


class CheckFailedError(Exception):
    """A check saw something else than it should."""


@dataclass(frozen=True)
class Row:
    """The outcome of a check.

    Attributes:
      check: Its name.
      done: What was done.
      seen: What was seen.
      seconds: Its duration.
      passed: Whether that is what should be seen.
    """

    check: str
    done: str
    seen: str
    seconds: float
    passed: bool


@dataclass
class Bench:
    """An installation under test, and what the test made there.

    Attributes:
      cluster_file: The cluster file.
      profile: "gpu" or "cpu".
      client: KFP's client.
      kubernetes: Access to the Kubernetes API, or None.
      out: Folder of this machine for fetched reports.
      clock: Tells the time.
      name: Unique name of this test, part of its results namespaces.
      runs: The runs that it created.
      reported: The run of the sweep that was watched to its end; None before.
      recurring: The ids of its recurring runs.
      places: Folders of the results root that it filled, besides its namespace.
    """

    cluster_file: ClusterFile
    profile: str
    client: Any
    kubernetes: preflight.Kubernetes | None
    out: Path
    clock: Clock = CLOCK
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    runs: list[Run] = field(default_factory=list)
    reported: Run | None = None
    recurring: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def submit(self, part: str, cluster_file: ClusterFile | None = None, **request: Any) -> Run:
        """Submits a small sweep into a results namespace of its own."""
        target = cluster_file or self.cluster_file
        order = Order(
            request=SweepRequest(
                dataset="digits_uniform",
                accelerator=self.profile == "gpu",
                data_dir=target.data_dir,
                results=target.results,
                **{"noise_ratios": (0.4,), "methods": ("supervised",), "steps": SHORT} | request,
            ),
            cluster_file=target,
            profile=self.profile,
            max_gpu_hours=target.max_gpu_hours,
            rates={},
            results_namespace=f"{NAMESPACE}/{self.name}/{part}",
        )
        (run,) = submit.submit(order, _ignore)
        self.runs.append(run)
        return run

    def submit_long(self, part: str) -> Run:
        """Submits a training that takes long enough to be disturbed."""
        target = dataclasses.replace(self.cluster_file, checkpoint_minutes=CHECKPOINT_MINUTES)
        return self.submit(part, target, steps=LONG[self.profile])

    def root(self, run: Run) -> Root:
        """Returns the place of a run's results.

        Raises:
          CheckFailedError: When this machine cannot read it.
        """
        found = root_of(self.cluster_file, self.client.get_run(run.run_id))
        if found is None:
            raise CheckFailedError("not checked: results_mount in the cluster file is empty")
        return found

    def follow(self, run: Run) -> tuple[int, str]:
        """Follows a run to its end as WATCH=1 does; returns the exit code and what it printed.

        A run of which no pod starts in half an hour is canceled.
        """
        stream = io.StringIO()
        code = follow.follow(
            *(self.cluster_file, [run]),
            max_pending=PATIENCE_SECONDS / 60,
            out=self.out,
            stream=stream,
            clock=self.clock,
        )
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return code, stream.getvalue()

    def wait(self, what: str, look: Callable[[], T | None]) -> T:
        """Waits until something is seen.

        Raises:
          CheckFailedError: When it is not seen in half an hour.
        """
        limit = self.clock.monotonic() + PATIENCE_SECONDS
        while self.clock.monotonic() < limit:
            if (seen := look()) is not None:
                return seen
            self.clock.sleep(POLL_SECONDS)
        raise CheckFailedError(f"waited {PATIENCE_SECONDS / 60:.0f} minutes for {what}")

    def wait_until_training(self, run: Run) -> TrialProgress:
        """Waits until a trial of a run is in training and has a checkpoint."""
        root = self.root(run)

        def look() -> TrialProgress | None:
            trials, _ = root.progress(0.0, self.clock.now())
            ready = (t for t in trials if t.is_running and _has_checkpoint(root.place, t.trial))
            return next(ready, None)

        return self.wait("a first checkpoint", look)

    @property
    def core(self) -> Any:
        """The Kubernetes API.

        Raises:
          CheckFailedError: When there is no access to it.
        """
        if self.kubernetes is None:
            raise CheckFailedError("not checked: no access to the Kubernetes API (kubeconfig)")
        return self.kubernetes.core

    def pods(self, run: Run) -> list[Any]:
        """Lists the pods of a run."""
        listed = self.core.list_namespaced_pod(
            self.cluster_file.kubernetes_namespace,
            label_selector=f"{waiting.RUN_LABEL}={run.run_id}",
            _request_timeout=preflight.REQUEST_SECONDS,
        )
        return list(listed.items)

    def report(self, run: Run) -> list[Mapping[str, Any]]:
        """Returns the rows of a run's report."""
        root = self.root(run)
        root.progress(0.0, self.clock.now())
        place = below(root.place, relative_sweep(root.sweep))
        record = ReportRecord.look(place)[0]
        if record is None:
            raise CheckFailedError(f"no report below {place}")
        return list(record.trials)


def check_doctor(bench: Bench) -> str:
    """Lets `make doctor` look."""
    lines: list[str] = []
    options = doctor.Options(runner="cluster", profile=bench.profile)
    code = doctor.on_cluster(bench.cluster_file, options, lines.append, clock=bench.clock)
    (run_id,) = re.findall(r"#/runs/details/(\S+)", "\n".join(lines))
    run = Run(run_id, str(bench.client.get_run(run_id).display_name))
    bench.runs.append(run)
    bench.places.append(f"{Finding.FOLDER}/{run.label}")
    failed = "; ".join(line.strip() for line in lines if "FAIL" in line)
    _require(code == 0, failed or lines[-1])
    return lines[-1]


def check_sweep(bench: Bench) -> str:
    """Watches a sweep of six trials to its end."""
    run = bench.submit(
        "sweep", noise_ratios=(0.4, 0.8), methods=("supervised", "mixup", "l2r"), seeds=(0,)
    )
    code, said = bench.follow(run)
    _require(code == 0, _why(said))
    rows = bench.report(run)
    finished = sum(row["status"] == FINISHED for row in rows)
    _require(finished == len(rows) == 6, f"{finished} of {len(rows)} trials finished, expected 6")
    bench.reported = run
    return f"6 of 6 trials finished; {said.strip().splitlines()[-1]}"


def check_lost_pod(bench: Bench) -> str:
    """Deletes a pod in training; the trial must end equal to an undisturbed one, bit for bit."""
    undisturbed = bench.submit_long("undisturbed")
    disturbed = bench.submit_long("disturbed")
    training = bench.wait_until_training(disturbed)
    pods = [
        pod
        for pod in bench.pods(disturbed)
        if training.trial in waiting.trials_of(pod) and pod.status.phase == "Running"
    ]
    _require(bool(pods), f"no running pod of {training.trial}")
    pod = pods[0].metadata
    bench.core.delete_namespaced_pod(pod.name, pod.namespace)
    for run in (disturbed, undisturbed):
        code, said = bench.follow(run)
        _require(code == 0, _why(said))
    checkpoints = [_checkpoint(bench, run, training.trial) for run in (disturbed, undisturbed)]
    (step, tensors), (_, others) = checkpoints
    different = sum(others.get(name) != digest for name, digest in tensors.items())
    _require(checkpoints[0] == checkpoints[1], f"{different} of {len(tensors)} tensors differ")
    return (
        f"pod {pod.name} deleted at step {training.step}; at step {step} all {len(tensors)} "
        "tensors equal an undisturbed run's"
    )


def check_memory(bench: Bench) -> str:
    """Gives a training too little memory; the run must fail after its own report.

    The report in the results root does not show that: `follow` writes one that is missing.
    """
    resources = bench.cluster_file.resources
    small = Resources("500m", resources.train.cpu_limit, SMALL_MEMORY, SMALL_MEMORY)
    tight = dataclasses.replace(
        bench.cluster_file, resources=dataclasses.replace(resources, train=small)
    )
    run = bench.submit("memory", tight)
    code, _ = bench.follow(run)
    _require(code != 0, "the run succeeded, although its training cannot fit")
    (row,) = bench.report(run)
    _require("out of memory" in str(row["reason"]), f"the trial's reason is {row['reason']!r}")
    uri, page = _fetch_page(bench, run)
    _require(b"out of memory" in page, f"{uri} does not name the trial's reason")
    return f"the page of the run's own report says: {row['reason']}"


def check_resume(bench: Bench) -> str:
    """Terminates a run in training and resumes it."""
    run = bench.submit_long("resume")
    training = bench.wait_until_training(run)
    follow.cancel(bench.client, bench.cluster_file, run.run_id, bench.clock)
    code, _ = bench.follow(run)
    _require(code != 0, "the terminated run succeeded")
    (again,) = resume.resume(bench.cluster_file, run.label, _ignore)
    bench.runs.append(again)
    code, said = bench.follow(again)
    _require(code == 0, _why(said))
    (row,) = bench.report(again)
    _require(row["status"] == FINISHED, f"the trial is {row['status']}: {row['reason']}")
    return f"terminated at step {training.step}, resumed to step {row['steps']}"


def check_schedule(bench: Bench) -> str:
    """Schedules a run a minute ahead and waits for its verdict."""
    zone = ZoneInfo(bench.cluster_file.time_zone)
    soon = datetime.datetime.fromtimestamp(bench.clock.now() + 90, zone)
    name = f"{NAMESPACE}-{bench.name}"
    text = json.dumps(
        {
            "schedules": [
                {
                    "name": name,
                    "cron": f"{soon.second} {soon.minute} {soon.hour} {soon.day} {soon.month} *",
                    "dataset": "digits_uniform",
                    "noise_ratios": [0.4],
                    "methods": ["supervised"],
                    "seeds": [0],
                    "steps": SHORT,
                    "tolerance": 100,
                    "profile": bench.profile,
                }
            ]
        }
    )
    path = bench.out / "schedules.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    wanted = recurring.compile_wanted(
        schedules.read(path, bench.cluster_file, max_trials=MAX_TRIALS), bench.cluster_file
    )
    experiment = submit.look_at_kfp(bench.client, bench.cluster_file)
    with clients.plain_errors(bench.cluster_file, "create a schedule"):
        recurring.apply(
            bench.client,
            bench.cluster_file,
            experiment,
            recurring.Action("create", name, "", (), *wanted),
        )
        (made,) = [
            each.id
            for each in recurring.list_existing(bench.client, experiment)
            if each.name == name
        ]
    bench.recurring.append(made)
    bench.places.append(f"{SCHEDULED}/{name}")

    def look() -> Run | None:
        listed = bench.client.list_runs(
            page_size=50,
            sort_by="created_at desc",
            experiment_id=experiment,
            namespace=bench.cluster_file.namespace or None,
        )
        ids = [each.run_id for each in listed.runs or [] if each.recurring_run_id == made]
        return Run(ids[0], "") if ids else None

    run = bench.wait("the scheduled run", look)
    bench.runs.append(run)
    code, said = bench.follow(run)
    _require(code == 0, _why(said))
    return f"{soon:%H:%M:%S %Z}: run {run.run_id} {SUCCEEDED}, verdict passed"


def check_artifacts(bench: Bench) -> str:
    """Fetches the report's page back as the KFP UI does."""
    run = bench.reported
    if run is None:
        raise CheckFailedError("not checked: the sweep has no report")
    uri, fetched = _fetch_page(bench, run)
    root = bench.root(run)
    root.progress(0.0, bench.clock.now())
    folder = bench.out / "artifacts"
    files = mirror.fetch(root.place, relative_report(root.sweep), folder)
    (page,) = [path.read_bytes() for path in files if path.name == REPORT_PAGE]
    _require(fetched == page, f"{uri} is not the page in the results root")
    return f"{len(page)} bytes of {uri}, equal to {REPORT_PAGE}"


Check = tuple[str, str, Callable[[Bench], str]]
"""A name, what is done, and the function that returns what was seen."""

CHECKS: Sequence[Check] = (
    ("doctor", "`make doctor`", check_doctor),
    ("sweep", "a sweep of six trials, watched to its end", check_sweep),
    ("artifacts", "fetched the report's page as the UI does", check_artifacts),
    ("lost pod", "deleted a pod in training", check_lost_pod),
    ("memory", f"a training with {SMALL_MEMORY} of memory", check_memory),
    ("resume", "terminated a run in training, then RESUME", check_resume),
    ("schedule", "a schedule a minute ahead", check_schedule),
)


def accept(
    bench: Bench,
    say: Callable[[str], None],
    checks: Sequence[Check] = CHECKS,
    keep: Callable[[Sequence[Row]], object] = lambda rows: None,
) -> list[Row]:
    """Runs every check, then removes what they made, even if the user interrupts them.

    Args:
      bench: The installation.
      say: Prints a line.
      checks: The checks.
      keep: Stores the rows so far, after each check.

    Returns:
      A row for each check, the clean-up last.
    """
    rows: list[Row] = []

    def run(name: str, done: str, check: Callable[[Bench], str]) -> None:
        began = bench.clock.monotonic()
        try:
            seen, passed = check(bench), True
        except (CheckFailedError, UserError) as error:
            seen, passed = str(error), False
        except Exception as error:
            seen, passed = f"{type(error).__name__}: {' '.join(str(error).split())}", False
        rows.append(Row(name, done, seen, bench.clock.monotonic() - began, passed))
        say(f"  {'ok  ' if passed else 'FAIL'} {name}: {seen}")
        keep(rows)

    try:
        for each in checks:
            run(*each)
    finally:
        run("clean-up", "removed all of that", clean_up)
    return rows


def clean_up(bench: Bench) -> str:
    """Removes the runs, schedules and results of this test; says what is left."""
    left = []
    for id_ in bench.recurring:
        with contextlib.suppress(Exception):
            bench.client.delete_recurring_run(id_)
            continue
        left.append(f"recurring run {id_}")
    for run in bench.runs:
        with contextlib.suppress(Exception):
            bench.client.delete_run(run.run_id)
            continue
        left.append(f"run {run.run_id}")
    results = seen_here(bench.cluster_file, bench.cluster_file.results)
    places = [f"{NAMESPACE}/{bench.name}", *bench.places]
    for place in places if results else ():
        if gcs.is_url(results):
            gcs.delete(results, [f"{place}/{n}" for n in gcs.list_files(gcs.join(results, place))])
        else:
            shutil.rmtree(Path(results) / place, ignore_errors=True)
    if not results:
        left += [f"{bench.cluster_file.results}/{place}" for place in places]
    _require(not left, f"left: {', '.join(left)}")
    return f"{len(bench.runs)} runs, {len(bench.recurring)} schedules and their results removed"


def as_markdown(rows: Sequence[Row], bench: Bench) -> str:
    """Returns cluster-test.md: one row a check."""
    passed, wanted = sum(row.passed for row in rows), len(CHECKS) + 1
    when = datetime.datetime.fromtimestamp(bench.clock.now(), datetime.UTC)
    place = f"{cluster_files.endpoint(bench.cluster_file)}, profile {bench.profile}"
    lines = [
        "# Cluster test",
        "",
        f"{place}, {when:%Y-%m-%d %H:%M} UTC: {passed} of {wanted} checks passed.",
        "",
        "| check | what was done | what was seen | seconds | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        seen = row.seen.replace("|", "\\|")
        verdict = "passed" if row.passed else "**failed**"
        lines.append(f"| {row.check} | {row.done} | {seen} | {row.seconds:.0f} | {verdict} |")
    return "\n".join(lines) + "\n"


@program("cluster-test")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `make cluster-test`; returns the exit code."""
    options = Parser(description=__doc__, allow_abbrev=False)
    options.add_argument("--cluster", default="", help="cluster file")
    options.add_argument("--profile", default="gpu", choices=("gpu", "cpu"))
    arguments = options.parse_args(argv)
    cluster_file = cluster_files.load(arguments.cluster or None)
    bench = Bench(
        cluster_file=cluster_file,
        profile=arguments.profile,
        client=clients.connect(cluster_file),
        kubernetes=preflight.reach(cluster_file),
        out=Path("build") / "cluster-test",
    )
    print(f"Testing {cluster_files.endpoint(cluster_file)}: about an hour", flush=True)
    rows = accept(
        bench,
        lambda line: print(line, flush=True),
        keep=lambda rows: PAGE.write_text(as_markdown(rows, bench), encoding="utf-8"),
    )
    print(f"Written to {PAGE}")
    return EXIT_OK if all(row.passed for row in rows) else EXIT_FAILED


def _has_checkpoint(root: str, trial: str) -> bool:
    place = str(below(root, f"{relative_trial(trial)}/{CHECKPOINTS}"))
    if gcs.is_url(place):
        return bool(gcs.list_files(place))
    return any(Path(place).glob("[!.]*"))


def _checkpoint(bench: Bench, run: Run, trial: str) -> tuple[int, dict[str, str]]:
    root = bench.root(run)
    folder = bench.out / run.run_id
    files = mirror.fetch(root.place, f"{relative_trial(trial)}/{CHECKPOINTS}", folder / CHECKPOINTS)
    local = files[0].parent.parent if files else folder
    return read_checkpoint(local)


def _fetch_page(bench: Bench, run: Run) -> tuple[str, bytes]:
    """Fetches the page that a run's report task has stored, as the KFP UI does."""
    uris = [uri for pod in bench.pods(run) for uri in _artifact_uris(pod, "page")]
    _require(bool(uris), "the run has no pod of its report, which names its page")
    scheme, bucket, key = re.fullmatch(r"(\w+)://([^/]+)/(.+)", uris[0]).groups()  # type: ignore[union-attr]
    query = urlencode(
        {
            "source": {"gs": "gcs"}.get(scheme, scheme),
            "namespace": bench.cluster_file.kubernetes_namespace,
            "bucket": bucket,
            "key": key,
        }
    )
    address = f"{clients.ui_address(bench.cluster_file)}/artifacts/get?{query}"
    with clients.connections(bench.cluster_file, address) as pool:
        answer = pool.request("GET", address, headers=clients.headers(bench.cluster_file))
    _require(answer.status == 200, f"HTTP {answer.status} for {uris[0]}")
    return uris[0], answer.data


def _artifact_uris(pod: Any, name: str) -> list[str]:
    """Returns the addresses of an output artifact, from the executor input in a pod's command."""
    for container in pod.spec.containers or []:
        words = [*(container.command or []), *(container.args or [])]
        if "--executor_input" in words:
            given = json.loads(words[words.index("--executor_input") + 1])
            outputs = given.get("outputs", {}).get("artifacts", {}).get(name, {})
            return [each["uri"] for each in outputs.get("artifacts", [])]
    return []


def _require(holds: bool, seen: str) -> None:
    if not holds:
        raise CheckFailedError(seen)


def _why(said: str) -> str:
    """Returns the line of a followed run that says best why it failed."""
    lines = said.strip().splitlines()
    telling = (line for line in lines if line.startswith(("Canceled: ", "failed: ")))
    return next(telling, lines[-1])


def _ignore(line: str) -> None:
    """Drops what a submission prints: a check says what it saw."""


if __name__ == "__main__":
    sys.exit(main())
