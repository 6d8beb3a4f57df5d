# SPDX-License-Identifier: Apache-2.0
"""WebVision-mini: the first 50 classes, from a plain folder or a TFDS build.

The folder is `webvisionmini/` in the data directory, laid out like one's own images: `train/`,
`val/` or `test/`, `probe/` (10 ImageNet training images a class) and, as second test set,
`imagenet/` (the 50 classes of ImageNet's validation set), each with a folder a class. Class folders
have the same names everywhere; where they do not, as with numbers here and synsets there, the first
50 of either are taken for each other, both being in ImageNet's order.

A TFDS build, such as its `image_label_folder`'s, is unpacked once into that folder, which random
access needs. Looked for are webvisionmini, image_label_folder/webvisionmini and, for the second
test set, imagenet2012, each in the data directory, its tfds/ or its tensorflow_datasets/.
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ieg_core.config import ImagesConfig
from ieg_core.data.folder import open_folder
from ieg_core.data.source import Source
from ieg_core.errors import UserError

NAME: Final = "webvisionmini"
NUM_CLASSES: Final = 50
IMAGENET: Final = "imagenet"

_TFDS_FOLDERS: Final = ("", "tfds", "tensorflow_datasets")
_BUILDS: Final = {
    NAME: (NAME, f"image_label_folder/{NAME}", f"image_label_folder/dataset_name={NAME}"),
    IMAGENET: ("imagenet2012",),
}
_SPLITS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    NAME: {"train": ("train",), "test": ("val", "validation", "test")},
    IMAGENET: {IMAGENET: ("validation", "val")},
}
# By the first bytes of a file; what is none of them, reading it will say.
_ENDINGS: Final = {b"\x89PNG": "png", b"RIFF": "webp"}


def open_webvision(data_dir: Path, images: ImagesConfig) -> Source:
    """Opens WebVision-mini.

    Args:
      data_dir: The data directory.
      images: How the files are read.

    Returns:
      The source.

    Raises:
      UserError: It is not there, or see `open_folder`.
    """
    root = data_dir / NAME
    if not (root / "train").is_dir():
        build = find_build(data_dir, NAME)
        if build is None:
            raise UserError(
                f"there is no {NAME} in {data_dir}: expected {root}/train/<class>/…, "
                f"val/<class>/…, probe/<class>/… and {IMAGENET}/<class>/…, or a TFDS build such as "
                f"tensorflow_datasets/image_label_folder/{NAME}/"
            )
        unpack(build, root, _SPLITS[NAME])
    if IMAGENET in images.eval_sets and not (root / IMAGENET).is_dir():
        build = find_build(data_dir, IMAGENET)
        if build is None:
            raise UserError(
                f"there is no second test set: expected {root / IMAGENET}/<class>/… with the 50 "
                "classes of ImageNet's validation set, or a TFDS build of imagenet2012; or leave "
                "it out with images.eval_sets="
            )
        unpack(build, root, _SPLITS[IMAGENET])
    return open_folder(NAME, root, images, max_classes=NUM_CLASSES, test_names=("test", "val"))


def find_build(data_dir: Path, name: str) -> Any:
    """Returns the newest TFDS build of a data set under a data directory; None without one."""
    for folder in _TFDS_FOLDERS:
        for build in _BUILDS[name]:
            found = sorted((data_dir / folder / build).glob("**/features.json"))
            if found:
                import tensorflow_datasets as tfds

                return tfds.builder_from_directory(found[-1].parent)
    return None


def unpack(builder: Any, root: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Writes the encoded images of a TFDS build as files, a folder a class, 50 classes.

    Args:
      builder: The build, with the features image and label.
      root: Where the parts' folders go; each is whole or not there.
      parts: The names that a part's split may have, by part.

    Raises:
      UserError: A split is not there, or the folder cannot be written to.
    """
    names = builder.info.features["label"].names
    for part, candidates in parts.items():
        split = next((name for name in candidates if name in builder.info.splits), None)
        if split is None:
            raise UserError(
                f"the TFDS build {builder.data_path} has the splits "
                f"{', '.join(builder.info.splits)}: expected {' or '.join(candidates)}"
            )
        temporary = root / f".{part}.{uuid.uuid4().hex}"
        try:
            for number, example in enumerate(_examples(builder, split)):
                label = int(example["label"])
                if label >= NUM_CLASSES:
                    continue
                content: bytes = example["image"]
                folder = temporary / names[label]
                folder.mkdir(parents=True, exist_ok=True)
                ending = _ENDINGS.get(content[:4], "jpg")
                (folder / f"{number:08}.{ending}").write_bytes(content)
            with contextlib.suppress(FileExistsError):
                temporary.rename(root / part)
        except OSError as error:
            raise UserError(
                f"cannot unpack {builder.data_path} into {root} ({error.strerror}): expected a "
                "folder that can be written to, with room for the images; mend that and run again"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _examples(builder: Any, split: str) -> Iterator[Mapping[str, Any]]:
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        yield from builder.as_data_source(split, decoders=decoders)
    except NotImplementedError:  # stored in a sequential format, TFRecord
        yield from tfds.as_numpy(builder.as_dataset(split, decoders=decoders))
