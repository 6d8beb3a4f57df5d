# SPDX-License-Identifier: Apache-2.0
"""Where a pipeline runs: the same components, placed by a profile chosen at compile time.

A profile's values are constants of the compiled pipeline: inside a loop KFP 2.17 loses resources
that are given as pipeline parameters (`checks.undeclared_input`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from kfp import dsl, kubernetes

from components import IMAGE
from ieg_core.store.names import DEFAULT_ROOT
from ieg_core.store.runs import AT_ONCE, ATTEMPTS, TIME_LIMIT
from ieg_core.tasks.examine import POD_USER
from pipelines.cluster_files import DATA_MOUNT, RESULTS_MOUNT, ClusterFile, Resources, Toleration
from pipelines.revision import is_dirty

POD_LABEL = ("app.kubernetes.io/part-of", "ieg")
"""Marks the pods of our tasks, but not KFP's drivers, for the network policy in k8s/base."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
BACKOFF_SECONDS, BACKOFF_FACTOR = 30, 2
SMALL_SECONDS, SMALL_RETRIES = 2 * 3600, 2
GRACE_SECONDS = 1800
"""Time of a pod beyond that of its trials: to pull the image, and to record what was ended."""
UNDISTURBED: Mapping[str, str] = MappingProxyType(
    {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }
)
"""Keeps autoscalers from moving a training to another node to save a part of this one."""
MAX_TRIALS = 100
"""Maximum number of trials per run; more would approach Kubernetes' size limit for a workflow."""


@dataclass(frozen=True)
class PodTemplate:
    """How the pods of one kind of task are created.

    Attributes:
      resources: CPUs and memory.
      time_limit: Maximum duration of one attempt, in seconds.
      grace: Seconds after which Kubernetes ends the pod if the task has not kept to `time_limit`.
      retries: Number of further attempts.
      env: Environment variables.
      node_selector: Labels of the nodes.
      tolerations: Taints of the nodes.
      resource: Resource name of the accelerators.
      count: Number of accelerators.
      shared_memory: Size of /dev/shm; empty for the container's default of 64 MiB.
      user: User and group; None for the platform's choice.
      labels: Further labels of the pods.
      annotations: Annotations of the pods.
    """

    resources: Resources
    time_limit: int
    grace: int = 0
    retries: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    resource: str = ""
    count: int = 0
    shared_memory: str = ""
    user: tuple[int, int] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def deadline(self) -> int:
        """Maximum duration of a pod, in seconds."""
        return self.time_limit + self.grace

    @property
    def patience(self) -> int:
        """Maximum duration of all attempts together, in seconds.

        KFP counts `backoff_max_duration` from the start of the first attempt and applies it as a
        deadline to the later ones: its default of one hour would end a resumed training.
        """
        waits = sum(BACKOFF_SECONDS * BACKOFF_FACTOR**attempt for attempt in range(self.retries))
        return (self.retries + 1) * self.deadline + waits


@dataclass(frozen=True)
class Profile:
    """The settings that differ between the places where a pipeline runs.

    Attributes:
      name: The profile's name.
      image: The image of every task; ignored by kfp.local.
      parallelism: Concurrent trials, a constant of the compiled pipeline; 0 for no limit there.
      max_trials: Maximum number of trials of one run.
      trials_per_pod: Number of trials that share a pod.
      dataset: Default of the pipeline parameter with this name.
      accelerator: Default of the pipeline parameter with this name.
      data_dir: Default of the pipeline parameter with this name.
      results: Default of the pipeline parameter with this name.
      pod_templates: For "train", "evaluate", "check_results" and "small" (all others); empty
        if there are no pods.
      kubernetes: Whether the package may have a second document, with settings of Kubernetes.
      volumes: Mount paths by volume claim.
    """

    name: str
    image: str = IMAGE
    parallelism: int = 0
    max_trials: int = 1000
    trials_per_pod: int = 1
    dataset: str = "digits_uniform"
    accelerator: bool = False
    data_dir: str = "data"
    results: str = DEFAULT_ROOT
    pod_templates: Mapping[str, PodTemplate] = field(default_factory=dict)
    kubernetes: bool = True
    volumes: Mapping[str, str] = field(default_factory=dict)


LOCAL = Profile(name="local")
"""This machine; its slots limit the concurrent trials (`pipelines.local.runner`)."""


def cpu(cluster_file: ClusterFile, image: str = IMAGE) -> Profile:
    """Returns the profile of a cluster whose trainings use CPUs.

    Args:
      cluster_file: The cluster file.
      image: The image if the cluster file names none.
    """
    place = _counted(cluster_file, cluster_file.resources.train)
    train = replace(place, env=_train_env(cluster_file), annotations=UNDISTURBED)
    return _on_cluster("cpu", cluster_file, image, train)


def gpu(cluster_file: ClusterFile, image: str = IMAGE) -> Profile:
    """Returns the profile of a cluster whose trainings use GPUs.

    Args:
      cluster_file: The cluster file.
      image: The image if the cluster file names none.
    """
    pool = cluster_file.gpu
    train = replace(
        _counted(cluster_file, cluster_file.resources.train),
        env=_train_env(cluster_file) | {"IEG_REQUIRE_GPU": "1"},
        node_selector={**pool.node_selector, **(pool.spot_node_selector if pool.spot else {})},
        tolerations=pool.tolerations + (pool.spot_tolerations if pool.spot else ()),
        resource=pool.resource,
        count=pool.count,
        shared_memory=pool.shared_memory,
        # Their nodes may vanish whatever the pods ask for.
        annotations={} if pool.spot else UNDISTURBED,
    )
    return _on_cluster("gpu", cluster_file, image, train)


def vertex(cluster_file: ClusterFile, image: str = IMAGE) -> Profile:
    """Returns the profile of Vertex AI Pipelines, whose trainings use GPUs.

    It takes one document, without the part for Kubernetes: no user, time limit, volumes, labels or
    node pools. Machines follow from the resources and the accelerator's model.

    Args:
      cluster_file: The cluster file.
      image: The image if the cluster file names none.
    """
    on_cluster = gpu(replace(cluster_file, pod_user=""), image)
    place = cluster_file.vertex
    templates = on_cluster.pod_templates
    train = replace(templates["train"], resource=place.accelerator, count=place.count)
    return replace(
        on_cluster,
        name="vertex",
        data_dir=place.data_dir,
        pod_templates={**templates, "train": train},
        kubernetes=False,
        volumes={},
    )


def place(task: dsl.PipelineTask, kind: str, profile: Profile) -> dsl.PipelineTask:
    """Applies a profile to a task.

    Args:
      task: The task.
      kind: "train", "evaluate", "check_results" or "small".
      profile: The profile.

    Returns:
      The task.
    """
    # KFP's cache does not see changes of our code, and disabling it at submission does not reach
    # the tasks of a loop. The results root already avoids repeated work.
    task.set_caching_options(False)
    task.set_container_image(profile.image)
    pod_template = profile.pod_templates.get(kind)
    if pod_template:
        _set_resources(task, pod_template)
        if not profile.kubernetes:
            return task
        _set_pod(task, pod_template)
        if is_dirty(profile.image):
            kubernetes.set_image_pull_policy(task, "Always")
        for claim, path in profile.volumes.items():
            kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
    return task


def _env(cluster_file: ClusterFile) -> dict[str, str]:
    seconds = round(cluster_file.checkpoint_minutes * 60)
    user = {POD_USER: cluster_file.pod_user} if cluster_file.pod_user else {}
    return {"HOME": "/tmp", "IEG_CHECKPOINT_SECONDS": str(seconds), **user}


def _labels(cluster_file: ClusterFile) -> dict[str, str]:
    labels = {QUEUE_LABEL: cluster_file.queue, PRIORITY_LABEL: cluster_file.priority_class}
    return {key: value for key, value in labels.items() if value}


def _counted(cluster_file: ClusterFile, resources: Resources) -> PodTemplate:
    """Returns the template of a task in the loop, which records a failure and succeeds."""
    return replace(
        _pod_template(cluster_file, resources),
        grace=GRACE_SECONDS,
        # One attempt more than the cluster allows: it only records that all the others were lost.
        retries=cluster_file.retries + 1,
        env=_counted_env(cluster_file),
    )


def _counted_env(cluster_file: ClusterFile) -> dict[str, str]:
    counted = {ATTEMPTS: cluster_file.retries + 1, TIME_LIMIT: cluster_file.time_limit}
    return _env(cluster_file) | {name: str(value) for name, value in counted.items()}


def _train_env(cluster_file: ClusterFile) -> dict[str, str]:
    at_once = cluster_file.trials_at_once
    return _counted_env(cluster_file) | ({AT_ONCE: str(at_once)} if at_once > 1 else {})


def _pod_template(cluster_file: ClusterFile, resources: Resources) -> PodTemplate:
    return PodTemplate(
        resources=resources,
        time_limit=cluster_file.time_limit,
        retries=cluster_file.retries,
        env=_env(cluster_file),
        node_selector=cluster_file.cpu.node_selector,
        tolerations=cluster_file.cpu.tolerations,
        user=cluster_file.user_and_group,
        labels=_labels(cluster_file),
    )


def _on_cluster(name: str, cluster_file: ClusterFile, image: str, train: PodTemplate) -> Profile:
    evaluate = _counted(cluster_file, cluster_file.resources.evaluate)
    small = replace(
        _pod_template(cluster_file, cluster_file.resources.small),
        time_limit=min(cluster_file.time_limit, SMALL_SECONDS),
        retries=min(cluster_file.retries, SMALL_RETRIES),
    )
    mounts = {cluster_file.data_claim: DATA_MOUNT}
    if Path(cluster_file.results).is_relative_to(RESULTS_MOUNT):
        mounts[cluster_file.results_claim] = RESULTS_MOUNT
    return Profile(
        name=name,
        image=cluster_file.image or image,
        parallelism=cluster_file.parallelism,
        max_trials=MAX_TRIALS,
        trials_per_pod=cluster_file.trials_per_pod,
        dataset="cifar10_uniform" if train.count else "digits_uniform",
        accelerator=train.count > 0,
        data_dir=cluster_file.data_dir,
        results=cluster_file.results,
        pod_templates={
            "train": train,
            "evaluate": evaluate,
            "small": small,
            # It fails on purpose: a retry would only delay the bad news.
            "check_results": replace(small, retries=0),
        },
        volumes={claim: path for claim, path in mounts.items() if claim},
    )


def _set_resources(task: dsl.PipelineTask, pod_template: PodTemplate) -> None:
    resources = pod_template.resources
    task.set_cpu_request(resources.cpu_request).set_cpu_limit(resources.cpu_limit)
    task.set_memory_request(resources.memory_request).set_memory_limit(resources.memory_limit)
    if pod_template.count:
        task.set_accelerator_type(pod_template.resource).set_accelerator_limit(pod_template.count)
    if pod_template.retries:
        task.set_retry(
            pod_template.retries,
            backoff_duration=f"{BACKOFF_SECONDS}s",
            backoff_factor=BACKOFF_FACTOR,
            backoff_max_duration=f"{pod_template.patience}s",
        )
    for name, value in pod_template.env.items():
        task.set_env_variable(name, value)


def _set_pod(task: dsl.PipelineTask, pod_template: PodTemplate) -> None:
    user, group = pod_template.user or (None, None)
    kubernetes.set_security_context(
        task, run_as_user=user, run_as_group=group, run_as_non_root=True
    )
    for key, value in (POD_LABEL, *pod_template.labels.items()):
        kubernetes.add_pod_label(task, key, value)
    for key, value in pod_template.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    kubernetes.set_timeout(task, pod_template.deadline)
    # KFP mounts /.cache and others, but not /tmp, which Python, the launcher and HOME need.
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp", size_limit="20Gi")
    if pod_template.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name="dshm",
            mount_path="/dev/shm",
            medium="Memory",
            size_limit=pod_template.shared_memory,
        )
    for key, value in pod_template.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for each in pod_template.tolerations:
        kubernetes.add_toleration(
            task,
            key=each.key or None,
            operator=each.operator,
            value=each.value or None,
            effect=each.effect or None,
        )
