# SPDX-License-Identifier: Apache-2.0
"""Submits and follows sweeps, and keeps results in a bucket, while the services fail at random.

    python -m scripts.chaos_services [--tries 200] [--seed 0] [kfp | bucket]

The services are the stand-ins of the tests: KFP's API, and an emulator of Google Cloud Storage.
They answer with 429, 500, 502, 503 and 504, with a Retry-After of seconds or an hour, and with web
pages; they break connections before or after a request is carried out, or carry it
out half a minute after the connection broke; tokens expire while a run is followed. Each try draws
how often, and whether there is an outage. The clock is advanced, not waited for.

A try with KFP submits a sweep of one or two parts and follows it. It survives if

* each part has one run, or fewer if the submission says in one line that it gave up,
* after that, `RESUME` submits what is missing, and no more,
* the run is followed to its end, or given up in one line after ten minutes without an answer,
* no request is repeated for longer than its limit.

A try with the bucket leases a trial, uploads its files three times, and reads them back as the next
pod does. It survives if only errors of one line leave each step, and if the files are complete and
the trial was leased once as soon as the bucket answers again.
"""

import contextlib
import io
import logging
import os
import random
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from ieg_core.errors import UserError
from ieg_core.host.program import Parser, program
from ieg_core.store import gcs, leases, trial_copy
from ieg_core.store.layout import LOG, TRIALS, checkpoint_name
from ieg_core.store.records import LeaseRecord, ProgressRecord, TrainingRecord
from ieg_core.sweep.request import SweepRequest
from pipelines import compile as packages
from pipelines.cluster import client as clients
from pipelines.cluster import follow, resume, submit
from pipelines.cluster.options import Order
from pipelines.cluster.repeated_requests import LIMIT_SECONDS, SETTLE_SECONDS
from pipelines.cluster.submit import Run
from pipelines.cluster_files import ClusterFile
from pipelines.profiles import Profile
from tests import gcs as bucket
from tests.clock import FakeClock
from tests.pipelines.stubs.contract import Fault, Request
from tests.pipelines.stubs.kfp_api import KfpApi, kfp_api

IMAGE: Final = "registry.example.org/ieg-python:1a2b3c"
SEVERITIES: Final = (0.02, 0.1, 0.3, 0.6)
OUTAGES: Final = (0.0, 0.0, 40.0, 150.0, 500.0, 2000.0)
BROKEN: Final = (
    *(Fault(status=status) for status in (500, 502, 503, 504)),
    Fault(status=429),
    Fault(status=429, retry_after="3"),
    Fault(status=503, retry_after="3600"),
    Fault(status=502, body="<html>Bad Gateway</html>", content_type="text/html"),
    Fault(breaks="before"),
    Fault(breaks="after"),
)
METHODS: Final = ("supervised", "l2r", "fsr", "ieg", "mixup", "probe_only")


@dataclass
class Weather:
    """Faults drawn from a seed.

    Attributes:
      rng: Draws them.
      severity: Probability of a fault.
      fair: Number of requests before the outage.
      outage: Seconds for which then every request fails.
      clock: The clock.
      outage_ends: When the outage ends, once it has begun.
    """

    rng: random.Random
    severity: float
    fair: int
    outage: float
    clock: FakeClock
    outage_ends: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random, clock: FakeClock) -> "Weather":
        """Draws how often requests fail, and when and how long all do."""
        return cls(rng, rng.choice(SEVERITIES), rng.randint(0, 12), rng.choice(OUTAGES), clock)

    def strikes(self) -> bool:
        """Returns whether the next request fails."""
        self.fair -= 1
        if self.fair == 0:
            self.outage_ends = self.clock.time + self.outage
        return self.clock.time < self.outage_ends or self.rng.random() < self.severity

    def kfp(self, request: Request) -> Fault | None:
        """Returns the fault of a request to KFP."""
        if not self.strikes():
            return None
        is_new = request.method == "POST" and not request.path.endswith(":terminate")
        if is_new and self.rng.random() < 0.3:
            return Fault(breaks="later", late=self.rng.uniform(0.0, SETTLE_SECONDS - 2))
        return self.rng.choice(BROKEN)

    def store(self, method: str, path: str) -> HTTPStatus | str | None:
        """Returns the fault of a request to the bucket."""
        statuses = (429, 500, 502, 503, 504)
        faults = (bucket.BEFORE, bucket.AFTER, *(HTTPStatus(status) for status in statuses))
        return self.rng.choice(faults) if self.strikes() else None


class _LostError(Exception):
    """A try did not survive."""


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _LostError(problem)


def _one_line(error: UserError) -> None:
    _require("\n" not in str(error), f"more than one line: {str(error)[:200]!r}")


def try_kfp(seed: int, token: Path) -> str:
    """Submits and follows a sweep in bad weather.

    Args:
      seed: Decides the weather.
      token: A file to write the login to.

    Returns:
      What went wrong; "" if nothing did.
    """
    rng, clock = random.Random(seed), FakeClock()
    token.write_text("first", encoding="utf-8")
    with kfp_api(token="first", now=lambda: clock.time) as stub:
        cluster_file = ClusterFile(endpoint=stub.url, image=IMAGE, token_file=str(token))
        try:
            runs = _submit(stub, cluster_file, rng, clock)
            if runs:
                _follow(stub, cluster_file, runs, rng, clock, token)
        except (_LostError, UserError) as error:
            return f"seed {seed}: {error}"
        except Exception as error:
            return f"seed {seed}: {type(error).__name__}: {error}"
    return ""


def _submit(
    stub: KfpApi, cluster_file: ClusterFile, rng: random.Random, clock: FakeClock
) -> list[Run]:
    """Submits a sweep of one or two parts, and what is missing of it after a failure."""
    parts = rng.choice((1, 2))
    noise = tuple(number / 20 for number in range(17 if parts == 2 else 1))
    request = SweepRequest("digits_uniform", noise, METHODS, accelerator=True)
    order = Order(request, cluster_file, "gpu", 24.0, {})
    stub.weather, began, runs = Weather.draw(rng, clock).kfp, clock.time, []
    try:
        runs = submit.submit(order, lambda line: None, clock)
        _require(len(stub.runs) == parts, f"{len(stub.runs)} runs for {parts} parts")
    except UserError as error:
        _one_line(error)
        _calm(stub, cluster_file, clock)
        named = re.search(r"RESUME=(\S+)", str(error))
        if named:
            with contextlib.suppress(UserError):  # if all parts are there: they are running
                resume.resume(cluster_file, named[1], lambda line: None, clock)
            runs = [Run(run, each["display_name"]) for run, each in stub.runs.items()]
    requests = 3 + parts  # runs and experiments are listed, an experiment and runs are created
    limit = clients.PATIENCE.busy + requests * LIMIT_SECONDS + SETTLE_SECONDS
    _require(clock.time - began <= limit, f"{clock.time - began:.0f} s to submit")
    _calm(stub, cluster_file, clock)
    names = [each["display_name"] for each in stub.runs.values()]
    _require(len(set(names)) == len(names) <= parts, f"submitted twice: {sorted(names)}")
    _require(not runs or len(names) == parts, f"{len(names)} runs after RESUME, not {parts}")
    return runs


def _calm(stub: KfpApi, cluster_file: ClusterFile, clock: FakeClock) -> None:
    """Ends the bad weather, and lets the stand-in carry out what is delayed."""
    stub.weather = lambda request: None
    clock.time += SETTLE_SECONDS
    clients.connect(cluster_file, clock=clock)


def _follow(
    stub: KfpApi,
    cluster_file: ClusterFile,
    runs: Sequence[Run],
    rng: random.Random,
    clock: FakeClock,
    token: Path,
) -> None:
    """Follows runs to their end; the token expires meanwhile and is renewed within five minutes."""
    weather = Weather.draw(rng, clock)
    for run in runs:
        stub.set_state(run.run_id, *["RUNNING"] * rng.randint(1, 9), "SUCCEEDED")
    renewed = clock.time + rng.uniform(0.0, 300.0)

    def scenes() -> Iterator[None]:
        yield
        stub.token = "second"
        while clock.time < renewed:
            yield
        token.write_text("second", encoding="utf-8")
        while True:
            yield

    stub.weather, began, clock.scenes = weather.kfp, clock.time, scenes()
    try:
        code = follow.follow(cluster_file, runs, stream=io.StringIO(), clock=clock)
        _require(code == follow.EXIT_OK, f"followed with exit code {code}")
    except UserError as error:
        _one_line(error)
        # The first connection is given up sooner.
        is_long = weather.outage > follow.PATIENCE_SECONDS - 300 or "stopped watching" not in str(
            error
        )
        _require(is_long, f"given up: {error}")
    silent = max(weather.outage_ends, renewed) - began
    limit = max(silent, 0.0) + follow.PATIENCE_SECONDS + 2 * LIMIT_SECONDS
    passed = clock.time - began
    _require(passed <= limit + 100 * follow.POLL_SECONDS, f"followed for {passed:.0f} s")


def try_bucket(seed: int, emulator: bucket.Emulator) -> str:
    """Keeps a trial in a bucket in bad weather; returns what went wrong."""
    rng, clock = random.Random(seed), FakeClock()
    url = f"gs://{bucket.BUCKET}/{seed}/{TRIALS}/a"
    try:
        with _google_time(clock), tempfile.TemporaryDirectory() as scratch:
            _keep(url, Path(scratch), emulator, rng, clock)
    except (_LostError, UserError) as error:
        return f"seed {seed}: {error}"
    except Exception as error:
        return f"seed {seed}: {type(error).__name__}: {error}"
    finally:
        emulator.weather = lambda method, path: None
    return ""


def _keep(
    url: str, scratch: Path, emulator: bucket.Emulator, rng: random.Random, clock: FakeClock
) -> None:
    taken, pods = None, 0
    while taken is None:  # a pod whose lease fails ends, and KFP starts the next one
        pods += 1
        emulator.weather = Weather.draw(rng, clock).store
        with _bounded(clock, 4 * gcs.DEADLINE + 2 * leases.BEAT_SECONDS + 300):
            taken = trial_copy.take_lease(url, clock)
    emulator.weather = lambda method, path: None
    attempt = taken[0]
    _require(attempt <= pods, f"lease {attempt} for {pods} pods")
    _require(LeaseRecord.name(attempt) in gcs.list_files(url), "the lease is not in the bucket")
    folder = scratch / "trial"
    folder.mkdir()
    copy = trial_copy.fresh_copy(url, folder, attempt)
    wanted: dict[str, bytes] = {}
    checkpoint = checkpoint_name(attempt)
    (folder / checkpoint).parent.mkdir()
    sizes = {LOG: 0, ProgressRecord.NAME: 10, TrainingRecord.NAME: 1000, checkpoint: 1000}
    if rng.random() < 0.2:
        sizes[checkpoint] = gcs.CHUNK + 1  # goes up in parts
    for _ in range(3):
        for name, size in sizes.items():
            wanted[name] = rng.randbytes(size)
            (folder / name).write_bytes(wanted[name])
        emulator.weather = Weather.draw(rng, clock).store
        with _bounded(clock, 5 * 4 * gcs.DEADLINE):
            trial_copy.send(copy, everything=True)
    emulator.weather = lambda method, path: None
    trial_copy.send(copy, everything=True)
    _require(not copy.superseded, "superseded by its own lease")
    for name, content in wanted.items():
        found = gcs.read(gcs.join(url, name))
        _require(found is not None and found[0] == content, f"{name} has other content")


@contextlib.contextmanager
def _bounded(clock: FakeClock, seconds: float) -> Iterator[None]:
    """Lets errors of one line pass, and checks the time."""
    began = clock.time
    try:
        yield
    except UserError as error:
        _one_line(error)
    _require(clock.time - began <= seconds, f"took {clock.time - began:.0f} s")


@contextlib.contextmanager
def _google_time(clock: FakeClock) -> Iterator[None]:
    """Lets the pauses of Google's library pass on a clock."""
    from google.api_core.retry import retry_base, retry_unary

    plain = retry_base.time, retry_unary.time
    fake = types.SimpleNamespace(sleep=clock.sleep, monotonic=clock.monotonic)
    retry_base.time = retry_unary.time = fake
    try:
        yield
    finally:
        retry_base.time, retry_unary.time = plain


def _compiled_once() -> None:
    """Compiles the package of each profile once: it takes longer than a try."""
    plain, kept = packages.package, {}  # type: ignore[var-annotated]

    def package(profile: Profile) -> Any:
        key = repr(profile)
        if key not in kept:
            kept[key] = plain(profile)
        return kept[key]

    packages.package = package


def _without_clusters(home: str) -> None:
    """Takes away the caller's own clusters."""
    os.environ |= {"HOME": home, "KUBECONFIG": str(Path(home) / "kubeconfig")}
    for name in [name for name in os.environ if name.startswith(("KF_PIPELINES_", "KUBERNETES_"))]:
        del os.environ[name]


def _run(name: str, tries: int, seed: int, attack: Callable[[int], str]) -> bool:
    failures = 0
    for number in range(seed, seed + tries):
        if problem := attack(number):
            failures += 1
            print(f"{name}: {problem}", flush=True)
    print(f"services {name}: {tries - failures:,} of {tries:,} survived", flush=True)
    return bool(failures)


@program("chaos-services")
def main(arguments: Sequence[str] | None = None) -> int:
    """Lets services fail; returns 1 if a try did not survive."""
    parser = Parser(description=__doc__)
    parser.add_argument("service", nargs="?", choices=("kfp", "bucket"), help="both by default")
    parser.add_argument("--tries", type=int, default=200, help="for each service")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.disable()
    failed = False
    with tempfile.TemporaryDirectory(prefix="ieg-chaos-") as home:
        _without_clusters(home)
        _compiled_once()
        if options.service != "bucket":
            token = Path(home) / "token"
            failed |= _run("kfp", options.tries, options.seed, lambda seed: try_kfp(seed, token))
        if options.service != "kfp":
            with bucket.serve() as emulator:
                os.environ["STORAGE_EMULATOR_HOST"] = emulator.host
                attack: Callable[[int], str] = lambda seed: try_bucket(seed, emulator)  # noqa: E731
                failed |= _run("bucket", options.tries, options.seed, attack)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
