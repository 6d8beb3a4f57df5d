# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: a network of one's own, undisturbed and interrupted.

python own_runs.py OUT.npz METHOD...
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.host.runtime import Runtime
from ieg_core.recipes import build
from ieg_core.store.leases import owned
from ieg_core.training.export import export_model
from ieg_core.training.loop import train
from tests.ieg_core.training.compiled_once import compile_once

RUNTIME = Runtime(threads=1, steps_per_execution=5, checkpoint_seconds=0.0)


class InterruptedRunError(Exception):
    pass


def stop_halfway(moment):
    if moment.step >= 10:
        raise InterruptedRunError


def main(out: str, methods: list[str]) -> None:
    compile_once()
    spec = parse("digits_uniform_0.4")
    source = open_source("digits", Path("data"))
    written = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for method in methods:
            config = override(
                build.build_config(
                    spec, method, num_steps=20, network="tests.ieg_core.models.nets_of_mine:small"
                ),
                ["batch_size=50", *(["method.start_epoch=0"] if method == "fsr" else [])],
            )
            label_set = prepare_label_set(
                spec,
                seed=0,
                probe_per_class=config.probe_per_class,
                source=source,
                label_sets_dir=folder / "label_sets",
            )

            def run(name, tell=lambda moment: None, label_set=label_set, config=config):
                with owned(folder / name) as lease:
                    return train(config, label_set, source, lease, "trial", RUNTIME, tell)

            whole = run(f"{method}-whole")
            try:
                run(f"{method}-cut", stop_halfway)
            except InterruptedRunError:
                resumed = run(f"{method}-cut")
            for name, trained in (("whole", whole), ("resumed", resumed)):
                for index, value in enumerate(trained.state["params"] + trained.state["stats"]):
                    written[f"{method}/{name}/{index}"] = value
            path = folder / "model.keras"
            export_model(path, config, label_set, source, whole.state)
            # Keras takes a TensorFlow that is blocked for one that is there.
            if sys.modules.get("tensorflow", keras) is None:
                del sys.modules["tensorflow"]
            images = source.test_images(range(len(source.test_labels)))
            logits = keras.ops.convert_to_numpy(
                keras.saving.load_model(path)(images.astype("float32"))
            )
            written[f"{method}/exported"] = np.mean(logits.argmax(1) == source.test_labels)
            written[f"{method}/accuracy"] = whole.evaluation_ema.accuracy
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
