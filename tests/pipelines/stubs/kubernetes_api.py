# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the part of the Kubernetes API that is looked at: a contract stub, no Kubernetes.

It schedules nothing. What it holds and answers passes the Kubernetes client's own models, unknown
fields and wrong types refused; rights are a set of (verb, resource) that may be used. Workflows are
Argo's, for which that client has no models: they are handed out as they were put in. Unlike the
real API it refuses query parameters that it does not know. Each rule names the function that it
follows, of kubernetes/kubernetes 1.34, below staging/src/k8s.io/ unless it says otherwise.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import kubernetes.client
import yaml

from tests.pipelines.stubs.contract import RefusedError, Request, Stub, check, serving

NOTHING_AS_TEXT: frozenset[str] = frozenset()
LISTING = ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion")
EVERY_RIGHT = frozenset(
    {
        ("list", "nodes"),
        ("get", "configmaps"),
        ("get", "persistentvolumeclaims"),
        ("list", "pods"),
        ("list", "events"),
        ("list", "workflows"),
    }
)


@dataclass
class KubernetesApi(Stub):
    """The API's state.

    Attributes:
      rights: What the caller may do; the rest is refused with 403.
      nodes, configmaps, claims, pods, events: Objects as JSON, all but nodes by namespace. The
        claims of k8s/base are there.
      workflows: Argo's, by namespace.
      reviews: What a SelfSubjectAccessReview allows, as (verb, resource); everything by default.
    """

    rights: frozenset[tuple[str, str]] = EVERY_RIGHT
    nodes: list[dict[str, Any]] = field(default_factory=list)
    configmaps: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    claims: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"kubeflow": [claim("ieg-data"), claim("ieg-results")]}
    )
    pods: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    workflows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reviews: frozenset[tuple[str, str]] | None = None

    def respond(self, request: Request) -> tuple[int, str, str, dict[str, str]]:
        """Follows apiserver/pkg/endpoints/handlers/create.go: 201 for what was created."""
        status, kind, body, more = super().respond(request)
        return 201 if (status, request.method) == (200, "POST") else status, kind, body, more

    def answer(self, request: Request) -> Any:
        for method, pattern, right, model, handler in ROUTES:
            found = re.fullmatch(pattern, request.path)
            if not found or method != request.method:
                continue
            if unknown := set(request.query) - set(LISTING):
                raise RefusedError(400, f"unknown query parameters {sorted(unknown)}")
            if right and right not in self.rights:
                raise RefusedError(403, _forbidden(*right, request.path))
            answer = handler(self, request, *found.groups())
            check(answer, model, kubernetes.client, "answer", NOTHING_AS_TEXT)
            return answer
        raise RefusedError(404, f"no such endpoint: {request.method} {request.path}")

    def refusal(self, error: RefusedError) -> dict[str, Any]:
        """Follows apiserver/pkg/endpoints/handlers/responsewriters/status.go, ErrorToAPIStatus."""
        reasons = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 422: "Invalid"}
        kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        why = {"message": str(error), "reason": reasons[error.status], "code": error.status}
        return kind | why

    def _list_nodes(self, request: Request) -> Any:
        return _listing("NodeList", self.nodes, request)

    def _get_configmap(self, request: Request, namespace: str, name: str) -> Any:
        for item in self.configmaps.get(namespace, []):
            if item["metadata"]["name"] == name:
                return item
        raise RefusedError(404, f'configmaps "{name}" not found')

    def _get_claim(self, request: Request, namespace: str, name: str) -> Any:
        for item in self.claims.get(namespace, []):
            if item["metadata"]["name"] == name:
                return item
        raise RefusedError(404, f'persistentvolumeclaims "{name}" not found')

    def _list_pods(self, request: Request, namespace: str) -> Any:
        return _listing("PodList", self.pods.get(namespace, []), request)

    def _delete_pod(self, request: Request, namespace: str, name: str) -> Any:
        """Follows apiserver/pkg/registry/generic/registry/store.go, Delete, without its grace."""
        pods = self.pods.get(namespace, [])
        for item in pods:
            if item["metadata"]["name"] == name:
                pods.remove(item)
                return item
        raise RefusedError(404, f'pods "{name}" not found')

    def _list_events(self, request: Request, namespace: str) -> Any:
        """Follows pkg/registry/core/event/strategy.go, ToSelectableFields, of the root."""
        events = self.events.get(namespace, [])
        for wanted in filter(None, request.query.get("fieldSelector", "").split(",")):
            key, _, value = wanted.partition("=")
            events = [each for each in events if _field(each, key) == value]
        return _listing("EventList", events, request)

    def _list_workflows(self, request: Request, namespace: str) -> Any:
        return _listing("WorkflowList", self.workflows.get(namespace, []), request)

    def _review(self, request: Request) -> Any:
        """Follows pkg/registry/authorization/selfsubjectaccessreview/rest.go, of the root."""
        body = request.json
        model = "V1SelfSubjectAccessReview"
        check(body, model, kubernetes.client, model, NOTHING_AS_TEXT)
        asked = body["spec"].get("resourceAttributes")
        if not asked or not asked.get("verb") or not asked.get("resource"):
            raise RefusedError(422, "spec.resourceAttributes: a verb and a resource are required")
        allowed = self.reviews is None or (asked["verb"], asked["resource"]) in self.reviews
        return {**body, "status": {"allowed": allowed}}


Handler = Callable[..., Any]
NAME = "/([^/]+)"
ROUTES: tuple[tuple[str, str, tuple[str, str] | None, str, Handler], ...] = (
    ("GET", "/api/v1/nodes", ("list", "nodes"), "V1NodeList", KubernetesApi._list_nodes),
    (
        *("GET", f"/api/v1/namespaces{NAME}/configmaps{NAME}", ("get", "configmaps")),
        *("V1ConfigMap", KubernetesApi._get_configmap),
    ),
    (
        *("GET", f"/api/v1/namespaces{NAME}/persistentvolumeclaims{NAME}"),
        *(("get", "persistentvolumeclaims"), "V1PersistentVolumeClaim", KubernetesApi._get_claim),
    ),
    (
        *("GET", f"/api/v1/namespaces{NAME}/pods", ("list", "pods")),
        *("V1PodList", KubernetesApi._list_pods),
    ),
    (
        *("DELETE", f"/api/v1/namespaces{NAME}/pods{NAME}", ("delete", "pods")),
        *("V1Pod", KubernetesApi._delete_pod),
    ),
    (
        *("GET", f"/api/v1/namespaces{NAME}/events", ("list", "events")),
        *("CoreV1EventList", KubernetesApi._list_events),
    ),
    (
        *("GET", f"/apis/argoproj.io/v1alpha1/namespaces{NAME}/workflows", ("list", "workflows")),
        *("object", KubernetesApi._list_workflows),
    ),
    (
        *("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", None),
        *("V1SelfSubjectAccessReview", KubernetesApi._review),
    ),
)


def _forbidden(verb: str, resource: str, path: str) -> str:
    """Follows apiserver/pkg/endpoints/handlers/responsewriters/errors.go, forbiddenMessage."""
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    words = f'User "me" cannot {verb} resource "{resource}" in API group "{group}"'
    space = re.search(r"/namespaces/([^/]+)", path)
    scope = f'in the namespace "{space[1]}"' if space else "at the cluster scope"
    return f"{resource}{'.' * bool(group)}{group} is forbidden: {words} {scope}"


def _field(item: Any, key: str) -> Any:
    for part in key.split("."):
        item = item[part]
    return item


def _listing(kind: str, items: list[dict[str, Any]], request: Request) -> Any:
    for wanted in filter(None, request.query.get("labelSelector", "").split(",")):
        key, equals, value = wanted.partition("=")
        if not equals:
            raise RefusedError(400, f"this stub selects by equality alone, got {wanted!r}")
        items = [i for i in items if i["metadata"].get("labels", {}).get(key) == value]
    return {"kind": kind, "apiVersion": "v1", "metadata": {}, "items": items}


def node(name: str = "gpu-1", *, gpus: int = 1, ready: bool = True, **more: Any) -> dict[str, Any]:
    """Makes a node.

    Args:
      name: Its name.
      gpus: Its allocatable GPUs.
      ready: Whether it is ready.
      **more: `labels`, `taints` as (key, value, effect), `unschedulable`, `cpu`, `memory`.
    """
    taints = [{"key": k, "value": v, "effect": e} for k, v, e in more.get("taints", ())]
    amounts = {"cpu": more.get("cpu", "8"), "memory": more.get("memory", "32Gi")}
    amounts |= {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": {"taints": taints, "unschedulable": more.get("unschedulable", False)},
        "status": {
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "images": [{"names": ["registry.example.org/x@sha256:1"], "sizeBytes": 1}],
        },
    }


def claim(name: str, *modes: str) -> dict[str, Any]:
    """Makes a volume claim that is bound, ReadWriteMany unless other modes are given."""
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": list(modes or ("ReadWriteMany",)),
            "resources": {"requests": {"storage": "50Gi"}},
        },
        "status": {"phase": "Bound"},
    }


def pod(run: str, trial: str, name: str = "train-1", **status: Any) -> dict[str, Any]:
    """Makes the pod of a trial's training, waiting for what `status` says.

    As KFP 2.17 builds it (kubeflow/pipelines, backend/src/v2/driver/driver.go, initPodSpecPatch:
    `Command: launcherCmd`, `Args: userCmdArgs`): the launcher's command holds --executor_input,
    `args` the component's own words with their placeholders. Argo 4.0.5 puts its emissary and its
    flags before the command (argoproj/argo-workflows, workflow/controller/workflowpod.go,
    createWorkflowPod).
    """
    executor_input = f'{{"inputs": {{"parameterValues": {{"trials": "{trial}"}}}}}}'
    component = '{"inputDefinitions": {"parameters": {"trials": {"parameterType": "STRING"}}}}'
    return {
        "metadata": {
            "name": name,
            "namespace": "kubeflow",
            "labels": {"pipeline/runid": run},
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {
            "containers": [
                {"name": "wait"},
                {
                    "name": "main",
                    "command": [
                        *("/var/run/argo/argoexec", "emissary", "--loglevel", "info"),
                        *("--log-format", "text", "--gloglevel", "0"),
                        *("--", "/kfp-launcher/launch"),
                        *("--pipeline_name", "noise-sweep", "--run_id", run),
                        *("--execution_id", "7", "--executor_input", executor_input),
                        *("--component_spec", component, "--pod_name", "$(KFP_POD_NAME)", "--"),
                    ],
                    "args": [
                        *("sh", "-c", "python3 -m kfp.dsl.executor_main"),
                        *("--executor_input", "{{$}}", "--function_to_execute", "train"),
                    ],
                },
            ]
        },
        "status": {"phase": "Pending", **status},
    }


def event(pod: str, reason: str, message: str) -> dict[str, Any]:
    """Makes a warning about a pod: core/v1, Event, as the kubelet and the scheduler write it."""
    return {
        "metadata": {"name": f"{pod}.{reason}", "namespace": "kubeflow"},
        "involvedObject": {"kind": "Pod", "name": pod},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-02T03:04:05Z",
    }


def write_kubeconfig(path: Any, stub: Stub, context: str = "stub") -> None:
    """Writes a kubeconfig that leads to a stub."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [{"name": "c", "cluster": {"server": stub.url}}],
        "users": [{"name": "u", "user": {"token": stub.token or "any"}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(content))


@contextmanager
def kubernetes_api(**settings: Any) -> Iterator[KubernetesApi]:
    """Serves the stub; settings are those of `KubernetesApi`."""
    with serving(KubernetesApi(**settings)) as stub:
        assert isinstance(stub, KubernetesApi)
        yield stub
