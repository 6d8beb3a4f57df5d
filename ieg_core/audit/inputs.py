# SPDX-License-Identifier: Apache-2.0
"""Opens the input of an audit of images: a folder, a table, or data sets by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.data.base import ImageFiles
from ieg_core.data.image_folder.cache import index_files
from ieg_core.data.image_folder.decode import MOST_MEGAPIXELS, read_original
from ieg_core.data.image_folder.labeled_files import LabeledFiles, list_labeled_files
from ieg_core.data.image_folder.listing import (
    PROBE,
    TEST,
    TRAIN,
    find_table,
    in_order,
    is_split,
    visible,
)
from ieg_core.data.image_folder.squares import decoded, read_squares, square_keys
from ieg_core.data.label_set import draw_labels
from ieg_core.data.labels.given import data_tag
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.data.tables import SUFFIXES, read_header
from ieg_core.errors import UserError, some
from ieg_core.experiment.dataset_spec import LABELS, DatasetSpec

Pixels = NDArray[np.uint8]
_TABLES: Final = (*SUFFIXES, ".tsv", ".txt", ".xls", ".xlsx", ".ods")
_EXAMPLES: Final = 3


@dataclass(frozen=True)
class Opened:
    """The opened input of an audit.

    Attributes:
      images: The images and their labels.
      read_batch: Reads the images that a network receives, int64 [m] → uint8 [m, H, W, channels];
        None if there are only features.
      keys: Cache key of each image that `read_batch` returns, SHA-256 in hexadecimal; None to use
        its pixels.
      clean: The true labels, int32 [n], if an evaluation has them; used for measures alone.
      data_tag: The data set's tag in label files; "" for files.
      features: Features in place of images, float32 [n, D]; None for images.
      broken_share: Share of the listed files that cannot be decoded and are left out, in [0, 1).
    """

    images: LabeledImages
    read_batch: Callable[[NDArray[np.int64]], Pixels] | None
    keys: tuple[str, ...] | None = None
    clean: NDArray[np.int32] | None = None
    data_tag: str = ""
    features: NDArray[np.float32] | None = None
    broken_share: float = 0.0


def open_files(
    listed: LabeledFiles,
    size: int,
    *,
    decodes: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Opened:
    """Opens image files; those that cannot be decoded are left out, with a note.

    Args:
      listed: The files and their labels.
      size: Side of the network's square input in pixels.
      decodes: Whether to decode the files; False, for precomputed features, keeps all of them.
      progress: Called with the number of files read so far.

    Raises:
      UserError: When no file can be decoded, or copies of an image are trusted as two classes.
    """
    paths, notes = listed.paths, list(listed.notes)
    kept = list(range(len(paths)))
    digests: tuple[str, ...] | None = None
    if decodes:
        entries = index_files(listed.root, paths, MOST_MEGAPIXELS, decode=True, progress=progress)
        kept = [number for number in kept if not entries[paths[number]].reason]
        broken = [path for path in paths if entries[path].reason]
        shown = _by_reason({path: entries[path].reason or "" for path in broken})
        if not kept:
            raise UserError(
                f"none of the {len(paths)} files in {listed.root} can be decoded ({shown}): "
                "expected JPEG, PNG or WebP images, at paths relative to that folder; convert "
                "other formats"
            )
        if broken:
            notes.append(f"{len(broken)} of {len(paths)} files cannot be decoded: {shown}")
        digests = tuple(entries[paths[number]].sha256 for number in kept)
    labels, class_names = _numbered(
        [(*listed.labels[number], listed.trusted[number]) for number in kept]
    )
    names = tuple(paths[number] for number in kept)
    if digests is not None:
        _refuse_contradictions(names, digests, labels[:, -1], class_names)
    has_files = listed.has_files and (decodes or (listed.root / names[0]).is_file())
    images = LabeledImages(
        names=names,
        class_names=class_names,
        labels=labels[:, :-1],
        annotators=listed.annotators,
        trusted=labels[:, -1],
        read=partial(_original, listed.root, names) if has_files else None,
        digests=digests,
        notes=tuple(notes),
    )
    if digests is None:
        return Opened(images, None)
    files = ImageFiles(listed.root, names, digests)
    read = partial(read_squares, files, size)
    share = (len(paths) - len(kept)) / len(paths)
    return Opened(images, read, square_keys(files, size), broken_share=share)


def list_images(
    place: Path,
    *,
    annotators: Sequence[str] = (),
    with_test: bool = False,
    needs_paths: bool = True,
) -> LabeledFiles:
    """Lists a folder or a table, and says what of a folder was probably meant to be read.

    Args:
      place: The folder or the table.
      annotators: Names of the columns that hold labels.
      with_test: Whether the test set's labels are judged too.
      needs_paths: Whether a table must have a column `path`.

    Returns:
      The files (`ieg_core.data.image_folder.labeled_files`); a table beside class folders is noted.

    Raises:
      UserError: When the listing is refused, or a folder's only class folder holds the classes or
        is beside a table that cannot be read.
    """
    listed = list_labeled_files(
        place, annotators=annotators, with_test=with_test, needs_paths=needs_paths
    )
    if not place.is_dir() or find_table(place, TRAIN):
        return listed
    beside = sorted(visible(place, folders=False))
    tables = [name for name in beside if Path(name).suffix.lower() in _TABLES]
    folders = [name for name in visible(place, folders=True) if name not in (TEST, PROBE)]
    if is_split(place, TRAIN) or len(folders) > 1:
        unread = [name for name in tables if Path(name).stem not in (TEST, PROBE)]
        note = f"not read, beside the class folders: {some(unread)}; audit a table by its own path"
        return replace(listed, notes=(*listed.notes, note)) if unread else listed
    labels = {cell for row in listed.labels for cell in row} - {None}
    if len(folders) != 1 or labels != set(folders):
        return listed
    only = folders[0]
    inner = visible(place / only, folders=True)
    hints = [
        f"{name} has the columns {', '.join(read_header(place / name)) or '(none)'}"
        if Path(name).suffix.lower() in SUFFIXES
        else f"{name} is not read, save it as a CSV file"
        for name in tables
    ]
    if len(inner) > 1:
        hints.append(f"or audit {place / only}, if its folders are the classes")
    raise UserError(
        f"{place} has one class folder, {only}: expected at least two, <class>/…, or a table with "
        "the columns path and label, separated by commas or semicolons"
        f"{''.join(f'; {hint}' for hint in hints)}"
    )


def open_datasets(
    specs: Sequence[DatasetSpec], data_dir: Path, labels_file: str = "", seed: int = 0
) -> Opened:
    """Opens the training set of one or several data sets, each of which is an annotator.

    Args:
      specs: Data sets with the same base, such as CIFAR-N's sets of labels.
      data_dir: The data directory.
      labels_file: The label file of `<base>_labels`.
      seed: Seed of synthetic label noise.

    Raises:
      UserError: When the bases differ, or data or labels are missing or altered.
    """
    bases = dict.fromkeys(spec.base for spec in specs)
    if len(bases) > 1:
        raise UserError(
            f"received the bases {' and '.join(bases)}: expected annotators of the same "
            "images; audit one at a time"
        )
    source = open_source(specs[0].base, data_dir)
    columns, masks = [], []
    for spec in specs:
        file = labels_file if spec.given == LABELS else ""
        given = open_given(spec, source, data_dir, file)
        drawn = draw_labels(spec, seed, 0, source, given)
        mask = np.zeros(len(source.train_labels), bool)
        mask[drawn["train_ids"]] = True
        columns.append(np.where(mask, drawn["noisy_labels"], MISSING))
        masks.append(mask)
    ids = np.flatnonzero(np.any(masks, 0))
    labels = np.column_stack(columns)[ids].astype(np.int32)
    trusted = np.full(len(ids), MISSING, np.int32)
    if source.probe_ids is not None:
        is_probe = np.isin(ids, source.probe_ids)
        trusted[is_probe] = source.train_labels[ids[is_probe]]
        labels[is_probe] = MISSING
    known = all(spec.clean_labels_known and (spec.given or spec.noise_rate) for spec in specs)
    names = [source.paths[place] if source.paths else str(place) for place in ids.tolist()]
    images = LabeledImages(
        names=tuple(names),
        class_names=source.class_names,
        labels=labels,
        annotators=tuple(map(str, specs)),
        trusted=trusted,
        read=lambda place: source.train_images([ids[place]])[0],
        indices=ids.tolist(),
    )
    clean = source.train_labels[ids] if known else None
    return Opened(
        images,
        lambda places: source.train_images(ids[places]),
        clean=clean,
        data_tag=data_tag(source),
    )


def _numbered(
    rows: Sequence[Sequence[str | None]],
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Returns the class numbers of labels, int32 [n, columns], and the class names."""
    names = in_order({cell for row in rows for cell in row if cell is not None})
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    numbers[None] = MISSING
    return np.array([[numbers[cell] for cell in row] for row in rows], np.int32), names


def _refuse_contradictions(
    names: Sequence[str],
    digests: Sequence[str],
    trusted: NDArray[np.int32],
    class_names: Sequence[str],
) -> None:
    first: dict[str, int] = {}
    for place in np.flatnonzero(trusted != MISSING).tolist():
        earlier = first.setdefault(digests[place], place)
        if trusted[earlier] != trusted[place]:
            raise UserError(
                f"the probe contradicts itself: {names[earlier]} and {names[place]} are the same "
                f"image, but {class_names[trusted[earlier]]!r} and {class_names[trusted[place]]!r}"
                ": expected one class; remove one of the two"
            )


def _by_reason(reasons: Mapping[str, str]) -> str:
    """Groups files by why they cannot be decoded; examples are of the most frequent kinds."""
    groups: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        groups.setdefault(reason, []).append(path)
    described = []
    for reason, paths in sorted(groups.items(), key=lambda group: -len(group[1])):
        kinds: dict[str, list[str]] = {}
        for path in paths:
            kinds.setdefault(Path(path).suffix.lower(), []).append(path)
        frequent = sorted(kinds.values(), key=len, reverse=True)
        examples = [kind[0] for kind in frequent] if len(frequent) > 1 else paths
        count = f"{len(paths)} files, such as " if len(paths) > 1 else ""
        described.append(f"{reason} ({count}{', '.join(examples[:_EXAMPLES])})")
    return some(described, separator="; ")


def _original(root: Path, names: Sequence[str], place: int) -> Pixels:
    return decoded(root / names[place], read_original)
