# SPDX-License-Identifier: Apache-2.0
"""The cluster file: everything specific to an installation of KFP, in one strictly read YAML file.

docs/cluster.example.yaml explains each key. Without a file the defaults apply; they fit the
manifests in k8s/ and name no endpoint.
"""

import dataclasses
import os
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from ieg_core.errors import UserError, require, unknown_name

ROOT = Path(__file__).parents[1]
DATA_MOUNT, RESULTS_MOUNT = "/data", "/results"
LOCAL_FILES = ("token_file", "cookie_file", "ca_file", "results_mount")
BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[^/]+)*")
# KFP takes only these of Kubernetes' spellings of a quantity.
CPU, CPU_EXAMPLES = re.compile(r"([0-9]+\.)?[0-9]+m?"), "cores such as '2' or '500m'"
MEMORY, MEMORY_EXAMPLE = re.compile(r"[0-9]+([EPTGMK]i?)?"), "a size such as 4Gi"
MOST_NODES = 10_000
"""Most values of a YAML document."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
OPERATORS, EFFECTS = ("Exists", "Equal"), ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


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


SPOT = "cloud.google.com/gke-spot"


@dataclass(frozen=True)
class GpuNodePool:
    """The nodes for trainings with a GPU.

    Attributes:
      resource: The GPUs' resource name.
      count: GPUs per training.
      node_selector: Labels of the nodes.
      tolerations: Taints of the nodes.
      shared_memory: Size of /dev/shm, which counts towards the training's memory.
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
        require(self.count >= 1, "count", self.count, "at least 1")
        memory = MEMORY.fullmatch(self.shared_memory)
        require(bool(memory), "shared_memory", self.shared_memory, MEMORY_EXAMPLE)


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
        require(self.count >= 1, "count", self.count, "at least 1")


@dataclass(frozen=True)
class Resources:
    """The resources of a container: requests decide where it is scheduled, limits bound its use.

    Attributes:
      cpu_request: Cores, such as "2" or "500m".
      cpu_limit: Cores.
      memory_request: Memory, such as "4Gi".
      memory_limit: Memory; a container that exceeds it is killed.
    """

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str

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
      trials_per_pod: Number of trials that share a pod, one after the other, each failing alone.
      checkpoint_minutes: Minutes between two checkpoints: the most that a lost pod costs.
      time_zone: The time zone of schedules, the controller's CRON_SCHEDULE_TIMEZONE.
      max_gpu_hours: Largest estimate that is submitted.
      experiment: The experiment in the KFP UI that holds the runs.
      kube_context: Context of the kubeconfig for reading nodes and pods; empty: the current one.
    """

    endpoint: str = ""
    ui_endpoint: str = ""
    namespace: str = ""
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
    time_limit: int = 24 * 3600
    retries: int = 3
    parallelism: int = 4
    trials_per_pod: int = 1
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
        for name in (*names, "queue", "priority_class"):
            value = getattr(self, name)
            label = not value or re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value)
            require(bool(label), name, value, "a Kubernetes name (lower case) or nothing")
        user = not self.pod_user or re.fullmatch(r"[1-9][0-9]*:[0-9]+", self.pod_user)
        expected = "user:group as numbers, not root, such as 1000:1000, or nothing"
        require(bool(user), "pod_user", self.pod_user, expected)
        wrong = [port for port in self.api_ports if not 1 <= port <= 65535]
        require(not wrong and bool(self.api_ports), "api_ports", self.api_ports, "1 to 65535")
        _check_image(self.image)
        self._check_folders()
        for each in self.cpu.tolerations:
            gpus = each.key in ("", self.gpu.resource) or "gpu" in each.key.lower()
            expected = "no taint of GPU nodes, which trainings alone tolerate"
            require(not gpus, "cpu.tolerations", each.key or "every taint", expected)
        require(self.time_limit >= 60, "time_limit", self.time_limit, "at least 60 seconds")
        require(0 <= self.retries <= 100, "retries", self.retries, "from 0 to 100")
        require(1 <= self.parallelism <= 100, "parallelism", self.parallelism, "from 1 to 100")
        shared = self.trials_per_pod
        require(1 <= shared <= 100, "trials_per_pod", shared, "from 1 to 100")
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
        if self.vertex.data_dir and under:
            raise UserError(
                f"vertex.data_dir is {self.vertex.data_dir!r}, but results is {self.results!r}: "
                "Vertex AI has no volumes; set results to gs://bucket/prefix"
            )
        require(self.data_dir.startswith("/"), "data_dir", self.data_dir, "an absolute folder")

    @property
    def user_and_group(self) -> tuple[int, int] | None:
        """The pods' user and group as numbers; None for the platform's choice."""
        user, _, group = self.pod_user.partition(":")
        return (int(user), int(group)) if user else None

    @property
    def kubernetes_namespace(self) -> str:
        """The pods' namespace; in a single-user installation, KFP's."""
        return self.namespace or "kubeflow"


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
        content = parse_yaml(file.read_text(encoding="utf-8"))
        cluster_file: ClusterFile = build(ClusterFile, {} if content is None else content, "")
    except OSError as error:
        raise UserError(f"cannot read the cluster file {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"the cluster file {file} is not valid YAML: {words}") from error
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    paths: dict[str, Any] = {
        name: str(file.parent / Path(value).expanduser())
        for name in LOCAL_FILES
        if (value := getattr(cluster_file, name))
    }
    return dataclasses.replace(cluster_file, **paths)


def parse_yaml(text: str) -> Any:
    """Parses a YAML document.

    Raises:
      yaml.YAMLError: When it is not valid YAML, is nested too deeply, or has aliases that make it
        too large.
      UserError: When a mapping has a key twice.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _count(node, {}) > MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MOST_NODES:,} values")
        refuse_doubles(node)
        return yaml.safe_load(text)
    except UserError:
        raise
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or an alias contains itself") from None
    except (ValueError, TypeError, AttributeError) as error:  # such as a date in a 13th month
        raise yaml.YAMLError(str(error)) from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the number of values below a node, those behind an alias each time."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]


def endpoint(cluster_file: ClusterFile) -> str:
    """Returns the address of the KFP API; KF_PIPELINES_ENDPOINT overrides the cluster file."""
    return os.environ.get("KF_PIPELINES_ENDPOINT", "") or cluster_file.endpoint


def endpoint_configured(cluster_file: ClusterFile) -> bool:
    """Returns whether sweeps run on a cluster by default."""
    return bool(endpoint(cluster_file))


def seconds(text: str) -> int:
    """Returns a duration such as "90m" or "24h" in seconds.

    Raises:
      UserError: When the text is not a duration.
    """
    match = re.fullmatch(r"(\d+)\s*([smhd])", text.strip())
    if not match:
        raise UserError(f"expected a duration such as 90m, 24h or 2d, got {text!r}")
    return int(match[1]) * UNITS[match[2]]


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


def refuse_doubles(node: yaml.Node | None) -> None:
    """Raises a UserError for a duplicate key in a mapping."""
    # YAML forbids duplicate keys, but PyYAML silently takes the last one.
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{name} is there twice: expected each key once; remove one")
        for _, value in node.value:
            refuse_doubles(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            refuse_doubles(value)


def build(kind: type, content: object, where: str) -> Any:
    """Builds a dataclass from a YAML mapping, checking each value against its field's type.

    Args:
      kind: The dataclass.
      content: The parsed content.
      where: Key of this part of the file; "" for the whole file.

    Raises:
      UserError: When a key or a value is invalid; the message names the key.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where or 'the file'}: expected keys with values, got {content!r}")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in content.items():
        if key not in hints:
            raise unknown_name(f"key in {where}" if where else "key", str(key), hints)
        values[key] = _value(hints[key], value, f"{where}.{key}" if where else str(key), kind)
    missing = [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
        and each.name not in values
    ]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} missing")
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from None


def _value(expected: Any, value: object, where: str, owner: type) -> Any:
    if dataclasses.is_dataclass(expected):
        return build(typing.cast(type, expected), value, where)
    origin = typing.get_origin(expected)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, got {value!r}")
        item = typing.get_args(expected)[0]
        return tuple(_value(item, each, f"{where}[{i}]", owner) for i, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected keys with values, got {value!r}")
        for key, each in value.items():
            if not (isinstance(key, str) and isinstance(each, str)):
                raise UserError(f"{where}: {key}: {each!r} is not text: put it in quotes")
        return dict(value)
    if where == "time_limit" and isinstance(value, str):
        try:
            return seconds(value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if expected is str and number and owner is Resources:
        return str(value)  # `cpu_limit: 2` means "2"
    if expected is float and number and not abs(typing.cast(float, value)) > sys.float_info.max:
        return float(typing.cast(float, value))
    if type(value) is not expected:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        hint = ": put it in quotes" if expected is str and number else ""
        raise UserError(f"{where}: expected {names[expected]}, got {value!r}{hint}")
    return value
