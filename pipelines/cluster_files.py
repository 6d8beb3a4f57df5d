# SPDX-License-Identifier: Apache-2.0
"""The cluster file: everything specific to an installation of KFP, in one strictly read YAML file.

docs/cluster.example.yaml explains each key. Without a file the defaults apply; they fit the
manifests in k8s/ and name no endpoint.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError, require
from pipelines import strict_yaml
from pipelines.strict_yaml import NUMBERS, READ

ROOT = Path(__file__).parents[1]
DATA_MOUNT, RESULTS_MOUNT = "/data", "/results"
LOCAL_FILES = ("token_file", "cookie_file", "ca_file", "results_mount")
BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[^/]+)*")
REGISTRY_IMAGE = re.compile(r"[^/\s]+\.[^/\s]+/\S+[:@]\S+")
# KFP takes only these of Kubernetes' spellings of a quantity.
CPU, CPU_EXAMPLES = re.compile(r"([0-9]+\.)?[0-9]+m?"), "cores such as '2' or '500m'"
MEMORY, MEMORY_EXAMPLE = re.compile(r"[0-9]+([EPTGMK]i?)?"), "a size such as 4Gi"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Kubernetes refuses pods with other labels, but only after the sweep began.
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")
MOST_SECONDS = 100 * 86400
"""Kubernetes' largest deadline of a pod, 2^31 - 1 seconds, holds 12 attempts of this length."""
MOST_GPUS = 64
MOST_RETRIES = 10
"""The pause before an attempt is twice the one before: 17 hours in all, from 30 seconds on."""
OPERATORS, EFFECTS = ("Exists", "Equal"), ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def seconds(value: object) -> object:
    """Returns a duration such as "90m" or "24h" in seconds; leaves what is not a text.

    Raises:
      UserError: When the text is not a duration.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+)\s*([smhd])", value.strip())
    if not match:
        raise UserError(f"expected a duration such as 90m, 24h or 2d, got {value!r}")
    return int(match[1]) * UNITS[match[2]]


def _check_labels(name: str, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        valid = LABEL_KEY.fullmatch(key) and LABEL.fullmatch(value)
        expected = "labels of Kubernetes such as cloud.google.com/gke-nodepool: gpu-pool"
        require(bool(valid), name, {key: value}, expected)


@dataclass(frozen=True)
class Toleration:
    """A Kubernetes toleration.

    Attributes:
      key: The taint's key; empty for all, with the operator "Exists".
      operator: "Exists" or "Equal".
      value: The taint's value, for "Equal".
      effect: "NoSchedule", "PreferNoSchedule", "NoExecute"; empty for all.
    """

    key: str = ""
    operator: str = "Exists"
    value: str = ""
    effect: str = ""

    def __post_init__(self) -> None:
        require(self.operator in OPERATORS, "operator", self.operator, "'Exists' or 'Equal'")
        expected = "'NoSchedule', 'PreferNoSchedule', 'NoExecute' or nothing"
        require(self.effect in EFFECTS, "effect", self.effect, expected)
        alone = self.operator == "Equal" or not self.value
        require(alone, "value", self.value, "empty with the operator 'Exists'")
        require(bool(self.key) or self.operator == "Exists", "key", self.key, "a taint's key")


@dataclass(frozen=True)
class NodePool:
    """The nodes for pods without a GPU.

    Attributes:
      node_selector: Labels of the nodes.
      tolerations: Taints of the nodes.
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()

    def __post_init__(self) -> None:
        _check_labels("node_selector", self.node_selector)


SPOT = "cloud.google.com/gke-spot"


@dataclass(frozen=True)
class GpuNodePool:
    """The nodes for trainings with a GPU.

    Attributes:
      resource: The GPUs' resource name.
      count: GPUs per training.
      node_selector: Labels of the nodes.
      tolerations: Taints of the nodes.
      shared_memory: Size of /dev/shm, which counts toward the training's memory.
      spot: Whether trainings use nodes that may be preempted at any time.
      spot_node_selector: Additional labels of those nodes.
      spot_tolerations: Additional taints of those nodes.
      autoscaled: Whether nodes start on demand: having none now is then only a warning.
    """

    resource: str = "nvidia.com/gpu"
    count: int = 1
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = (Toleration("nvidia.com/gpu", effect="NoSchedule"),)
    shared_memory: str = "2Gi"
    spot: bool = False
    spot_node_selector: Mapping[str, str] = field(default_factory=lambda: {SPOT: "true"})
    spot_tolerations: tuple[Toleration, ...] = (Toleration(SPOT, "Equal", "true", "NoSchedule"),)
    autoscaled: bool = True

    def __post_init__(self) -> None:
        pattern = r"[a-z0-9.-]+/[A-Za-z0-9._-]+"
        valid = re.fullmatch(pattern, self.resource)
        require(bool(valid), "resource", self.resource, "a resource's name such as nvidia.com/gpu")
        require(1 <= self.count <= MOST_GPUS, "count", self.count, f"from 1 to {MOST_GPUS}")
        memory = MEMORY.fullmatch(self.shared_memory)
        require(bool(memory), "shared_memory", self.shared_memory, MEMORY_EXAMPLE)
        _check_labels("node_selector", self.node_selector)
        _check_labels("spot_node_selector", self.spot_node_selector)


@dataclass(frozen=True)
class VertexAI:
    """Vertex AI Pipelines, which has neither volumes nor node pools.

    Attributes:
      data_dir: The base data sets, /gcs/bucket/folder; empty: no package for Vertex AI.
      accelerator: Model of the GPUs, as Vertex AI names it.
      count: GPUs per training.
    """

    data_dir: str = ""
    accelerator: str = "NVIDIA_TESLA_T4"
    count: int = 1

    def __post_init__(self) -> None:
        mounted = not self.data_dir or re.fullmatch(r"/gcs/[^/\s]+(/[^/\s]+)*", self.data_dir)
        require(bool(mounted), "data_dir", self.data_dir, "/gcs/bucket/folder, or nothing")
        model = re.fullmatch(r"NVIDIA_[A-Z0-9_]+", self.accelerator)
        require(bool(model), "accelerator", self.accelerator, "a model such as NVIDIA_TESLA_T4")
        require(1 <= self.count <= MOST_GPUS, "count", self.count, f"from 1 to {MOST_GPUS}")


@dataclass(frozen=True)
class Resources:
    """The resources of a container: requests decide where it is scheduled, limits bound its use.

    Attributes:
      cpu_request: Cores, such as "2" or "500m".
      cpu_limit: Cores.
      memory_request: Memory, such as "4Gi".
      memory_limit: Memory; a container that exceeds it is killed.
    """

    cpu_request: str = field(metadata=NUMBERS)
    cpu_limit: str = field(metadata=NUMBERS)
    memory_request: str = field(metadata=NUMBERS)
    memory_limit: str = field(metadata=NUMBERS)

    def __post_init__(self) -> None:
        # Kubernetes rejects a pod whose request exceeds its limit, but only after the sweep began.
        for kind, spelling, example in (
            ("cpu", CPU, CPU_EXAMPLES),
            ("memory", MEMORY, MEMORY_EXAMPLE),
        ):
            request, limit = f"{kind}_request", f"{kind}_limit"
            amounts = {}
            for name in (request, limit):
                text = getattr(self, name)
                require(bool(spelling.fullmatch(text)), name, text, example)
                amounts[name] = _parse_quantity(text)
            expected = f"at most {limit}, {getattr(self, limit)}"
            require(amounts[request] <= amounts[limit], request, getattr(self, request), expected)


@dataclass(frozen=True)
class TaskResources:
    """The resources of each kind of task.

    Attributes:
      small: prepare, report and check_results.
      train: A training.
      evaluate: An evaluation, on CPUs; it runs only if a training was interrupted.
    """

    # Made late: comparing them imports kubernetes, which takes half a second.
    small: Resources = field(default_factory=lambda: Resources("500m", "2", "1Gi", "4Gi"))
    train: Resources = field(default_factory=lambda: Resources("3", "8", "8Gi", "16Gi"))
    evaluate: Resources = field(default_factory=lambda: Resources("1", "4", "4Gi", "8Gi"))


@dataclass(frozen=True)
class ClusterFile:
    """An installation of KFP, and the settings of sweeps on it.

    Attributes:
      endpoint: Address of the KFP API; empty: none, sweeps run on this machine.
      ui_endpoint: Address of the KFP UI, for links; empty: the endpoint.
      namespace: The profile's namespace in a multi-user installation; empty for a single-user one.
      kfp_namespace: The namespace that KFP is installed in.
      service_account: The pods' service account; empty for the installation's default.
      pod_user: User and group of the pods, numbers as in "1000:1000"; empty: the platform's choice,
        for OpenShift and other platforms that assign them.
      queue: Kueue's local queue for the pods of our tasks; empty: none.
      priority_class: Kueue's workload priority class of these pods; empty: none.
      api_ports: Ports of the Kubernetes API server that the network policy lets pods reach.
      token_file: File with a bearer token, read again each time it is needed; empty: none.
      cookie_file: File with a session cookie, read again each time it is needed; empty: none.
      ca_file: Certificates to trust instead of the public ones; empty: the public ones.
      image: The image of every task, tagged; empty: ieg-python:<git revision>.
      results: Results root as the pods see it: a folder under /results, or gs://bucket/prefix.
      results_mount: Where this machine sees the same root; empty: nowhere.
      data_dir: The base data sets as the pods see them, a folder.
      data_claim: Volume claim mounted on /data; empty: none.
      results_claim: Volume claim mounted on /results; empty: none.
      gpu: The nodes for trainings with a GPU.
      cpu: The nodes for all other pods.
      vertex: Vertex AI Pipelines.
      resources: The resources of each kind of task.
      time_limit: Time limit of one attempt at a task, in seconds.
      retries: Further attempts at a training or evaluation that ended without a result.
      parallelism: Number of concurrent trials.
      trials_per_pod: Number of trials that share a pod, each failing alone.
      trials_at_once: Number of these that train at the same time, on the same GPUs.
      checkpoint_minutes: Minutes between two checkpoints: the most that a lost pod costs.
      time_zone: The time zone of schedules, the controller's CRON_SCHEDULE_TIMEZONE.
      max_gpu_hours: Largest estimate that is submitted.
      experiment: The experiment in the KFP UI that holds the runs.
      kube_context: Context of the kubeconfig for reading nodes and pods; empty: the current one.
    """

    endpoint: str = ""
    ui_endpoint: str = ""
    namespace: str = ""
    kfp_namespace: str = "kubeflow"
    service_account: str = "ieg-pipelines"
    pod_user: str = "1000:1000"
    queue: str = ""
    priority_class: str = ""
    api_ports: tuple[int, ...] = (443, 6443, 8443, 16443)
    token_file: str = ""
    cookie_file: str = ""
    ca_file: str = ""
    image: str = ""
    results: str = RESULTS_MOUNT
    results_mount: str = ""
    data_dir: str = DATA_MOUNT
    data_claim: str = "ieg-data"
    results_claim: str = "ieg-results"
    gpu: GpuNodePool = GpuNodePool()
    cpu: NodePool = NodePool()
    vertex: VertexAI = VertexAI()
    resources: TaskResources = field(default_factory=TaskResources)
    time_limit: int = field(default=24 * 3600, metadata={READ: seconds})
    retries: int = 3
    parallelism: int = 4
    trials_per_pod: int = 1
    trials_at_once: int = 1
    checkpoint_minutes: float = 5.0
    time_zone: str = "UTC"
    max_gpu_hours: float = 24.0
    experiment: str = "noise-sweep"
    kube_context: str = ""

    def __post_init__(self) -> None:
        for name in ("endpoint", "ui_endpoint"):
            value = getattr(self, name)
            plain = not value or re.fullmatch(r"https?://[^\s?#]+", value)
            require(bool(plain), name, value, "an address such as https://kfp.example.org")
        names = ("namespace", "service_account", "data_claim", "results_claim")
        for name in (*names, "kfp_namespace", "queue", "priority_class"):
            value = getattr(self, name)
            label = not value or re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value)
            require(bool(label), name, value, "a Kubernetes name (lower case) or nothing")
            is_label = name in ("namespace", "kfp_namespace", "queue", "priority_class")
            most = 63 if is_label else 253
            require(len(value) <= most, name, value, f"at most {most} characters long")
        require(bool(self.kfp_namespace), "kfp_namespace", self.kfp_namespace, "a namespace")
        numbers = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", self.pod_user)
        user = not self.pod_user or (numbers and all(0 < int(n) < 2**31 for n in numbers.groups()))
        expected = "user:group as numbers, not root's 0, such as 1000:1000, or nothing"
        require(bool(user), "pod_user", self.pod_user, expected)
        wrong = [port for port in self.api_ports if not 1 <= port <= 65535]
        require(not wrong and bool(self.api_ports), "api_ports", self.api_ports, "1 to 65535")
        _check_image(self.image)
        self._check_folders()
        self._check_vertex()
        for each in self.cpu.tolerations:
            gpus = each.key in ("", self.gpu.resource) or "gpu" in each.key.lower()
            expected = "no taint of GPU nodes, which trainings alone tolerate"
            require(not gpus, "cpu.tolerations", each.key or "every taint", expected)
        limit = 60 <= self.time_limit <= MOST_SECONDS
        require(limit, "time_limit", self.time_limit, "from 60 seconds to 100 days")
        retries = 0 <= self.retries <= MOST_RETRIES
        require(retries, "retries", self.retries, f"from 0 to {MOST_RETRIES}")
        require(1 <= self.parallelism <= 100, "parallelism", self.parallelism, "from 1 to 100")
        shared = self.trials_per_pod
        require(1 <= shared <= 100, "trials_per_pod", shared, "from 1 to 100")
        at_once = self.trials_at_once
        expected = f"from 1 to trials_per_pod, {shared}"
        require(1 <= at_once <= shared, "trials_at_once", at_once, expected)
        minutes = self.checkpoint_minutes
        require(0.1 <= minutes <= 1440, "checkpoint_minutes", minutes, "from 0.1 to 1440")
        require(0 < self.max_gpu_hours < 1e9, "max_gpu_hours", self.max_gpu_hours, "above 0")
        zone = re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", self.time_zone)
        require(bool(zone), "time_zone", self.time_zone, "a zone such as UTC or Europe/Berlin")
        require(bool(self.experiment.strip()), "experiment", self.experiment, "a name")

    def _check_folders(self) -> None:
        under = Path(self.results).is_relative_to(RESULTS_MOUNT) and ".." not in self.results
        place = f"a folder under {RESULTS_MOUNT} or gs://bucket/prefix: only these outlive a pod"
        require(under or bool(BUCKET.fullmatch(self.results)), "results", self.results, place)
        if under and not self.results_claim:
            raise UserError(
                f"results is {self.results!r}, but results_claim is empty: name the volume claim "
                f"mounted on {RESULTS_MOUNT}, or set results to gs://bucket/prefix"
            )
        require(self.data_dir.startswith("/"), "data_dir", self.data_dir, "an absolute folder")
        if under and self.data_claim == self.results_claim:
            raise UserError(
                f"data_claim and results_claim are both {self.data_claim!r}, but KFP mounts each "
                f"once: expected two claims, or data_claim: '' and data_dir: {RESULTS_MOUNT}/data"
            )
        mounted = (DATA_MOUNT, RESULTS_MOUNT) if under else (DATA_MOUNT,)
        is_inside = any(Path(self.data_dir).is_relative_to(each) for each in mounted)
        if self.data_claim and not is_inside:
            raise UserError(
                f"data_dir is {self.data_dir!r}, but {self.data_claim} is mounted on {DATA_MOUNT}: "
                "expected a folder there, or data_claim: '' for data in the image"
            )

    def _check_vertex(self) -> None:
        given = f"vertex.data_dir is {self.vertex.data_dir!r}, but"
        if self.vertex.data_dir and not self.results.startswith("gs://"):
            raise UserError(
                f"{given} results is {self.results!r}: Vertex AI has no volumes; set results to "
                "gs://bucket/prefix"
            )
        if self.vertex.data_dir and not REGISTRY_IMAGE.fullmatch(self.image):
            raise UserError(
                f"{given} image is {self.image!r}: expected one in a registry, such as "
                "europe-docker.pkg.dev/project/repository/ieg-python:1a2b"
            )

    @property
    def user_and_group(self) -> tuple[int, int] | None:
        """The pods' user and group as numbers; None for the platform's choice."""
        user, _, group = self.pod_user.partition(":")
        return (int(user), int(group)) if user else None

    @property
    def kubernetes_namespace(self) -> str:
        """The pods' namespace; in a single-user installation, KFP's."""
        return self.namespace or self.kfp_namespace


def load(path: str | Path | None = None) -> ClusterFile:
    """Reads the cluster file.

    Args:
      path: The file; by default the one that IEG_CLUSTER names, else cluster.yaml in the
        repository's root; if that does not exist, the defaults apply.

    Returns:
      The cluster file, its relative paths resolved.

    Raises:
      UserError: When the file is missing or not valid YAML, or a key or a value is invalid.
    """
    named = str(path or os.environ.get("IEG_CLUSTER", ""))
    file = Path(named).expanduser() if named else ROOT / "cluster.yaml"
    if not named and not file.exists():
        return ClusterFile()
    try:
        content = strict_yaml.read(file)
        cluster_file: ClusterFile = strict_yaml.build(
            ClusterFile, {} if content is None else content, ""
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    paths: dict[str, Any] = {
        name: str(file.parent / Path(value).expanduser())
        for name in LOCAL_FILES
        if (value := getattr(cluster_file, name))
    }
    return dataclasses.replace(cluster_file, **paths)


def endpoint(cluster_file: ClusterFile) -> str:
    """Returns the address of the KFP API; KF_PIPELINES_ENDPOINT overrides the cluster file."""
    return os.environ.get("KF_PIPELINES_ENDPOINT", "") or cluster_file.endpoint


def endpoint_configured(cluster_file: ClusterFile) -> bool:
    """Returns whether sweeps run on a cluster by default."""
    return bool(endpoint(cluster_file))


def _parse_quantity(text: str) -> Decimal:
    from kubernetes.utils.quantity import parse_quantity

    quantity: Decimal = parse_quantity(text)
    return quantity


def _check_image(image: str) -> None:
    if not image:
        return
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    pinned = re.fullmatch(r"sha256:[0-9a-f]{64}", digest) if digest else tag not in ("", "latest")
    expected = "an image with a tag other than latest, such as registry.example.org/ieg-python:1a2b"
    require(bool(pinned) and not re.search(r"\s", image), "image", image, expected)
