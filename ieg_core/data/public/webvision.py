# SPDX-License-Identifier: Apache-2.0
"""WebVision-mini: the first 50 classes, from a plain folder or a TFDS build.

The folder is `webvisionmini/` in the data directory, in the layout of user images: `train/`, `val/`
or `test/`, `probe/` (10 ImageNet training images per class) and, as second test set, `imagenet/`
(the 50 classes of ImageNet's validation set), each with one folder per class. Class folders should
have the same names everywhere. If they differ, for example numbers and synsets, the first 50 of
each are matched in order, since both are in ImageNet's order.

A TFDS build, old or new, for example of `image_label_folder`, is unpacked once into that folder,
because random access needs files. The builds searched for are webvisionmini,
image_label_folder/webvisionmini and, for the second test set, imagenet2012, each in the data
directory, its tfds/ or its tensorflow_datasets/. A plain folder may be in the same locations.
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
from ieg_core.data.public.tfds import INCOMPLETE, damaged, examples, import_tfds, reported_as_damage
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
_FIX: Final = "get it again, or put the images into class folders"
# By the first bytes of a file; JPEG otherwise, and reading reports files that are not.
_EXTENSIONS: Final = {b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass(frozen=True)
class Build:
    """A TFDS build of images and labels.

    Attributes:
      place: The build's folder.
      class_names: Class names, by label.
      splits: Names of the splits.
      examples: Yields (label, bytes of the image file) of every example of a split.
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
      UserError: When the data are missing, or `open_folder` refuses them.
    """
    root = data_dir / NAME
    places = _places(data_dir, NAME)
    plain = next((place for place in (root, *places) if has_part(place, TRAIN)), None)
    if plain is not None:
        root = plain
    else:
        build = find_build(data_dir, NAME)
        if build is None:
            problem, fix = _diagnose(data_dir, places)
            raise UserError(
                f"{problem}: expected {root}/train/<class>/…, val/<class>/…, probe/<class>/… and "
                f"{IMAGENET}/<class>/…, or a TFDS build such as "
                f"tensorflow_datasets/image_label_folder/{NAME}/; {fix}"
            )
        unpack(build, root, _SPLITS[NAME])
    if IMAGENET in images.eval_sets and not has_part(root, IMAGENET):
        build = find_build(data_dir, IMAGENET)
        if build is None:
            raise UserError(
                f"there is no second test set: expected {root / IMAGENET}/<class>/… with the 50 "
                "classes of ImageNet's validation set, or a TFDS build of imagenet2012; add one, "
                "or leave it out with images.eval_sets="
            )
        unpack(build, root, _SPLITS[IMAGENET])
    return open_folder(NAME, root, images, max_classes=NUM_CLASSES, test_names=("test", "val"))


def find_build(data_dir: Path, name: str) -> Build | None:
    """Finds the newest TFDS build of a data set in a data directory.

    Args:
      data_dir: The data directory.
      name: "webvisionmini" or "imagenet".

    Returns:
      The build; None if there is none.

    Raises:
      UserError: When the build is damaged.
    """
    for place in _places(data_dir, name):
        for file, open_build in (("features.json", _new_build), (tfrecord.LABELS, _old_build)):
            folders = [path.parent for path in place.glob(f"**/{file}")]
            if complete := [folder for folder in folders if not folder.name.startswith(INCOMPLETE)]:
                return open_build(max(complete, key=_version))
    return None


def _version(folder: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", folder.name)], folder.name


def _places(data_dir: Path, name: str) -> list[Path]:
    return [data_dir / folder / build for folder in _TFDS_FOLDERS for build in _BUILDS[name]]


def _diagnose(data_dir: Path, places: Sequence[Path]) -> tuple[str, str]:
    """Describes what the data directory has instead of WebVision-mini, and how to fix it."""
    zips = [place.with_name(f"{place.name}.zip") for place in places]
    if packed := next((path for path in zips if path.is_file()), None):
        return f"{packed} is not unpacked", "unpack it in place"
    if place := next((place for place in places if place.is_dir()), None):
        return (
            f"{place} has no train/ and no features.json or {tfrecord.LABELS} in a version folder",
            "copy the files there, or build it again",
        )
    return f"there is no {NAME} in {data_dir}", "add one of them"


def unpack(build: Build, root: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Writes the encoded images of a TFDS build as files, one folder per class, 50 classes.

    Args:
      build: The build.
      root: The parent of the parts' folders. Each is written atomically; existing ones are left
        unchanged.
      parts: Possible names of the split of each part, by part.

    Raises:
      UserError: When a split is missing or empty, a class name cannot be a folder's name, or the
        folder is not writable.
    """
    names = build.class_names[:NUM_CLASSES]
    if wrong := next((name for name in names if "/" in name or name.startswith(".")), None):
        raise UserError(
            f"the TFDS build {build.place} has a class {wrong!r}: expected a valid folder name; "
            "create the class folders by hand"
        )
    missing = {part: splits for part, splits in parts.items() if not (root / part).exists()}
    splits = {part: _split_of(build, candidates) for part, candidates in missing.items()}
    try:
        with contextlib.ExitStack() as stack:
            filled = {part: stack.enter_context(temporary_folder(root / part)) for part in splits}
            for part, split in splits.items():
                _write_images(build, split, names, filled[part])
            # The first part last: an existing training set implies that the other parts exist.
            for part, folder in reversed(filled.items()):
                rename_folder(folder, root / part)
    except OSError as error:
        raise UserError(
            f"cannot unpack {build.place} into {root} ({error.strerror}): expected a writable "
            "folder with space for the images; fix its permissions or free some space, and run "
            "again"
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
            reason = f"it has {len(build.class_names)} class names, but {split} has label {label}"
            raise damaged(build.place, reason, _FIX)
        if label >= len(names):
            continue
        folder = root / names[label]
        folder.mkdir(exist_ok=True)
        extension = _EXTENSIONS.get(content[:4], "jpg")
        (folder / f"{number:08}.{extension}").write_bytes(content)
        written = True
    if not written:
        raise UserError(
            f"the split {split} of the TFDS build {build.place} has no image of the first "
            f"{NUM_CLASSES} classes: {_FIX}"
        )


def _old_build(folder: Path) -> Build:
    lines = (folder / tfrecord.LABELS).read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    files = tfrecord.splits_of(folder)

    def read(split: str) -> Iterator[tuple[int, bytes]]:
        return tfrecord.examples(files[split], tfrecord.num_examples(folder, split))

    return Build(folder, names, list(files), read)


def _new_build(folder: Path) -> Build:
    tfds = import_tfds()
    with reported_as_damage(folder, _FIX):
        builder = tfds.builder_from_directory(folder)
        features, splits = builder.info.features, list(builder.info.splits)
        if not {"image", "label"} <= set(features):
            reason = f"it has the features {', '.join(features)}, not image and label"
            raise damaged(folder, reason, _FIX)
        names = features["label"].names
    decoders = {"image": tfds.decode.SkipDecoding()}

    def read(split: str) -> Iterator[tuple[int, bytes]]:
        for row in examples(builder, split, decoders, fix=_FIX):
            yield int(row["label"]), row["image"]

    return Build(folder, names, splits, read)
