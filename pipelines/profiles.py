# SPDX-License-Identifier: Apache-2.0
"""Where a pipeline runs: the same components, placed by a profile that is chosen at compile time.

What a profile says are constants of the compiled pipeline: inside a loop KFP 2.17 loses resources
that are given as pipeline parameters (`checks.undeclared_input`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kfp import dsl, kubernetes

from components import IMAGE
from ieg_core.runs import ATTEMPTS
from pipelines.site import DATA_MOUNT, RESULTS_MOUNT, Amount, Site, Toleration

USER = GROUP = 1000
POD_LABEL = ("app.kubernetes.io/part-of", "ieg")
"""On the pods of our tasks, and on no driver's: k8s/base's network policy holds for it."""
BACKOFF_SECONDS, BACKOFF_FACTOR = 30, 2
SMALL_SECONDS, SMALL_RETRIES = 2 * 3600, 2
MAX_CELLS = 100
"""Cells a run on a cluster: more bring the workflow near the size that Kubernetes stores."""


@dataclass(frozen=True)
class Placement:
    """How the pods of one kind of task are made.

    Attributes:
      amount: CPUs and memory.
      time_limit: How long one attempt may take, in seconds.
      retries: Further attempts.
      env: Environment variables.
      node_selector: Labels of the nodes.
      tolerations: Taints of the nodes.
      resource: Resource name of the accelerators.
      count: Number of accelerators.
      shared_memory: Size of a /dev/shm in memory; empty: the container's own 64 MiB.
    """

    amount: Amount
    time_limit: int
    retries: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    resource: str = ""
    count: int = 0
    shared_memory: str = ""

    @property
    def patience(self) -> int:
        """How long all attempts may take together, in seconds.

        KFP counts `backoff_max_duration` from the start of the first attempt and makes it the
        deadline of the later ones: its default of one hour would end a resumed training.
        """
        waits = sum(BACKOFF_SECONDS * BACKOFF_FACTOR**attempt for attempt in range(self.retries))
        return (self.retries + 1) * self.time_limit + waits


@dataclass(frozen=True)
class Profile:
    """What differs between the places where a pipeline runs.

    Attributes:
      name: The profile's name.
      image: The image of every task; ignored by kfp.local.
      parallelism: Cells at once, a constant of the compiled pipeline; 0 leaves it to the place.
      max_cells: Most cells that one run may have.
      dataset: Default of the pipeline's parameter of that name.
      accelerator: Default of the pipeline's parameter of that name.
      data_dir: Default of the pipeline's parameter of that name.
      results: Default of the pipeline's parameter of that name.
      placements: For "train", "evaluate", "verdict" and "small" (all others); empty where there are
        no pods.
      volumes: Volume claims and where they are mounted.
    """

    name: str
    image: str = IMAGE
    parallelism: int = 0
    max_cells: int = 1000
    dataset: str = "digits_uniform"
    accelerator: bool = False
    data_dir: str = "data"
    results: str = "runs"
    placements: Mapping[str, Placement] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)


LOCAL = Profile(name="local")
"""This machine. How many cells run at once is decided by its slots (`pipelines.local`)."""


def cpu(site: Site, image: str = IMAGE) -> Profile:
    """Returns the profile of a cluster whose trainings use CPUs.

    Args:
      site: The installation.
      image: The image, where the site names none.
    """
    place = _placement(site, site.resources.train)
    train = replace(place, retries=site.retries + 1, env=_counted_env(site))
    return _on_cluster("cpu", site, image, train)


def gpu(site: Site, image: str = IMAGE) -> Profile:
    """Returns the profile of a cluster whose trainings use GPUs.

    Args:
      site: The installation.
      image: The image, where the site names none.
    """
    pool = site.gpu
    train = Placement(
        amount=site.resources.train,
        time_limit=site.time_limit,
        retries=site.retries + 1,
        env=_counted_env(site) | {"IEG_REQUIRE_GPU": "1"},
        node_selector={**pool.node_selector, **(pool.spot_node_selector if pool.spot else {})},
        tolerations=pool.tolerations + (pool.spot_tolerations if pool.spot else ()),
        resource=pool.resource,
        count=pool.count,
        shared_memory=pool.shared_memory,
    )
    return _on_cluster("gpu", site, image, train)


def place(task: dsl.PipelineTask, kind: str, profile: Profile) -> dsl.PipelineTask:
    """Gives a task what its profile says.

    Args:
      task: The task.
      kind: "train", "evaluate", "verdict" or "small".
      profile: The place.

    Returns:
      The task.
    """
    # The results root remembers. KFP's cache does not see our code, and to switch it off at
    # submission does not reach the tasks of a loop.
    task.set_caching_options(False)
    task.set_container_image(profile.image)
    placement = profile.placements.get(kind)
    if placement:
        _set_resources(task, placement)
        _set_pod(task, placement)
        for claim, path in profile.volumes.items():
            kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
    return task


def _env(site: Site) -> dict[str, str]:
    seconds = round(site.checkpoint_minutes * 60)
    return {"HOME": "/tmp", "IEG_CHECKPOINT_SECONDS": str(seconds)}


def _counted_env(site: Site) -> dict[str, str]:
    # One attempt more than the site allows: the one that only writes down that all were lost.
    return _env(site) | {ATTEMPTS: str(site.retries + 1)}


def _placement(site: Site, amount: Amount) -> Placement:
    return Placement(
        amount=amount,
        time_limit=site.time_limit,
        retries=site.retries,
        env=_env(site),
        node_selector=site.cpu.node_selector,
        tolerations=site.cpu.tolerations,
    )


def _on_cluster(name: str, site: Site, image: str, train: Placement) -> Profile:
    place = _placement(site, site.resources.evaluate)
    evaluate = replace(place, retries=site.retries + 1, env=_counted_env(site))
    small = Placement(
        amount=site.resources.small,
        time_limit=min(site.time_limit, SMALL_SECONDS),
        retries=min(site.retries, SMALL_RETRIES),
        env=_env(site),
        node_selector=site.cpu.node_selector,
        tolerations=site.cpu.tolerations,
    )
    mounts = {site.data_claim: DATA_MOUNT}
    if Path(site.results).is_relative_to(RESULTS_MOUNT):
        mounts[site.results_claim] = RESULTS_MOUNT
    return Profile(
        name=name,
        image=site.image or image,
        parallelism=site.parallelism,
        max_cells=MAX_CELLS,
        dataset="cifar10_uniform" if train.count else "digits_uniform",
        accelerator=train.count > 0,
        data_dir=site.data_dir,
        results=site.results,
        placements={
            "train": train,
            "evaluate": evaluate,
            "small": small,
            # It fails on purpose: to try again would only delay the bad news.
            "verdict": replace(small, retries=0),
        },
        volumes={claim: path for claim, path in mounts.items() if claim},
    )


def _set_resources(task: dsl.PipelineTask, placement: Placement) -> None:
    amount = placement.amount
    task.set_cpu_request(amount.cpu_request).set_cpu_limit(amount.cpu_limit)
    task.set_memory_request(amount.memory_request).set_memory_limit(amount.memory_limit)
    if placement.count:
        task.set_accelerator_type(placement.resource).set_accelerator_limit(placement.count)
    if placement.retries:
        task.set_retry(
            placement.retries,
            backoff_duration=f"{BACKOFF_SECONDS}s",
            backoff_factor=BACKOFF_FACTOR,
            backoff_max_duration=f"{placement.patience}s",
        )
    for name, value in placement.env.items():
        task.set_env_variable(name, value)


def _set_pod(task: dsl.PipelineTask, placement: Placement) -> None:
    kubernetes.set_security_context(
        task, run_as_user=USER, run_as_group=GROUP, run_as_non_root=True
    )
    kubernetes.add_pod_label(task, *POD_LABEL)
    kubernetes.set_timeout(task, placement.time_limit)
    # KFP mounts /.cache and the like, not /tmp, which Python, the launcher and HOME need.
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp", size_limit="20Gi")
    if placement.shared_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name="dshm",
            mount_path="/dev/shm",
            medium="Memory",
            size_limit=placement.shared_memory,
        )
    for key, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for each in placement.tolerations:
        kubernetes.add_toleration(
            task,
            key=each.key or None,
            operator=each.operator,
            value=each.value or None,
            effect=each.effect or None,
        )
