# SPDX-License-Identifier: Apache-2.0
"""The training of a pod's trials as a task of a pipeline."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ieg_core.store import lost_pods, mirror
from ieg_core.store.runs import AT_ONCE
from ieg_core.sweep import slots, worker


def train(place: str, trials: Sequence[str], data_dir: Path, run: str) -> None:
    """Trains the trials that share a pod, each in a process of its own, which fails alone.

    IEG_TRIALS_AT_ONCE of them train at the same time, on the same GPUs; one after the other if it
    is not set. Each has the threads that it has alone, which its last bits may depend on.

    Args:
      place: The results root, namespace included; a folder or gs://bucket/prefix.
      trials: The trials' names.
      data_dir: Folder of the base data sets.
      run: The run's id.

    Raises:
      UserError: When the results root cannot be reached.
    """
    lost = lost_pods.count_attempt(place, "train", trials[0], run)
    at_once = int(os.environ.get(AT_ONCE) or 1)
    if at_once > 1:
        os.environ |= slots.shared_gpu_environment(at_once)

    def train_one(trial: str) -> None:
        with mirror.trial(place, trial) as root:
            if not lost_pods.fail_after_lost_pods(root, trial, lost):
                worker.run_step("train", trial, root, data_dir)

    with ThreadPoolExecutor(at_once) as threads:
        for ended in [threads.submit(train_one, trial) for trial in trials]:
            ended.result()
