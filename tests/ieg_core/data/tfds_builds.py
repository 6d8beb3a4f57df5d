# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: TFDS builds of JPEG files in class folders.

python tfds_builds.py OUT.npz BUILDS : writes OUT/NAME/1.0.0 for each [OUT, FORMAT, NAME, TREE,
SPLIT...] of the JSON text BUILDS
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds


def write(out: str, file_format: str, name: str, tree: str, *splits: str) -> None:
    classes = sorted(path.name for path in (Path(tree) / splits[0]).iterdir())

    class Build(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=classes),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for path in sorted((Path(tree) / split).glob("*/*.jpg")):
                yield (
                    f"{path.parent.name}/{path.name}",
                    {
                        "image": path.read_bytes(),
                        "label": path.parent.name,
                    },
                )

    Build.name = name
    tfds.disable_progress_bar()
    Build(data_dir=out, file_format=file_format).download_and_prepare()


if __name__ == "__main__":
    for build in json.loads(sys.argv[2]):
        write(*build)
    np.savez(sys.argv[1])
