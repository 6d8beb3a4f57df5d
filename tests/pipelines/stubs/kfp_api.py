# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the KFP v2beta1 API: a contract stub, not KFP.

It runs nothing. It holds what it is sent, and what it answers, against `kfp_server_api`'s own
models: unknown fields, wrong types and wrong enumeration values are refused with 400, and so are
unknown query parameters, which is stricter than KFP. Beyond that, each rule names the function that
it follows, of kubeflow/pipelines 2.17, below backend/src/apiserver/ unless it says otherwise. What
a real server does besides is not shown by a test on it.
"""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api

from tests.pipelines.stubs.contract import RefusedError, Request, Stub, check, serving
from tests.pipelines.stubs.packages import check_arguments, page, sound, uploaded

PREFIX = "/apis/v2beta1"
NUMBERS_AS_TEXT = frozenset({"max_concurrency", "interval_second", "longValue"})
NOW = "2026-01-02T03:04:05Z"
NEVER = "1970-01-01T00:00:00Z"
"""A time that is not set: server/api_converter.go, toApiRun, writes 0 seconds."""
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
STOPPABLE = ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED")
"""storage/run_store.go, TerminateRun: an UPDATE of the row that is in one of these four states; if
`RowsAffected` is not 1, it is invalid input, "Row not found"."""


@dataclass
class KfpApi(Stub):
    """The API's state.

    Attributes:
      multi_user: Whether it is a multi-user installation.
      version: The release that its health check names.
      namespaces: In a multi-user one, those that the caller may use; others are refused with 403.
      script: The states that a run goes through, one a GET; the last one stays.
      task_states: For each run state, the tasks of a run: (name, state, id of Argo's node below
        it, which KFP calls a pod's name).
      experiments, pipelines, versions, runs, recurring: What was created, by id.
      files: What the UI serves of the object store, by key.
    """

    multi_user: bool = False
    version: str = "2.17.0"
    namespaces: tuple[str, ...] = ("team",)
    script: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    task_states: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def respond(self, request: Request) -> tuple[int, str, str, dict[str, str]]:
        # The UI's server, on the same address: frontend/server/handlers/artifacts.ts,
        # getArtifactsHandler; it answers 500 where the object store has no such object.
        if request.path != "/artifacts/get":
            return super().respond(request)
        content = self.files.get(request.query.get("key", ""))
        known = request.query.get("source") in ("minio", "s3", "gcs") and content is not None
        return (200, "text/html", content or "", {}) if known else (500, "text/plain", "", {})

    def answer(self, request: Request) -> Any:
        for method, pattern, model, query, handler in ROUTES:
            found = re.fullmatch(PREFIX + pattern, request.path)
            if found and method == request.method:
                unknown = set(request.query) - set(query)
                if unknown:
                    raise RefusedError(400, f"unknown query parameters {sorted(unknown)}")
                answer = handler(self, request, *found.groups())
                check(answer, model, kfp_server_api, "answer", NUMBERS_AS_TEXT)
                return answer
        raise RefusedError(404, f"no such endpoint: {request.method} {request.path}")

    def set_state(self, run_id: str, *states: str) -> None:
        """Lets a run go through other states from now on."""
        self.progress[run_id] = list(states)

    def _healthz(self, request: Request) -> Any:
        """Follows main.go: its variables COMMIT_SHA and TAG_NAME, each by default "unknown"."""
        facts = {"commit_sha": "unknown", "tag_name": self.version, "multi_user": self.multi_user}
        return facts | {"pipeline_store": "database"}

    def _create_experiment(self, request: Request) -> Any:
        """Follows server/experiment_server.go and storage/experiment_store.go, CreateExperiment."""
        body = _body(request, "V2beta1Experiment")
        body["namespace"] = self._namespace(body.get("namespace", ""))
        _need(body, "display_name")
        same = [
            e
            for e in self.experiments.values()
            if (e["display_name"], e.get("namespace", ""))
            == (body["display_name"], body.get("namespace", ""))
        ]
        if same:
            raise RefusedError(409, f"an experiment {body['display_name']!r} exists already")
        more = {"storage_state": "AVAILABLE", "last_run_created_at": NEVER}
        return _store(self.experiments, "experiment_id", body, **more)

    def _list_experiments(self, request: Request) -> Any:
        self._namespace(request.query.get("namespace", ""))
        return page("experiments", self._visible(self.experiments, request), request)

    def _get_experiment(self, request: Request, name: str) -> Any:
        return _find(self.experiments, "experiment", name)

    def _upload_pipeline(self, request: Request) -> Any:
        """Follows server/pipeline_upload_server.go, uploadPipeline: 409 where the name is taken."""
        namespace = request.query.get("namespace", "") and self._namespace(
            request.query["namespace"]
        )
        spec = uploaded(request)
        name = request.query.get("display_name") or request.query.get("name", "")
        name = name or spec["pipeline_spec"]["pipelineInfo"]["name"]
        taken = [(p["name"], p["namespace"]) for p in self.pipelines.values()]
        if (name, namespace) in taken:
            raise RefusedError(409, f"a pipeline {name!r} exists already")
        body = {"display_name": name, "name": name, "namespace": namespace}
        if request.query.get("description"):
            body["description"] = request.query["description"]
        pipeline = _store(self.pipelines, "pipeline_id", body)
        self._add_version(pipeline["pipeline_id"], name, spec)
        return pipeline

    def _upload_version(self, request: Request) -> Any:
        pipeline = _find(self.pipelines, "pipeline", request.query.get("pipelineid", ""))
        name = request.query.get("display_name") or request.query.get("name", "")
        if not name:
            raise RefusedError(400, "a version needs a name")
        return self._add_version(pipeline["pipeline_id"], name, uploaded(request))

    def _add_version(self, pipeline: str, name: str, spec: Any) -> Any:
        mine = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        if any(v["display_name"] == name for v in mine):
            raise RefusedError(409, f"a version {name!r} exists already")
        body = {"pipeline_id": pipeline, "display_name": name, "name": name, "pipeline_spec": spec}
        return _store(self.versions, "pipeline_version_id", body)

    def _list_pipelines(self, request: Request) -> Any:
        return page("pipelines", list(self.pipelines.values()), request)

    def _get_pipeline(self, request: Request, name: str) -> Any:
        return _find(self.pipelines, "pipeline", name)

    def _list_versions(self, request: Request, pipeline: str) -> Any:
        _find(self.pipelines, "pipeline", pipeline)
        mine = [v for v in self.versions.values() if v["pipeline_id"] == pipeline]
        return page("pipeline_versions", mine, request)

    def _get_version(self, request: Request, pipeline: str, name: str) -> Any:
        return _find(self.versions, "pipeline version", name)

    def _create_run(self, request: Request) -> Any:
        """Follows server/run_server.go, createRun, and resource/resource_manager.go, CreateRun."""
        body = _body(request, "V2beta1Run")
        self._check_source(body)
        return self.add_run(body)

    def add_run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Stores a run that KFP or one of its schedules has created."""
        more = {"state": "PENDING", "storage_state": "AVAILABLE", "finished_at": NEVER}
        run = _store(self.runs, "run_id", body, **more)
        run["scheduled_at"] = run["created_at"]
        self.progress[run["run_id"]] = list(self.script)
        return run

    def _check_source(self, body: dict[str, Any]) -> None:
        """Refuses what has no name, no experiment that may be used, or no sound pipeline.

        Follows resource/resource_manager.go, GetValidExperimentNamespacePair and
        fetchPipelineVersionFromPipelineSpec.
        """
        _need(body, "display_name")
        if body.get("experiment_id"):
            experiment = _find(self.experiments, "experiment", body["experiment_id"])
            self._namespace(experiment.get("namespace", ""))
        elif self.multi_user:
            raise RefusedError(400, "a multi-user installation needs an experiment_id")
        reference = body.get("pipeline_version_reference")
        if (reference is None) == (body.get("pipeline_spec") is None):
            raise RefusedError(400, "expected either pipeline_spec or pipeline_version_reference")
        if reference is not None:
            version = _find(
                self.versions, "pipeline version", reference.get("pipeline_version_id", "")
            )
            if reference.get("pipeline_id") != version["pipeline_id"]:
                raise RefusedError(400, "the version is none of that pipeline")
            spec = version["pipeline_spec"]
        else:
            spec = body["pipeline_spec"]
        check_arguments(sound(spec), (body.get("runtime_config") or {}).get("parameters") or {})

    def _get_run(self, request: Request, name: str) -> Any:
        """Follows server/api_converter.go, toApiRun: a run that failed carries no error.

        Its tasks are Argo's nodes (toApiPipelineTaskDetail).
        """
        run = _find(self.runs, "run", name)
        states = self.progress[name]
        run["state"] = states.pop(0) if len(states) > 1 else states[0]
        if run["state"] in TERMINAL:
            run["finished_at"] = NOW
        tasks = self.task_states.get(run["state"], [])
        run["run_details"] = {
            "task_details": [
                {"run_id": name, "task_id": f"t{i}", "display_name": t[0], "state": t[1]}
                | ({"child_tasks": [{"pod_name": t[2]}]} if t[2] else {})
                for i, t in enumerate(tasks)
            ]
        }
        return run

    def _list_runs(self, request: Request) -> Any:
        """Follows server/run_server.go, listRuns: an experiment brings its own namespace."""
        if not request.query.get("experiment_id"):
            self._namespace(request.query.get("namespace", ""))
        return page("runs", self._visible(self.runs, request), request)

    def _terminate_run(self, request: Request, name: str) -> Any:
        """Follows storage/run_store.go, TerminateRun (see `STOPPABLE`).

        Argo knows no canceled workflow: KFP's report of its phase ends as FAILED
        (resource/resource_manager.go, ReportWorkflowResource).
        """
        run = _find(self.runs, "run", name)
        if run["state"] not in STOPPABLE:
            raise RefusedError(400, f"Failed to terminate a run {name}. Row not found")
        run["state"] = "CANCELING"
        self.set_state(name, "CANCELING", "FAILED")
        return {}

    def _delete_run(self, request: Request, name: str) -> Any:
        """Follows resource/resource_manager.go, DeleteRun, of a run in any state."""
        _find(self.runs, "run", name)
        del self.runs[name]
        return {}

    def _create_recurring(self, request: Request) -> Any:
        """Follows server/api_converter.go, toModelJob; that there is one trigger is our own rule.

        KFP parses the cron with robfig/cron, for which the seconds are optional.
        """
        body = _body(request, "V2beta1RecurringRun")
        self._check_source(body)
        trigger = body.get("trigger") or {}
        if len([k for k in ("cron_schedule", "periodic_schedule") if trigger.get(k)]) != 1:
            raise RefusedError(400, "a trigger needs either a cron_schedule or a periodic_schedule")
        cron = (trigger.get("cron_schedule") or {}).get("cron", "0 0 0 * * *")
        if len(cron.split()) not in (5, 6):
            raise RefusedError(400, f"cron {cron!r} has neither 5 nor 6 fields")
        if not 1 <= int(body.get("max_concurrency") or 0) <= 10:
            raise RefusedError(400, "max_concurrency must be from 1 to 10")
        body["max_concurrency"] = str(body["max_concurrency"])
        status = "ENABLED" if body.get("mode") == "ENABLE" else "DISABLED"
        stored = _store(self.recurring, "recurring_run_id", body, status=status)
        experiment = self.experiments.get(body.get("experiment_id", ""), {})
        stored["namespace"] = experiment.get("namespace", "")
        return stored

    def _list_recurring(self, request: Request) -> Any:
        if not request.query.get("experiment_id"):
            self._namespace(request.query.get("namespace", ""))
        return page("recurringRuns", self._visible(self.recurring, request), request)

    def _get_recurring(self, request: Request, name: str) -> Any:
        return _find(self.recurring, "recurring run", name)

    def _switch_recurring(self, request: Request, name: str, verb: str) -> Any:
        """Follows resource/resource_manager.go, ChangeJobMode."""
        found = _find(self.recurring, "recurring run", name)
        found |= {"mode": verb.upper(), "status": f"{verb.upper()}D"}
        return {}

    def _delete_recurring(self, request: Request, name: str) -> Any:
        """Follows resource/resource_manager.go, DeleteJob, but for the workflows it may end."""
        _find(self.recurring, "recurring run", name)
        del self.recurring[name]
        return {}

    def _namespace(self, namespace: str) -> str:
        """Follows resource/resource_manager.go, ReplaceNamespace and IsAuthorized."""
        if not self.multi_user:
            return ""
        if not namespace:
            raise RefusedError(400, "a multi-user installation needs a namespace")
        if namespace not in self.namespaces:
            raise RefusedError(403, f"User 'me' is not authorized in namespace {namespace!r}")
        return namespace

    def _visible(self, kept: dict[str, dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        experiment, namespace = (request.query.get(k, "") for k in ("experiment_id", "namespace"))

        def visible(item: dict[str, Any]) -> bool:
            owner = self.experiments.get(item.get("experiment_id", ""), {})
            return (not experiment or item.get("experiment_id") == experiment) and (
                not namespace or owner.get("namespace", "") == namespace
            )

        return [item for item in kept.values() if visible(item)]


Handler = Callable[..., Any]
LISTING = ("page_token", "page_size", "sort_by", "filter", "namespace")
ID = "/([^/:]+)"
ROUTES: tuple[tuple[str, str, str, tuple[str, ...], Handler], ...] = (
    # Its handler writes more than the model has.
    ("GET", "/healthz", "object", (), KfpApi._healthz),
    ("POST", "/experiments", "V2beta1Experiment", (), KfpApi._create_experiment),
    ("GET", "/experiments", "V2beta1ListExperimentsResponse", LISTING, KfpApi._list_experiments),
    ("GET", f"/experiments{ID}", "V2beta1Experiment", (), KfpApi._get_experiment),
    (
        *("POST", "/pipelines/upload", "V2beta1Pipeline"),
        *(("name", "display_name", "description", "namespace"), KfpApi._upload_pipeline),
    ),
    (
        *("POST", "/pipelines/upload_version", "V2beta1PipelineVersion"),
        *(("name", "display_name", "description", "pipelineid"), KfpApi._upload_version),
    ),
    ("GET", "/pipelines", "V2beta1ListPipelinesResponse", LISTING, KfpApi._list_pipelines),
    ("GET", f"/pipelines{ID}", "V2beta1Pipeline", (), KfpApi._get_pipeline),
    (
        *("GET", f"/pipelines{ID}/versions", "V2beta1ListPipelineVersionsResponse"),
        *(LISTING, KfpApi._list_versions),
    ),
    (
        *("GET", f"/pipelines{ID}/versions{ID}", "V2beta1PipelineVersion"),
        *((), KfpApi._get_version),
    ),
    ("POST", "/runs", "V2beta1Run", ("experiment_id",), KfpApi._create_run),
    ("GET", "/runs", "V2beta1ListRunsResponse", (*LISTING, "experiment_id"), KfpApi._list_runs),
    ("GET", f"/runs{ID}", "V2beta1Run", ("experiment_id",), KfpApi._get_run),
    ("DELETE", f"/runs{ID}", "object", ("experiment_id",), KfpApi._delete_run),
    ("POST", f"/runs{ID}:terminate", "object", ("experiment_id",), KfpApi._terminate_run),
    ("POST", "/recurringruns", "V2beta1RecurringRun", (), KfpApi._create_recurring),
    (
        *("GET", "/recurringruns", "V2beta1ListRecurringRunsResponse"),
        *((*LISTING, "experiment_id"), KfpApi._list_recurring),
    ),
    ("GET", f"/recurringruns{ID}", "V2beta1RecurringRun", (), KfpApi._get_recurring),
    ("POST", f"/recurringruns{ID}:(enable|disable)", "object", (), KfpApi._switch_recurring),
    (
        *("DELETE", f"/recurringruns{ID}", "object"),
        *(("propagation_policy",), KfpApi._delete_recurring),
    ),
)


def _body(request: Request, model: str) -> dict[str, Any]:
    body = request.json
    check(body, model, kfp_server_api, model, NUMBERS_AS_TEXT)
    return body


def _need(body: dict[str, Any], name: str) -> None:
    if not body.get(name):
        raise RefusedError(400, f"{name} is empty")


def _store(kept: dict[str, dict[str, Any]], key: str, body: dict[str, Any], **more: str) -> Any:
    name = str(uuid.uuid4())
    minutes, seconds = divmod(len(kept), 60)
    created = f"2026-01-02T03:{minutes:02d}:{seconds:02d}Z"
    kept[name] = {**body, key: name, "created_at": created, **more}
    return kept[name]


def _find(kept: dict[str, dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    if name not in kept:
        raise RefusedError(404, f"{kind} {name!r} not found")
    return kept[name]


@contextmanager
def kfp_api(wrap: Callable[[Any], Any] = lambda socket: socket, **settings: Any) -> Iterator[Any]:
    """Serves the stub; settings are those of `KfpApi`."""
    with serving(KfpApi(**settings), wrap) as stub:
        yield stub
