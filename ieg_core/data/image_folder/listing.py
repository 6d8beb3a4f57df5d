# SPDX-License-Identifier: Apache-2.0
"""Lists the image files of a data directory and their classes.

Each part ("train", "test", "probe", the name of an additional test set) is either a table
`<part>.csv` or `<part>.parquet` with the columns `path` and `label`, or a folder of files
`<part>/<class>/`; a table takes precedence. Paths are relative to the data directory and must stay
inside it. Where a test set may be missing, class folders `<class>/` directly in the directory are
"train". The classes are those of "train", sorted by name, or by value if all names are numbers.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ieg_core.data.tables import SUFFIXES, class_name, is_no_label, read_columns
from ieg_core.errors import UserError, some

TRAIN: Final = "train"
TEST: Final = "test"
PROBE: Final = "probe"
COLUMNS: Final = ("path", "label")
IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp")
_LOOK_LIKE_PARTS: Final = ("train", "training", "val", "valid", "validation", "test", "testing")
_SHOWN: Final = 5


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
      path: The path relative to the data directory, with forward slashes.
      label: The class number.
    """

    path: str
    label: int


@dataclass(frozen=True)
class Listing:
    """The files of a data directory.

    Attributes:
      class_names: The names, by class number.
      parts: The files of each part, those in folders sorted by path, those of a table in its order.
      outside_classes: Paths of files in a part's folder that are outside of all class folders.
    """

    class_names: tuple[str, ...]
    parts: dict[str, tuple[ImageFile, ...]]
    outside_classes: tuple[str, ...] = ()


def list_files(
    root: Path,
    eval_sets: Iterable[str] = (),
    max_classes: int = 0,
    test_names: Sequence[str] = (TEST,),
    *,
    needs_test: bool = True,
) -> Listing:
    """Lists a data directory.

    Args:
      root: The data directory.
      eval_sets: Names of additional test sets, as parts.
      max_classes: The number of classes to use, in order; 0 for all. A part whose class names all
        differ from those of "train" has the same classes in the same order.
      test_names: Possible names of the test set.
      needs_test: Whether there must be a test set, and a folder or table "train".

    Returns:
      The listing; "probe" is included only if the directory has it, and so is "test" unless needed.

    Raises:
      UserError: When there is no training or test set, fewer than two classes, a class without a
        file, a class that "train" does not have, a table without its columns, a path that leads
        outside or is listed twice, or a name that is not valid UTF-8.
    """
    if not root.is_dir():
        raise UserError(
            f"there is no data directory {root}: expected a folder with train/<class>/… and "
            "test/<class>/…, or with train.csv and test.csv (DATA_DIR=…)"
        )
    train = None if needs_test else _class_folders(root, eval_sets)
    is_bare = train is not None
    if train is None:
        train = _read_part(root, TRAIN)
    if train is None:
        bare = "" if needs_test else ", <class>/…"
        raise UserError(
            f"{root} has no training set: expected train/<class>/…{bare} or train.csv with the "
            "columns path and label"
        )
    outside_classes = loose_images(root) if is_bare else _files_outside_classes(root, TRAIN)
    names = in_order({label for _, label in train})[: max_classes or None]
    if len(names) < 2:
        num_outside = len(outside_classes)
        loose = f", and {num_outside} files outside of class folders" if num_outside else ""
        raise UserError(
            f"the training set in {root} has {len(names)} class ({', '.join(names) or 'none'})"
            f"{loose}: expected at least two, each a folder in train/ or a label in the table"
        )
    known = {name: number for number, name in enumerate(names)}
    parts = {TRAIN: tuple(ImageFile(p, known[label]) for p, label in train if label in known)}
    if standard := sorted({TRAIN, TEST, PROBE}.intersection(eval_sets)):
        raise UserError(
            f"images.eval_sets contains {standard[0]!r}, which every run uses anyway: expected the "
            "names of additional folders or tables next to it"
        )
    for part in (TEST, PROBE, *eval_sets):
        candidates = test_names if part == TEST else (part,)
        has = is_split if is_bare else has_part
        present = next((name for name in candidates if has(root, name)), None)
        rows = None if present is None else _read_part(root, present)
        if present is None or rows is None:
            if part == TEST and not needs_test:
                class_folders(root, (TRAIN, TEST, PROBE, *eval_sets))  # val/ is not a class
                continue
            if part == PROBE:
                continue
            raise UserError(
                f"{root} has no {'test set' if part == TEST else f'test set {part!r}'}: expected "
                f"{part}/<class>/… or {part}.csv with the columns path and label"
            )
        numbers = known
        if not max_classes:
            _refuse_unknown(root, part, {label for _, label in rows}, known)
        elif not known.keys() & {label for _, label in rows}:
            others = in_order({label for _, label in rows})[:max_classes]
            numbers = {name: number for number, name in enumerate(others)}
        parts[part] = tuple(ImageFile(p, numbers[label]) for p, label in rows if label in numbers)
        if not parts[part]:
            raise UserError(
                f"the part {part} of {root} has no file of any class of train: expected at least "
                "one"
            )
        outside_classes += _files_outside_classes(root, present)
    missing = set(range(len(names))) - {file.label for file in parts.get(PROBE, parts[TRAIN])}
    if missing:
        raise UserError(
            f"the probe in {root} has no image of class {names[min(missing)]!r}: expected at least "
            "one of every class, or no probe at all"
        )
    return Listing(names, parts, tuple(outside_classes))


def has_part(root: Path, part: str) -> bool:
    """Returns whether a data directory has a part, as a table or as a folder."""
    return find_table(root, part) is not None or (root / part).is_dir()


def is_split(root: Path, part: str) -> bool:
    """Returns whether a directory has a part; a folder without subfolders is a class instead."""
    if find_table(root, part) is not None:
        return True
    return (root / part).is_dir() and bool(visible(root / part, folders=True))


def loose_images(folder: Path) -> list[str]:
    """Returns the names of the image files in a folder, sorted; by extension."""
    return sorted(
        name for name in visible(folder, folders=False) if Path(name).suffix.lower() in IMAGES
    )


def find_table(root: Path, part: str) -> Path | None:
    """Returns the table of a part of a data directory; None if there is none."""
    tables = (root / f"{part}{extension}" for extension in SUFFIXES)
    return next((table for table in tables if table.is_file()), None)


def _read_part(root: Path, part: str) -> list[tuple[str, str]] | None:
    """Returns (path, class name) of a part's files; None if there is no such part."""
    if table := find_table(root, part):
        _refuse_outside(table, Path(os.path.realpath(root)))
        return _read_table(root, table)
    folder = root / part
    return list(folder_files(root, folder)) if folder.is_dir() else None


def class_folders(root: Path, parts: Sequence[str]) -> list[str]:
    """Returns the names of the class folders directly in a data directory.

    Args:
      root: The data directory.
      parts: Its parts, which are no classes.

    Raises:
      UserError: When a folder of folders has a part's name in other words or letters.
    """
    names = sorted(set(visible(root, folders=True)).difference(parts))
    for name in names:
        if name.lower() in _LOOK_LIKE_PARTS and is_split(root, name):
            raise UserError(
                f"the folder {root / name} looks like a part, not like a class: expected the names "
                f"{TRAIN}, {TEST} and {PROBE}; rename it"
            )
    return names


def _class_folders(root: Path, eval_sets: Iterable[str]) -> list[tuple[str, str]] | None:
    """Returns (path, class name) of the files in class folders directly in a data directory.

    None if it has a training set of its own, or fewer than two such folders.
    """
    if is_split(root, TRAIN):
        return None
    parts = [part for part in (TEST, PROBE, *eval_sets) if is_split(root, part)]
    if len(class_folders(root, parts)) < 2:
        return None
    return list(folder_files(root, root, parts))


def _files_outside_classes(root: Path, part: str) -> list[str]:
    """Returns the files in a part's folder that are outside of all class folders."""
    if find_table(root, part):
        return []
    return [f"{part}/{name}" for name in sorted(visible(root / part, folders=False))]


def folder_files(
    root: Path, folder: Path, leave_out: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yields (path, class name) of the files in a folder's class folders, sorted by path.

    Args:
      root: The data directory, to which paths are relative and outside of which nothing is read.
      folder: The folder with the class folders.
      leave_out: Names of folders in it that are no classes.

    Raises:
      UserError: When a class has no file, or a name or a link is refused.
    """
    inside = Path(os.path.realpath(root))
    for name in sorted(set(visible(folder, folders=True)).difference(leave_out)):
        files = sorted(_walk(folder / name, inside, ()))
        if not files:
            raise UserError(
                f"class {name!r} has no file in {folder / name}: expected at least one image; add "
                "images or remove the folder"
            )
        for path in files:
            yield path.relative_to(root).as_posix(), class_name(name)


def _walk(folder: Path, inside: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Yields the files of a class and its subfolders; refuses links that lead outside or back up.

    Args:
      folder: The folder to walk through.
      inside: The resolved data directory.
      above: The resolved folders on the way to `folder`.
    """
    target = _refuse_outside(folder, inside)
    if any(parent.is_relative_to(target) for parent in above):
        raise UserError(
            f"{folder} links back to {target}, which contains it: expected folders without cycles; "
            "remove the link"
        )
    above = (*above, target)
    for name in visible(folder, folders=False):
        path = folder / name
        if path.is_symlink():
            _refuse_outside(path, inside)
        yield path
    for name in visible(folder, folders=True):
        yield from _walk(folder / name, inside, above)


def visible(folder: Path, *, folders: bool) -> list[str]:
    """Returns the names of the files or subfolders of a folder that do not start with a dot.

    Raises:
      UserError: When the folder cannot be read, or a name is not valid UTF-8.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_folder(e) == folders and e.name[0] != "."]
    except OSError as error:
        raise UserError(
            f"cannot read the folder {folder} ({error.strerror}): expected a readable folder; "
            "change its permissions"
        ) from error
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raw = os.fsencode(name)
            raise UserError(
                f"the name {raw!r} in {folder} is not valid UTF-8: expected names in UTF-8; rename "
                "it (convmv renames whole folders)"
            ) from None
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: counted and reported as an unreadable file


def _refuse_outside(path: Path, inside: Path) -> Path:
    """Returns the resolved path; raises UserError if it is outside the data directory."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(inside):
        raise UserError(
            f"{path} leads out of the data directory, to {target}: expected files inside it; copy "
            "the files there"
        )
    return target


def _read_table(root: Path, table: Path) -> list[tuple[str, str]]:
    columns = read_columns(table, COLUMNS)
    paths = checked_paths(root, table, columns["path"])
    for number, label in enumerate(columns["label"], 2):
        if is_no_label(label):
            raise UserError(
                f"line {number} of {table} lacks a path or a label: expected both in every line"
            )
    labels = (class_name(str(label)).strip() for label in columns["label"])
    return list(zip(paths, labels, strict=True))


def checked_paths(root: Path, table: Path, cells: Sequence[Any]) -> list[str]:
    """Returns the paths in a table, relative to the data directory and normalized.

    Args:
      root: The data directory.
      table: The table, for messages.
      cells: Its column of paths.

    Raises:
      UserError: When there is none, or one is missing, leads outside or is listed twice.
    """
    inside, listed = os.path.realpath(root), dict[str, None]()
    for number, cell in enumerate(cells, 2):
        if cell is None or not str(cell).strip():
            raise UserError(
                f"line {number} of {table} lacks a path or a label: expected both in every line"
            )
        path = str(cell).strip()
        if "\0" in path:
            raise UserError(
                f"line {number} of {table} has the path {path!r}: expected a path without null "
                "characters; correct the table"
            )
        # Before links are followed: "link/../x" is x here, so the path checked is the path read.
        path = os.path.normpath(_as_stored(root, path))
        target = Path(os.path.realpath(root / path))
        if os.path.isabs(path) or not target.is_relative_to(inside):
            raise UserError(
                f"line {number} of {table} leads out of the data directory: {path!r}; expected a "
                f"path relative to {root}, of a file inside it"
            )
        if path in listed:
            raise UserError(
                f"line {number} of {table} repeats {path!r}: expected each path once; remove the "
                "line"
            )
        listed[path] = None
    if not listed:
        raise UserError(f"{table} lists no file: expected a line with path and label for each")
    return list(listed)


def _as_stored(root: Path, path: str) -> str:
    """Returns a path as the file is stored: with slashes, in the file system's Unicode form."""
    forms = [path, path.replace("\\", "/")]
    forms += [unicodedata.normalize(kind, form) for form in forms[-1:] for kind in ("NFC", "NFD")]
    return next((form for form in forms if os.path.lexists(root / form)), path)


def _refuse_unknown(root: Path, part: str, labels: Iterable[str], known: dict[str, int]) -> None:
    if foreign := sorted(set(labels) - known.keys()):
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise UserError(
            f"the part {part} of {root} has classes that train does not have: "
            f"{', '.join(foreign[:_SHOWN])}{more}: expected only classes of train, "
            f"{some(known, _SHOWN)}"
        )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns class names in the order of their numbers: by value if all are whole numbers."""
    names = list(names)
    if all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
