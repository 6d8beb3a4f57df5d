# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: FSR's dictionary on digits under a recipe's settings.

    python purity.py OUT.npz STEPS FAMILY...

Trains FSR on digits with 60 % uniform noise, with the family's FSR settings; the dictionary's size
is fitted to digits, the start epoch keeps its place in the run. Writes the purity of the first
dictionary, of the last one, and what a random draw would have.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.length import num_steps, steps_per_epoch
from ieg_core.experiment.methods import FSRSettings
from ieg_core.host.runtime import Runtime, set_environment
from ieg_core.recipes import build
from ieg_core.store.leases import owned

NOISY = "digits_uniform_0.6"
EXAMPLES = {
    "cifar10": 50_000,
    "fashion_mnist": 60_000,
    "webvisionmini": 65_944,
    "digits": 1_438,
    "folder": 50_000,
}
RUNTIME = Runtime(threads=1, steps_per_execution=50, checkpoint_seconds=1e9)


def settings_on_digits(family: str, epochs: float) -> FSRSettings:
    """Returns a family's FSR settings for a run of some epochs on digits."""
    base = build.FAMILIES[family].bases[0]
    own = build.build_config(parse(base), "fsr", recipe=family)
    epoch_steps = steps_per_epoch(own, EXAMPLES[base])
    settings = own.method_settings
    assert isinstance(settings, FSRSettings)
    share = settings.start_epoch / (num_steps(own, epoch_steps) / epoch_steps)
    return dataclasses.replace(
        settings, capacity=200, dictionary_batch_size=100, start_epoch=max(1, round(share * epochs))
    )


def _say_nothing(moment: object) -> None:
    del moment


def main(out: str, steps: int, families: list[str]) -> None:
    set_environment(RUNTIME)
    from ieg_core import backend
    from ieg_core.methods.fsr import init
    from ieg_core.training.diagnostics import dictionary_diagnostics
    from ieg_core.training.loop import train

    backend.start(RUNTIME)
    spec = parse(NOISY)
    source = open_source("digits", Path("data"))
    base = build.build_config(spec, "fsr", num_steps=steps)
    base = dataclasses.replace(base, evaluations=1)
    written: dict[str, float] = {}
    found: dict[FSRSettings, float] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        label_set = prepare_label_set(
            spec, seed=0, probe_per_class=0, source=source, label_sets_dir=folder / "label_sets"
        )
        right = label_set.noisy_labels == label_set.clean_labels
        written["random"] = float(right[label_set.train_ids].mean())
        for family in families:
            settings = settings_on_digits(family, steps / steps_per_epoch(base, len(right)))
            config = dataclasses.replace(base, method_settings=settings)
            if settings not in found:
                with owned(folder / family) as lease:
                    trained = train(
                        config, label_set, source, lease, "trial", RUNTIME, _say_nothing
                    )
                dictionary = trained.state["method"]["dictionary"]
                first = init(config, label_set)["dictionary"]
                written["first"] = dictionary_diagnostics(first, label_set)["dictionary_purity"]
                found[settings] = dictionary_diagnostics(dictionary, label_set)["dictionary_purity"]
            written[family] = found[settings]
    np.savez(out, **{name: np.array(value) for name, value in written.items()})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
