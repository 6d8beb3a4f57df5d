# SPDX-License-Identifier: Apache-2.0
"""`ieg prepare DATASET...`: writes prepared data sets."""

import argparse
from pathlib import Path

from ieg_core.cli import options
from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import prepare_label_set, probe_note
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.errors import require
from ieg_core.experiment import dataset_spec
from ieg_core.experiment.overrides import override
from ieg_core.host.files import writable
from ieg_core.recipes import build
from ieg_core.store.layout import label_sets_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `ieg prepare`."""
    options.add_inputs(parser)
    parser.add_argument("dataset", nargs="+", help="for example digits_uniform_0.4")
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and probe (0)")
    parser.add_argument(
        "--image-size", type=int, default=0, help="side of your own images in pixels"
    )
    parser.add_argument(
        "--probe-per-class",
        type=int,
        default=build.DEFAULT_PROBE_PER_CLASS,
        metavar="N",
        help=f"clean examples of each class to set aside ({build.DEFAULT_PROBE_PER_CLASS})",
    )
    options.add_settings(parser, "override how images are read, such as images.eval_sets=")


def run(arguments: argparse.Namespace) -> int:
    """Writes the label set of each data set and prints a summary of each."""
    label_sets = label_sets_folder(Path(arguments.out))
    specs = [dataset_spec.parse(text) for text in arguments.dataset]
    require(arguments.seed >= 0, "seed", arguments.seed, "at least 0")
    for setting in arguments.set:
        is_reading = setting.strip().startswith("images.")
        require(
            is_reading, "--set", setting, "a setting of images, such as images.max_megapixels=50"
        )
    with writable(label_sets):
        label_sets.mkdir(parents=True, exist_ok=True)
    data_dir = Path(arguments.data_dir)
    for spec in specs:
        config = override(
            build.build_config(spec, "supervised", image_size=arguments.image_size),
            arguments.set,
        )
        source = open_source(spec.base, data_dir, config.images)
        label_set = prepare_label_set(
            spec,
            seed=arguments.seed,
            probe_per_class=arguments.probe_per_class,
            source=source,
            label_sets_dir=label_sets,
            given=open_given(spec, source, data_dir, arguments.labels),
        )
        for note in (*describe_notes(source.notes), probe_note(label_set)):
            if note:
                print(f"Note: {note}")
        print(
            f"{label_sets / label_set.name}: {len(label_set.train_ids)} training examples, "
            f"{len(label_set.probe_ids)} clean ones, digest {label_set.digest[:12]}"
        )
    return 0
