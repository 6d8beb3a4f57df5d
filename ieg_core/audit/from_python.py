# SPDX-License-Identifier: Apache-2.0
"""Converts images and labels from Python objects to the input of an audit.

Kinds of data are recognized by their attributes (duck typing), so pandas, `datasets`, PyTorch and
TensorFlow are not imported here; a caller who passes one of their objects has it installed.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.inputs import Opened, list_images, open_files
from ieg_core.audit.label_columns import (
    GIVEN,
    is_frame,
    kind_of,
    label_columns,
    require_order,
    to_numbers,
    trusted_places,
)
from ieg_core.audit.pixels import HELD_SIDE, bounded, square, to_pixels
from ieg_core.data.image_folder.labeled_files import LabeledFiles
from ieg_core.data.labels.from_python import class_numbers, read_labels
from ieg_core.errors import UserError, some
from ieg_core.host.files import expand
from ieg_core.host.progress import ProgressLine

IMAGE_COLUMNS: Final = (
    "path", "image", "img", "file", "filename", "file_name", "filepath", "image_path", "image_file",
)  # fmt: skip
LABEL_COLUMNS: Final = ("label", "labels", "class", "given", "target", "fine_label", "y")
_SHOWN: Final = 8
_OPTION: Final = ": add --with-test to judge its labels too"
"""End of a note of `list_labeled_files` that is about the command line."""
_KINDS: Final = (
    "a folder, a list of image files, a DataFrame, a Hugging Face Dataset, a tf.data.Dataset of "
    "(image, label), an ImageFolder-like object, images [n, height, width, channels] or features "
    "[n, D]"
)


def open_python(
    data: Any,
    labels: Any = None,
    *,
    size: int,
    count: int | None = None,
    trusted: Any = None,
    class_names: Sequence[str] | None = None,
    image: str | None = None,
    needs_labels: bool = True,
    progress: bool = False,
) -> Opened:
    """Converts data of any supported kind to the input of an audit.

    Args:
      data: Images, with or without labels; features [n, D]; or None, for features that the caller
        has.
      labels: One label per image, as names or class numbers from 0; labels of several annotators as
        [n, a], a mapping from annotator to labels, or a DataFrame; or, if `data` has columns, the
        names of one or several. None, NaN, "" and −1 are missing labels. By default the labels in
        `data`.
      size: Side of the network's square input in pixels.
      count: n, if `data` is None.
      trusted: Labels known to be correct: [n], missing where unknown, or a mapping from the
        caller's index to a label.
      class_names: C names, by class number; by default those of the data set or the labels.
      image: Name of the column of images or paths, if `data` has columns.
      needs_labels: Whether to read labels; if not, there are no annotators and no classes.
      progress: Whether to show how far the reading of files is.

    Returns:
      The images. Their `indices` are the caller's. Files that cannot be decoded are left out, with
      a note.

    Raises:
      UserError: When data or labels are of an unsupported kind, or their sizes differ.
    """
    if isinstance(data, str | Path):
        return _open_folder(expand(data), size, labels, trusted, class_names, progress)
    features: NDArray[np.float32] | None = None
    if is_matrix(data):
        features = np.asarray(data, np.float32)
        data, count = None, len(features)
    parts = _open(data, labels if needs_labels else (), count, image)
    columns = parts.columns
    if columns is None:
        require_order(labels, parts.indices)
        columns = label_columns(labels)
    if not needs_labels:
        columns = {}
    if columns is None:
        raise UserError(
            f"received {'features' if data is None else kind_of(data)} without labels: expected "
            "one label per image; pass labels="
        )
    for name, values in columns.items():
        if len(values) != len(parts.names):
            raise UserError(
                f"received {len(parts.names)} images and {len(values)} labels"
                f"{'' if name == GIVEN else f' of {name}'}: expected one label per image"
            )
    numbers = np.empty((len(parts.names), 0), np.int32)
    known, classes = np.full(len(parts.names), MISSING, np.int32), tuple[str, ...]()
    if columns:
        numbers, known, classes = to_numbers(
            columns, trusted, parts.names, parts.indices, class_names or parts.class_names
        )
    images = LabeledImages(
        names=tuple(parts.names),
        class_names=classes,
        labels=numbers,
        annotators=tuple(columns),
        trusted=known,
        notes=parts.notes,
        indices=parts.indices,
    )
    if parts.paths is not None:
        return _with_files(images, parts.paths, size, progress)
    get = parts.get
    if get is None:
        return Opened(images, None, features=features)

    def read(place: int) -> NDArray[np.uint8]:
        return to_pixels(get(place), f"image {images.names[place]}")

    def read_squares(places: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([square(read(place), size) for place in places.tolist()])

    return Opened(replace(images, read=read), read_squares)


@dataclass(frozen=True)
class _Parts:
    """The parts of the caller's data; `get` returns an image in its original form."""

    names: Sequence[str]
    get: Callable[[int], Any] | None = None
    columns: Mapping[str, Sequence[Any]] | None = None
    class_names: Sequence[str] | None = None
    paths: Sequence[str] | None = None
    indices: Sequence[Any] | None = None
    notes: tuple[str, ...] = ()


def _open_folder(
    folder: Path,
    size: int,
    labels: Any,
    trusted: Any,
    class_names: Sequence[str] | None,
    progress: bool,
) -> Opened:
    for name, value in (("labels", labels), ("class_names", class_names)):
        names: Any = [value] if isinstance(value, str) else value
        is_columns = name == "labels" and _are_names(names) and len(set(names)) == len(names)
        if value is not None and not is_columns:
            raise UserError(
                f"received the folder {folder} and {name}: expected labels in the folder; to pass "
                "labels, pass a list of paths"
            )
    annotators = [labels] if isinstance(labels, str) else list(labels or ())
    opened = _read_files(list_images(folder, annotators=annotators), size, progress)
    names = list(opened.images.names)
    notes = tuple(note.removesuffix(_OPTION) for note in opened.images.notes)
    opened = replace(opened, images=replace(opened.images, indices=names, notes=notes))
    if trusted is None:
        return opened
    images = opened.images
    places = trusted_places(trusted, names, names)
    known = images.trusted.copy()
    known[list(places)] = class_numbers(read_labels(list(places.values())), images.class_names)
    return replace(opened, images=replace(images, trusted=known))


def _read_files(listed: LabeledFiles, size: int, progress: bool) -> Opened:
    if not progress:
        return open_files(listed, size)
    with contextlib.closing(ProgressLine("Reading", "files")) as line:
        return open_files(listed, size, progress=lambda done: line(done, len(listed.paths)))


def _with_files(images: LabeledImages, paths: Sequence[str], size: int, progress: bool) -> Opened:
    """Opens the files of images; those that cannot be decoded are left out."""
    for path in paths:
        if not Path(path).is_file():
            raise UserError(
                f"there is no file {path}: expected image files; relative paths start from "
                f"{Path.cwd()}"
            )
    absolute = [os.path.abspath(path) for path in paths]
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    files = tuple(Path(path).relative_to(root).as_posix() for path in absolute)
    no_labels = ((None,) * len(images.annotators),) * len(files)
    listed = LabeledFiles(root, files, no_labels, images.annotators, (None,) * len(files))
    opened = _read_files(listed, size, progress)
    places = {file: place for place, file in enumerate(files)}
    kept = [places[file] for file in opened.images.names]
    indices = range(len(paths)) if images.indices is None else images.indices
    whole = replace(
        opened.images,
        names=tuple(images.names[place] for place in kept),
        class_names=images.class_names,
        labels=images.labels[kept],
        trusted=images.trusted[kept],
        indices=[indices[place] for place in kept],
    )
    return replace(opened, images=whole)


def _open(data: Any, labels: Any, count: int | None, image: str | None) -> _Parts:
    if data is None:
        if count is None:
            raise UserError(f"received neither data nor features: expected {_KINDS}")
        return _Parts(_numbered(range(count)))
    if is_frame(data):
        return _open_frame(data, labels, image)
    if all(hasattr(data, name) for name in ("column_names", "features", "__len__")):
        return _open_hugging_face(data, labels, image)
    if isinstance(data, Mapping):
        raise UserError(
            f"received {kind_of(data)} with the keys {some(map(str, data), _SHOWN)}: "
            "expected one data set; select a split, such as data['train'], or pass images and "
            "labels one after the other"
        )
    if hasattr(data, "as_numpy_iterator"):
        return _open_stream(data.as_numpy_iterator(), labels is None)
    if hasattr(data, "samples") and hasattr(data, "classes"):
        return _open_image_folder(data, labels is None)
    if hasattr(data, "iloc"):
        return _open_list(list(data), list(data.index))
    if hasattr(data, "to_pandas"):
        raise UserError(f"received {kind_of(data)}: expected {_KINDS}; pass data.to_pandas()")
    if hasattr(data, "__array__"):
        return _open_array(np.asarray(data))
    if isinstance(data, list | tuple):
        if data and isinstance(data[0], tuple | list) and len(data[0]) == 2:
            pairs = [_pair(item, place) for place, item in enumerate(data)]
            parts = _open_list([image for image, _ in pairs], None)
            own = {GIVEN: [_plain(label) for _, label in pairs]}
            return replace(parts, columns=own if labels is None else None)
        return _open_list(data, None)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _open_pairs(data, labels is None)
    raise UserError(f"received {kind_of(data)}: expected {_KINDS}")


def _open_frame(frame: Any, labels: Any, image: str | None) -> _Parts:
    columns = [str(column) for column in frame.columns]
    if repeated := next((name for name in columns if columns.count(name) > 1), None):
        raise UserError(f"the data have several columns {repeated!r}: expected each name once")
    image = _image_column(columns, image, ())
    chosen = _chosen_columns(columns, image, labels, len(frame.index))
    parts = _open_list(list(frame[image]), list(frame.index))
    named = {name: list(frame[name]) for name in chosen} if chosen else None
    return replace(parts, columns=named)


def _open_hugging_face(data: Any, labels: Any, image: str | None) -> _Parts:
    columns = list(data.column_names)
    features = data.features or {}
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = _image_column(columns, image, [name for name in columns if kinds.get(name) == "Image"])
    labeled = [name for name in columns if getattr(features.get(name), "names", None)]
    chosen = _chosen_columns(columns, image, labels, len(data), labeled)
    named = {name: list(data[name]) for name in chosen} if chosen else None
    classes = [getattr(features.get(name), "names", None) for name in chosen or ()]
    if kinds.get(image) == "Value":  # paths
        parts = _open_list(list(data[image]), None)
    else:
        parts = _Parts(_numbered(range(len(data))), lambda place: data[int(place)][image])
    names = list(classes[0]) if classes and classes[0] else None
    return replace(parts, columns=named, class_names=names)


def _open_image_folder(data: Any, has_labels: bool) -> _Parts:
    paths = [str(path) for path, _ in data.samples]
    parts = _open_list(paths, None, root=getattr(data, "root", None))
    given = {GIVEN: [label for _, label in data.samples]} if has_labels else None
    return replace(parts, columns=given, class_names=list(data.classes))


def _open_pairs(data: Any, has_labels: bool) -> _Parts:
    """Opens a data set whose items are (image, label), or images if the caller has the labels."""
    count = len(data)
    columns = None
    if has_labels:
        targets = getattr(data, "targets", None)
        if targets is None or len(targets) != count:
            targets = [_pair(data[place], place)[1] for place in range(count)]
        columns = {GIVEN: [_plain(each) for each in targets]}
    # A subset, as PyTorch has it, knows the whole data set.
    classes = getattr(data, "classes", getattr(getattr(data, "dataset", None), "classes", None))
    return _Parts(
        names=_numbered(range(count)),
        get=lambda place: _pair(data[int(place)], place, has_labels)[0],
        columns=columns,
        class_names=None if classes is None else list(classes),
    )


def _open_stream(elements: Iterable[Any], has_labels: bool) -> _Parts:
    """Reads a whole stream into memory; large images are downsized to `HELD_SIDE`."""
    images: list[NDArray[np.uint8]] = []
    labels: list[Any] = []
    shrunk = 0
    for place, element in enumerate(elements):
        pixels, label = _pair(element, place, has_labels)
        batch = np.asarray(pixels)
        several = batch.ndim == 4
        for each in batch if several else [batch]:
            held = bounded(to_pixels(each, f"image {len(images)}"))
            shrunk += held.shape != np.shape(each)[-3:] and max(held.shape[:2]) == HELD_SIDE
            images.append(held)
        for one in label if several and has_labels else [label]:
            labels.append(_plain(one))
    if not images:
        raise UserError("the data set is empty: expected at least one image")
    notes = (f"{shrunk} images were downsized to {HELD_SIDE} pixels",) if shrunk else ()
    columns = {GIVEN: labels} if has_labels else None
    return _Parts(_numbered(range(len(images))), images.__getitem__, columns, notes=notes)


def _open_array(array: np.ndarray) -> _Parts:
    if array.ndim == 1 and array.dtype.kind in "USO":
        return _open_list(array.tolist(), None)
    if array.ndim not in (3, 4):
        raise UserError(
            f"the images have shape {array.shape}: expected [n, height, width, channels] or "
            "[n, height, width]"
        )
    if len(array) == 0:
        raise UserError("received 0 images: expected at least one")
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        raise UserError(
            f"the images have shape {array.shape}, that of one image: expected [n, height, width, "
            "channels] or [n, height, width]; pass images[None]"
        )
    to_pixels(array[0], "image 0")
    return _Parts(_numbered(range(len(array))), array.__getitem__)


def _open_list(values: Sequence[Any], indices: Sequence[Any] | None, root: Any = None) -> _Parts:
    """Opens a list of paths or of images."""
    if not values:
        raise UserError("received 0 images: expected at least one")
    numbered = _numbered(range(len(values)) if indices is None else indices)
    if not any(isinstance(value, str | Path) for value in values):
        to_pixels(values[0], f"image {numbered[0]}")
        return _Parts(numbered, values.__getitem__, indices=indices)
    for name, value in zip(numbered, values, strict=True):
        if not isinstance(value, str | Path):
            raise UserError(
                f"image {name} is {kind_of(value)}, others are paths: expected one kind; leave "
                "out images without a path"
            )
    paths = [str(expand(path)) for path in values]
    if len(set(map(os.path.abspath, paths))) < len(paths):
        duplicate = next((path for path in paths if paths.count(path) > 1), "of a file")
        raise UserError(
            f"the path {duplicate} occurs more than once: expected each image once; pass several "
            "labels of an image as columns"
        )
    names = [_relative(Path(path), root) for path in paths]
    return _Parts(names, paths=paths, indices=indices)


def _relative(path: Path, root: Any) -> str:
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.as_posix()


def _numbered(indices: Iterable[Any]) -> list[str]:
    names = [str(index) for index in indices]
    if len(set(names)) < len(names):
        raise UserError(
            "the index of the data has duplicates: expected unique values; call reset_index()"
        )
    return names


def _plain(label: Any) -> Any:
    """Returns a label without NumPy's or a tensor's type; one-hot labels as an array."""
    array = np.asarray(label) if hasattr(label, "item") else None
    return label if array is None else array if array.ndim else array.item()


def _pair(item: Any, place: int, has_labels: bool = True) -> tuple[Any, Any]:
    """Returns the image and the label of an item, which may lack a label unless `has_labels`."""
    if isinstance(item, Mapping):
        found = [
            next((item[name] for name in names if name in item), None)
            for names in (IMAGE_COLUMNS, LABEL_COLUMNS)
        ]
        if found[0] is not None and (found[1] is not None or not has_labels):
            return found[0], found[1]
        received = f"a dictionary with the keys {some(map(str, item), _SHOWN)}"
    elif isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    elif not has_labels and not isinstance(item, tuple | list):
        return item, None
    else:
        received = kind_of(item)
        if isinstance(item, tuple | list):
            received += f" of {len(item)}"
    raise UserError(
        f"item {place} of the data set is {received}: expected (image, label), or a dictionary "
        "with image and label; or pass labels="
    )


def is_matrix(data: Any) -> bool:
    """Returns whether data are features [n, D]."""
    is_array = hasattr(data, "__array__") and not hasattr(data, "iloc")
    return is_array and getattr(data, "ndim", 0) == 2 and np.asarray(data).dtype.kind in "fiu"


def _are_names(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)


def _image_column(columns: Sequence[str], name: str | None, typed: Sequence[str]) -> str:
    if name is not None:
        if name not in columns:
            raise _unknown_column(name, columns)
        return name
    candidates = [*typed, *(column for column in IMAGE_COLUMNS if column in columns)]
    if not candidates:
        raise UserError(
            f"the data have the columns {some(columns, _SHOWN)}: expected images or paths in "
            f"one called {' or '.join(IMAGE_COLUMNS[:2])}; pass its name, image='…', or features "
            "as an array"
        )
    return candidates[0]


def _chosen_columns(
    columns: Sequence[str], image: str, labels: Any, rows: int, typed: Sequence[str] = ()
) -> list[str] | None:
    """Returns the names of the label columns; None if `labels` holds labels, not names."""
    if labels is None:
        others = [column for column in columns if column != image]
        candidates = [*typed, *(column for column in LABEL_COLUMNS if column in others)]
        if candidates or len(others) == 1:
            return [(candidates or others)[0]]
        raise UserError(
            f"the data have the columns {some(columns, _SHOWN)}: expected labels in one "
            f"called {LABEL_COLUMNS[0]}; pass one or several names, labels=['…']"
        )
    if not _are_names(labels):
        return None
    names = [labels] if isinstance(labels, str) else list(labels)
    if not names:
        return None
    unknown = [name for name in names if name not in columns]
    if unknown and len(names) == rows:
        return None
    if unknown:
        raise _unknown_column(unknown[0], columns)
    return names


def _unknown_column(name: str, columns: Sequence[str]) -> UserError:
    return UserError(f"the data have no column {name!r}: expected one of {some(columns, _SHOWN)}")
