# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: whole short runs, undisturbed, interrupted, permuted.

    python runs.py OUT.npz STEPS METHOD...

In the last, the clean labels outside the probe are permuted, and the given labels of a validation
set are 0. Of a network of one's own the exported model is tried, too.
"""

import dataclasses
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

RUNTIME = Runtime(threads=1, steps_per_execution=7, checkpoint_seconds=0.0)
INTERRUPTED_AT = 14
EXTRA = {"fsr": ["method.start_epoch=0"]}
OWN_NETWORK = "tests.ieg_core.models.nets_of_mine:small"
NETWORKS = {"l2r": "preact8"}  # the others' is the small one, which is compiled sooner


class InterruptedRunError(Exception):
    pass


def exported_and_evaluated(path, config, label_set, source, state) -> tuple[np.ndarray, np.ndarray]:
    """Exports a model; returns its logits of the test images by Keras alone, and evaluation's."""
    import keras

    from ieg_core.models import zoo
    from ieg_core.training.evaluation import build_predictor
    from ieg_core.training.export import export_model

    images = source.test_images(range(len(source.test_labels)))
    model = zoo.build(config.network, label_set.num_classes, label_set.image_shape)
    evaluated = build_predictor(model)(state["ema"], state["stats"], images)
    export_model(path, config, label_set, source, state)
    # Keras takes a TensorFlow that is blocked for one that is there.
    if sys.modules.get("tensorflow", keras) is None:
        del sys.modules["tensorflow"]
    exported = keras.saving.load_model(path)(images.astype("float32"))
    return keras.ops.convert_to_numpy(exported), evaluated


def main(out: str, steps: int, methods: list[str]) -> None:
    set_environment(RUNTIME)
    from ieg_core import backend
    from ieg_core.methods.fsr import init
    from ieg_core.training.loop import train
    from tests.ieg_core.training.compiled_once import compile_once

    backend.start(RUNTIME)
    compile_once()
    spec = parse("digits_uniform_0.4")
    source = open_source("digits", Path("data"))
    written = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for method in methods:
            network = NETWORKS.get(method, OWN_NETWORK)
            config = override(
                build.build_config(spec, method, num_steps=steps, network=network),
                ["evaluations=1", "batch_size=50", *EXTRA.get(method, [])],
            )
            label_set = prepare_label_set(
                spec,
                seed=0,
                probe_per_class=config.probe_per_class,
                source=source,
                label_sets_dir=folder / "label_sets",
                validation_fraction=0.02,
            )
            # The held-out labels below must not decide what is measured, either.
            label_set = dataclasses.replace(label_set, test_labels=source.test_labels)

            def stop_at(report):
                if report.step == INTERRUPTED_AT:
                    raise InterruptedRunError

            def run(name, on_step=lambda report: None, label_set=label_set, config=config):
                with owned(folder / name) as lease:
                    return train(config, label_set, source, lease, "trial", RUNTIME, on_step)

            def keep(name, trained, method=method):
                for part in ("params", "momentum", "ema", "stats"):
                    for index, value in enumerate(trained.state[part]):
                        written[f"{method}/{name}/{part}/{index}"] = value
                accuracies = [row["accuracy_ema"] for row in trained.curves["evaluations"]]
                written[f"{method}/{name}/accuracies"] = np.array(accuracies)
                for name_, values in [*trained.state["method"].items(), *trained.history.items()]:
                    written[f"{method}/{name}/method/{name_}"] = values
                steps = [row["step"] for row in trained.curves["training"]]
                written[f"{method}/{name}/steps"] = np.array(steps)

            if method == "fsr":
                written["fsr/first-dictionary"] = init(config, label_set)["dictionary"]
            whole = run(f"{method}-whole")
            keep("whole", whole)
            try:
                run(f"{method}-cut", stop_at)
            except InterruptedRunError:
                keep("resumed", run(f"{method}-cut"))
            keep("finished-again", run(f"{method}-cut"))

            noisy_set = np.setdiff1d(np.arange(len(label_set.clean_labels)), label_set.probe_ids)
            permuted = label_set.clean_labels.copy()
            permuted[noisy_set] = np.random.default_rng(0).permutation(permuted[noisy_set])
            given = label_set.noisy_labels.copy()
            given[label_set.validation_ids] = 0
            other = dataclasses.replace(label_set, clean_labels=permuted, noisy_labels=given)
            keep("permuted", run(f"{method}-permuted", label_set=other))
            if network == OWN_NETWORK:
                exported, evaluated = exported_and_evaluated(
                    folder / "model.keras", config, label_set, source, whole.state
                )
                right = exported.argmax(1) == source.test_labels
                written.update(
                    {
                        f"{method}/exported": exported,
                        f"{method}/evaluated": evaluated,
                        f"{method}/exported-accuracy": right.mean(),
                        f"{method}/accuracy": whole.evaluation_ema.accuracy,
                    }
                )
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
