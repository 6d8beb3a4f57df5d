# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: a TFDS build of JPEG files in class folders.

python tfds_builds.py OUT FORMAT NAME TREE SPLIT... : writes OUT/NAME/1.0.0
"""

import sys
from pathlib import Path

import tensorflow_datasets as tfds


def main(out: str, file_format: str, name: str, tree: str, *splits: str) -> None:
    classes = sorted(path.name for path in (Path(tree) / splits[0]).iterdir())

    class Build(tfds.core.GeneratorBasedBuilder):
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
    main(*sys.argv[1:])
