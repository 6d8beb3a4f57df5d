# SPDX-License-Identifier: Apache-2.0
"""User image files, in class folders or listed in tables, as a base data set."""

import errno
import hashlib
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ieg_core.data.base import EvalSet, ImageFiles, Images, Labels, Source
from ieg_core.data.image_folder.cache import Entry, decoded_images, index_files
from ieg_core.data.image_folder.decode import (
    Box,
    Pixels,
    UnreadableImageError,
    crop_box,
    evaluated_square,
    read_pixels,
)
from ieg_core.data.image_folder.listing import PROBE, TEST, TRAIN, ImageFile, list_files
from ieg_core.errors import UserError, printable, some
from ieg_core.experiment.config import ImagesConfig
from ieg_core.host.machine import usable_cores
from ieg_core.store.records import ManifestRecord

HELD_OUT: Final = 0.2
"""Share of each class that becomes the test set where a data directory has none."""
_MAX_LISTED: Final = 1000


def open_folder(
    base: str,
    data_dir: Path,
    images: ImagesConfig,
    *,
    max_classes: int = 0,
    test_names: Sequence[str] = (TEST,),
    holds_out: bool = False,
) -> Source:
    """Opens a data directory of image files.

    Args:
      base: Name of the base data set that the directory provides.
      data_dir: The directory, in the layout of `ieg_core.data.image_folder.listing`.
      images: How the files are read.
      max_classes: The number of classes to use, in order; 0 for all.
      test_names: Possible names of the test set.
      holds_out: Whether to hold out a part of the training set if there is no test set.

    Returns:
      The source. Its training examples are those of "train", then those of "probe". The digest is
      over the decoded pixels if images are held in memory, otherwise over the file contents.

    Raises:
      UserError: When `list_files` refuses the directory, more files than allowed cannot be decoded,
        or a part or a class has no file that can be.
    """
    listing = list_files(
        data_dir, images.eval_sets, max_classes, test_names, needs_test=not holds_out
    )
    files = [file for part in listing.parts.values() for file in part]
    paths = list(dict.fromkeys(file.path for file in files))
    held = images.held_in_memory
    entries = index_files(data_dir, paths, images.max_megapixels, decode=not held)
    if held:
        pixels, reasons = decoded_images(
            data_dir, paths, entries, images.size, images.channels, images.max_megapixels
        )
    else:
        reasons = {path: entry.reason for path, entry in entries.items() if entry.reason}
    _refuse_broken(data_dir, reasons, len(paths), images.max_broken_fraction)
    parts: dict[str, Sequence[ImageFile]] = {
        name: [file for file in part if file.path not in reasons]
        for name, part in listing.parts.items()
    }
    _refuse_empty(data_dir, parts, listing.class_names)
    held_out: list[str] = []
    if TEST not in parts:
        parts = _hold_out(data_dir, parts, entries)
        held_out = [file.path for file in parts[TEST]]

    readable = [path for path in paths if path not in reasons]
    if held:
        place = {path: number for number, path in enumerate(readable)}

        def reader(part: Sequence[ImageFile]) -> Callable[[ArrayLike], Images]:
            rows = np.array([place[file.path] for file in part], np.int64)
            return lambda ids: pixels[rows[np.asarray(ids, np.int64)]]
    else:
        disk = DiskReader(data_dir, entries, images)

        def reader(part: Sequence[ImageFile]) -> Callable[[ArrayLike], Images]:
            return lambda ids: disk.evaluated([part[i].path for i in np.asarray(ids, np.int64)])

    trained = [*parts[TRAIN], *parts.get(PROBE, [])]
    labels = {name: _labels(part) for name, part in parts.items()}
    return Source(
        base=base,
        version="files",
        origin=str(data_dir),
        class_names=listing.class_names,
        image_shape=(images.size, images.size, images.channels),
        train_labels=_labels(trained),
        test_labels=labels[TEST],
        train_images=reader(trained),
        test_images=reader(parts[TEST]),
        digest=_digest(
            listing.class_names,
            labels,
            pixels if held else [entries[path].sha256 for path in readable],
            [entries[path].sha256 for path in held_out],
        ),
        probe_ids=np.arange(len(parts[TRAIN]), len(trained)) if PROBE in parts else None,
        crops=None
        if held
        else lambda ids, draws: disk.crops(
            [trained[i].path for i in np.asarray(ids, np.int64)], draws
        ),
        eval_sets={name: EvalSet(labels[name], reader(parts[name])) for name in images.eval_sets},
        held_out=held_out,
        paths=[file.path for file in trained],
        files={
            name: _files_of(data_dir, entries, part)
            for name, part in {**parts, TRAIN: trained}.items()
            if name != PROBE
        },
        notes=_notes(parts, entries, reasons, listing.outside_classes, len(held_out)),
    )


class DiskReader:
    """Decodes files in threads; a call holds no more images in memory than it returns.

    The threads start on the first call, so that planning starts none.
    """

    def __init__(self, root: Path, entries: Mapping[str, Entry], images: ImagesConfig) -> None:
        self._root, self._entries, self._images = root, entries, images
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def evaluated(self, paths: Sequence[str]) -> Pixels:
        """Reads the squares used for evaluation.

        Args:
          paths: n files, relative to the data directory.

        Returns:
          uint8 [n, size, size, channels].

        Raises:
          UserError: When a file has changed or can no longer be read.
        """
        return self._read(paths, [evaluated_square] * len(paths))

    def crops(self, paths: Sequence[str], draws: NDArray[np.float64]) -> Pixels:
        """Reads random boxes.

        Args:
          paths: n files, relative to the data directory.
          draws: The draws for `crop_box`, float64 [n, 4] in [0, 1).

        Returns:
          uint8 [n, size, size, channels].

        Raises:
          UserError: When a file has changed or can no longer be read.
        """

        def box_of(draw: NDArray[np.float64]) -> Callable[[int, int], Box]:
            smallest = self._images.min_crop_area
            return lambda width, height: crop_box(draw, width, height, smallest)

        return self._read(paths, [box_of(draw) for draw in draws])

    def _read(self, paths: Sequence[str], boxes: Sequence[Callable[[int, int], Box]]) -> Pixels:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(usable_cores(), "decode")
        size, channels = self._images.size, self._images.channels
        pixels = np.empty((len(paths), size, size, channels), np.uint8)
        for number, result in enumerate(self._pool.map(self._decode, paths, boxes)):
            pixels[number] = result
        return pixels

    def _decode(self, path: str, box: Callable[[int, int], Box]) -> Pixels:
        try:
            content = (self._root / path).read_bytes()
            if hashlib.sha256(content).hexdigest() != self._entries[path].sha256:
                raise UserError(
                    f"{self._root / path} has changed since the training was planned: expected the "
                    "same images throughout; plan the training again"
                )
            return read_pixels(
                content,
                self._images.size,
                box,
                channels=self._images.channels,
                max_megapixels=self._images.max_megapixels,
            )
        except (OSError, UnreadableImageError) as error:
            raise UserError(
                f"{self._root / path} can no longer be read ({error}): expected the files to stay "
                "unchanged after planning; restore the file"
            ) from error


def describe_notes(notes: Mapping[str, Any]) -> list[str]:
    """Formats the notes of a data set as lines for the user.

    Args:
      notes: `Source.notes`.

    Returns:
      One line per kind of problem.
    """
    lines = []
    if broken := notes.get("unreadable"):
        shown = some((f"{path}: {reason}" for path, reason in broken), separator="; ")
        count = notes["num_unreadable"]
        listed = "all are" if count <= len(broken) else f"the first {len(broken):,} are"
        lines.append(
            f"{count} of {notes['num_files']} files cannot be decoded and are left out "
            f"({shown}); {listed} listed in the label set's {ManifestRecord.NAME}"
        )
    if shared := notes.get("in_train_and_test"):
        lines.append(
            f"{_files(notes['num_in_train_and_test'], 'test')} also in the training set "
            f"({_pairs(shared)}): this inflates the accuracy; remove them from one of the two"
        )
    if contradictory := notes.get("under_two_labels"):
        lines.append(
            f"{_files(notes['num_under_two_labels'], 'training')} also present with another label "
            f"({_pairs(contradictory)}): at least one of the two labels is wrong"
        )
    if unclassified := notes.get("beside_classes"):
        shown = some(unclassified, separator="; ")
        count = notes["num_beside_classes"]
        lines.append(
            f"{count} {'file is' if count == 1 else 'files are'} outside of class folders and "
            f"left out ({shown}): move images to be used into a class folder"
        )
    if held_out := notes.get("num_held_out"):
        lines.append(
            f"there is no test set: {held_out} of {notes['num_files']} images, a fifth of each "
            "class, are held out to test on, with the labels that they have in the folder or the "
            "table; accuracy means agreement with these unless somebody has checked them; put "
            "checked images into test/<class>/"
        )
    if "probe" in notes:
        lines.append(notes["probe"])
    return [printable(line) for line in lines]


def _files(count: int, kind: str) -> str:
    return f"{count} {kind} file is" if count == 1 else f"{count} {kind} files are"


def _pairs(pairs: Sequence[Sequence[str]]) -> str:
    return some((f"{one} = {other}" for one, other in pairs), separator="; ")


def _refuse_broken(root: Path, reasons: Mapping[str, str], num_files: int, allowed: float) -> None:
    if len(reasons) > allowed * num_files:
        allow = f"images.max_broken_fraction={_rounded_up(len(reasons) / num_files)}"
        no_file = os.strerror(errno.ENOENT).lower()
        if missing := [path for path, reason in reasons.items() if reason.startswith(no_file)]:
            raise UserError(
                f"{len(missing)} of {num_files} files that {root} lists do not exist "
                f"({some(missing)}): "
                f"expected paths relative to {root}; correct them, remove their lines, or allow "
                f"more with {allow}"
            )
        shown = some((f"{path}: {reason}" for path, reason in reasons.items()), separator="; ")
        raise UserError(
            f"{len(reasons)} of {num_files} files in {root} cannot be decoded ({shown}): "
            f"expected JPEG, PNG or WebP and at most {allowed:.2%} broken files; repair or remove "
            f"them, or allow more with {allow}"
        )


def _rounded_up(share: float) -> str:
    """Rounds a share up to four digits, so that allowing the result allows the share."""
    return f"{math.ceil(share * 10_000) / 10_000:g}"


def _refuse_empty(
    root: Path, parts: Mapping[str, Sequence[ImageFile]], class_names: Sequence[str]
) -> None:
    """Refuses parts and classes without a file that can be decoded."""
    for part, files in parts.items():
        present = {file.label for file in files}
        needed = set(range(len(class_names))) if part in (TRAIN, PROBE) else set()
        if missing := needed - present:
            raise UserError(
                f"no file of class {class_names[min(missing)]!r} in the part {part} of {root} can "
                "be decoded: expected at least one JPEG, PNG or WebP"
            )
        if not files:
            raise UserError(
                f"no file in the part {part} of {root} can be decoded: expected at least one JPEG, "
                "PNG or WebP"
            )


def _hold_out(
    root: Path, parts: Mapping[str, Sequence[ImageFile]], entries: Mapping[str, Entry]
) -> dict[str, Sequence[ImageFile]]:
    """Makes a test set of a share of each class's training images, at least one.

    The contents alone decide which, smallest digest first: copies of an image stay on one side, and
    other images do not matter much. Images of the probe, or under two labels, stay.
    """
    contents = {file: entries[file.path].sha256 for file in parts[TRAIN]}
    checked = {entries[file.path].sha256 for file in parts.get(PROBE, ())}
    labels: dict[str, set[int]] = {}
    for file, content in contents.items():
        labels.setdefault(content, set()).add(file.label)
    by_class: dict[int, list[str]] = {}
    for content in sorted(labels.keys() - checked):
        if len(labels[content]) == 1:
            by_class.setdefault(min(labels[content]), []).append(content)
    chosen = {
        content
        for candidates in by_class.values()
        if len(candidates) > 1
        for content in candidates[: max(1, round(HELD_OUT * len(candidates)))]
    }
    if not chosen:
        raise UserError(
            f"{root} has no test set, and no class with two images to hold one out: expected "
            "test/<class>/…, or more images"
        )
    train = [file for file, content in contents.items() if content not in chosen]
    test = [file for file, content in contents.items() if content in chosen]
    return {TRAIN: train, TEST: test, **{k: part for k, part in parts.items() if k != TRAIN}}


def _files_of(root: Path, entries: Mapping[str, Entry], part: Sequence[ImageFile]) -> ImageFiles:
    paths = [file.path for file in part]
    return ImageFiles(root, paths, [entries[path].sha256 for path in paths])


def _labels(files: Sequence[ImageFile]) -> Labels:
    return np.array([file.label for file in files], np.int32)


def _digest(
    class_names: Sequence[str],
    labels: Mapping[str, Labels],
    content: Pixels | Sequence[str],
    held_out: Sequence[str],
) -> str:
    digest = hashlib.sha256(repr(list(class_names)).encode())
    for name, values in labels.items():
        digest.update(f"{name} int32 {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values, "<i4").data)
    if isinstance(content, np.ndarray):
        digest.update(f"uint8 {content.shape}\n".encode())
        digest.update(np.ascontiguousarray(content).data)
    else:
        digest.update("\n".join(content).encode())
    if held_out:
        digest.update("\n".join(["held out", *held_out]).encode())
    return digest.hexdigest()


def _notes(
    parts: Mapping[str, Sequence[ImageFile]],
    entries: Mapping[str, Entry],
    reasons: Mapping[str, str],
    outside_classes: Sequence[str],
    num_held_out: int,
) -> dict[str, Any]:
    """Collects problems that the user should know; at most _MAX_LISTED names of each kind."""
    trained: dict[str, ImageFile] = {}
    contradictory = []
    for file in (*parts[TRAIN], *parts.get(PROBE, ())):
        first = trained.setdefault(entries[file.path].sha256, file)
        if first.label != file.label:
            contradictory.append([first.path, file.path])
    shared = [
        [trained[entries[file.path].sha256].path, file.path]
        for part, files in parts.items()
        if part not in (TRAIN, PROBE)
        for file in files
        if entries[file.path].sha256 in trained
    ]
    notes: dict[str, Any] = {
        "num_files": len(entries),
        "num_unreadable": len(reasons),
        "unreadable": [list(item) for item in sorted(reasons.items())[:_MAX_LISTED]],
        "num_in_train_and_test": len(shared),
        "in_train_and_test": shared[:_MAX_LISTED],
        "num_under_two_labels": len(contradictory),
        "under_two_labels": contradictory[:_MAX_LISTED],
    }
    if outside_classes:
        notes |= {
            "num_beside_classes": len(outside_classes),
            "beside_classes": list(outside_classes[:_MAX_LISTED]),
        }
    if num_held_out:
        notes["num_held_out"] = num_held_out
    if PROBE not in parts:
        notes["probe"] = (
            "there is no probe/: methods that need clean examples draw them from the training set "
            "and trust their labels, or those of the label file if one is given; put a few checked "
            "images of every class into probe/<class>/"
        )
    return notes
