# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: training on images that are read batch by batch.

python streamed_runs.py OUT.npz resume DATA_DIR METHOD...   undisturbed and interrupted runs
python streamed_runs.py OUT.npz memory DATA_DIR             the most memory that a run took, in MiB
"""

import dataclasses
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build
from ieg_core.store.leases import owned

RUNTIME = Runtime(threads=1, steps_per_execution=3, checkpoint_seconds=0.0)
STEPS, INTERRUPTED_AT = 12, 6


class InterruptedRunError(Exception):
    pass


def stop_halfway(report):
    if report.step >= INTERRUPTED_AT:
        raise InterruptedRunError


def trainer(data_dir: Path, method: str, size: int, folder: Path):
    """Returns a function that trains in a folder of that name."""
    from ieg_core.training.loop import train

    plain = build.build_config(
        parse("folder_uniform_0.4"),
        method,
        num_steps=STEPS,
        image_size=size,
        network="tests.ieg_core.models.nets_of_mine:small",
    )
    config = override(plain, ["batch_size=12", "evaluations=1"])
    if method == "fsr":
        config = override(config, ["method.start_epoch=0", "method.capacity=12",
                                   "method.dictionary_batch_size=6"])  # fmt: skip
    config = dataclasses.replace(
        config, images=dataclasses.replace(config.images, eval_sets=("photos",))
    )
    source = open_source("folder", data_dir, config.images)
    label_set = prepare_label_set(
        parse(config.dataset),
        seed=0,
        probe_per_class=config.probe_per_class,
        source=source,
        label_sets_dir=folder / "label_sets",
    )

    def run(name, on_step=lambda report: None):
        with owned(folder / name) as lease:
            return train(config, label_set, source, lease, "trial", RUNTIME, on_step)

    return run


def resume(data_dir: Path, methods: list[str]) -> dict[str, np.ndarray]:
    written = {}
    with tempfile.TemporaryDirectory() as text:
        for method in methods:
            run = trainer(data_dir, method, 100, Path(text))
            whole = run(f"{method}-whole")
            try:
                run(f"{method}-cut", stop_halfway)
            except InterruptedRunError:
                resumed = run(f"{method}-cut")
            for name, trained in (("whole", whole), ("resumed", resumed)):
                state = trained.state["params"] + list(trained.state["method"].values())
                for index, value in enumerate(state):
                    written[f"{method}/{name}/{index}"] = value
            written[f"{method}/photos"] = whole.eval_sets["photos"]["accuracy_ema"]
            written[f"{method}/curve"] = whole.curves["evaluations"][-1]["accuracy_ema_photos"]
            if method == "fsr":
                written["fsr/dictionary"] = whole.state["method"]["dictionary"]
    return written


def main(out: str, what: str, data_dir: str, *methods: str) -> None:
    set_environment(RUNTIME)
    from ieg_core import backend
    from tests.ieg_core.training.compiled_once import compile_once

    backend.start(RUNTIME)
    if what == "resume":
        compile_once()
        np.savez(out, **resume(Path(data_dir), list(methods)))
        return
    with tempfile.TemporaryDirectory() as text:
        trainer(Path(data_dir), "supervised", 224, Path(text))("run")
    np.savez(out, mebibytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
