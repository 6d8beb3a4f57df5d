# SPDX-License-Identifier: Apache-2.0
"""WebVision-mini: the first 50 classes, from a plain folder or a TFDS build.

The folder is `webvisionmini/` in the data directory, laid out like one's own images: `train/`,
`val/` or `test/`, `probe/` (10 ImageNet training images a class) and, as second test set,
`imagenet/` (the 50 classes of ImageNet's validation set), each with a folder a class. Class folders
have the same names everywhere; where they do not, as with numbers here and synsets there, the first
50 of either are taken for each other, both being in ImageNet's order.

A TFDS build, such as its `image_label_folder`'s, old or new, is unpacked once into that folder,
which random access needs. Looked for are webvisionmini, image_label_folder/webvisionmini and, for
the second test set, imagenet2012, each in the data directory, its tfds/ or its
tensorflow_datasets/. A plain folder may lie in the same places.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ieg_core.data.base import Source
from ieg_core.data.image_folder.dataset import open_folder
from ieg_core.data.image_folder.listing import TRAIN, has_part
from ieg_core.data.public import tfrecord
from ieg_core.data.public.tfds import INCOMPLETE, damaged, examples, import_tfds, told_as_damage
from ieg_core.errors import UserError
from ieg_core.experiment.config import ImagesConfig
from ieg_core.host.folders import rename_folder, temporary_folder

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
_MEND: Final = "get it again, or put the images into class folders"
# By the first bytes of a file; what is none of them, reading it will say.
_ENDINGS: Final = {b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass(frozen=True)
class Build:
    """A TFDS build of images and labels.

    Attributes:
      place: Its folder.
      class_names: By label.
      splits: Their names.
      examples: Yields label and encoded image of every example of a split.
    """

    place: Path
    class_names: Sequence[str]
    splits: Sequence[str]
    examples: Callable[[str], Iterator[tuple[int, bytes]]]


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
    places = _places(data_dir, NAME)
    plain = next((place for place in (root, *places) if has_part(place, TRAIN)), None)
    if plain is not None:
        root = plain
    else:
        build = find_build(data_dir, NAME)
        if build is None:
            raise UserError(
                f"{_what_there_is(data_dir, places)}: expected {root}/train/<class>/…, "
                f"val/<class>/…, probe/<class>/… and {IMAGENET}/<class>/…, or a TFDS build such as "
                f"tensorflow_datasets/image_label_folder/{NAME}/"
            )
        unpack(build, root, _SPLITS[NAME])
    if IMAGENET in images.eval_sets and not has_part(root, IMAGENET):
        build = find_build(data_dir, IMAGENET)
        if build is None:
            raise UserError(
                f"there is no second test set: expected {root / IMAGENET}/<class>/… with the 50 "
                "classes of ImageNet's validation set, or a TFDS build of imagenet2012; or leave "
                "it out with images.eval_sets="
            )
        unpack(build, root, _SPLITS[IMAGENET])
    return open_folder(NAME, root, images, max_classes=NUM_CLASSES, test_names=("test", "val"))


def find_build(data_dir: Path, name: str) -> Build | None:
    """Returns the newest TFDS build of a data set under a data directory; None without one."""
    for place in _places(data_dir, name):
        for file, open_build in (("features.json", _new_build), (tfrecord.LABELS, _old_build)):
            folders = [path.parent for path in place.glob(f"**/{file}")]
            if whole := [folder for folder in folders if not folder.name.startswith(INCOMPLETE)]:
                return open_build(max(whole, key=_version))
    return None


def _version(folder: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", folder.name)], folder.name


def _places(data_dir: Path, name: str) -> list[Path]:
    return [data_dir / folder / build for folder in _TFDS_FOLDERS for build in _BUILDS[name]]


def _what_there_is(data_dir: Path, places: Sequence[Path]) -> str:
    """Says what was found instead of WebVision-mini, and what to do with it."""
    zips = [place.with_name(f"{place.name}.zip") for place in places]
    if packed := next((path for path in zips if path.is_file()), None):
        return f"{packed} is packed: unpack it there"
    if place := next((place for place in places if place.is_dir()), None):
        return (
            f"{place} has neither train/ nor, in a folder of its version, features.json or "
            f"{tfrecord.LABELS}: copy them there, or build it again"
        )
    return f"there is no {NAME} in {data_dir}"


def unpack(build: Build, root: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Writes the encoded images of a TFDS build as files, a folder a class, 50 classes.

    Args:
      build: The build.
      root: Where the parts' folders go; each is whole or not there, and one that is there stays.
      parts: The names that a part's split may have, by part.

    Raises:
      UserError: A split is not there or empty, a class's name is none of a folder, or the folder
        cannot be written to.
    """
    names = build.class_names[:NUM_CLASSES]
    if wrong := next((name for name in names if "/" in name or name.startswith(".")), None):
        raise UserError(
            f"the TFDS build {build.place} has a class {wrong!r}: expected a name that a folder "
            "can have; write the folders by hand"
        )
    missing = {part: called for part, called in parts.items() if not (root / part).exists()}
    splits = {part: _split_of(build, candidates) for part, candidates in missing.items()}
    try:
        with contextlib.ExitStack() as stack:
            filled = {part: stack.enter_context(temporary_folder(root / part)) for part in splits}
            for part, split in splits.items():
                _write_images(build, split, names, filled[part])
            # The first one last: a training set that is there says that the others are.
            for part, folder in reversed(filled.items()):
                rename_folder(folder, root / part)
    except OSError as error:
        raise UserError(
            f"cannot unpack {build.place} into {root} ({error.strerror}): expected a "
            "folder that can be written to, with room for the images; mend that and run again"
        ) from error


def _split_of(build: Build, candidates: Sequence[str]) -> str:
    split = next((name for name in candidates if name in build.splits), None)
    if split is None:
        raise UserError(
            f"the TFDS build {build.place} has the splits {', '.join(build.splits) or '(none)'}: "
            f"expected {' or '.join(candidates)}"
        )
    return split


def _write_images(build: Build, split: str, names: Sequence[str], root: Path) -> None:
    written = False
    for number, (label, content) in enumerate(build.examples(split)):
        if not 0 <= label < len(build.class_names):
            reason = f"it has {len(build.class_names)} class names and, in {split}, a label {label}"
            raise damaged(build.place, reason, _MEND)
        if label >= len(names):
            continue
        folder = root / names[label]
        folder.mkdir(exist_ok=True)
        ending = _ENDINGS.get(content[:4], "jpg")
        (folder / f"{number:08}.{ending}").write_bytes(content)
        written = True
    if not written:
        raise UserError(
            f"the split {split} of the TFDS build {build.place} has no image of the first "
            f"{NUM_CLASSES} classes: {_MEND}"
        )


def _old_build(folder: Path) -> Build:
    lines = (folder / tfrecord.LABELS).read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    files = tfrecord.splits_of(folder)

    def stored(split: str) -> Iterator[tuple[int, bytes]]:
        return tfrecord.examples(files[split], tfrecord.num_examples(folder, split))

    return Build(folder, names, list(files), stored)


def _new_build(folder: Path) -> Build:
    tfds = import_tfds()
    with told_as_damage(folder, _MEND):
        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, list(builder.info.splits)
        if not {"image", "label"} <= set(features):
            reason = f"it has the features {', '.join(features)}, not image and label"
            raise damaged(folder, reason, _MEND)
        names = features["label"].names
    decoders = {"image": tfds.decode.SkipDecoding()}

    def stored(split: str) -> Iterator[tuple[int, bytes]]:
        for row in examples(builder, split, decoders, mend=_MEND):
            yield int(row["label"]), row["image"]

    return Build(folder, names, splits, stored)
