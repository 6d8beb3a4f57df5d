# SPDX-License-Identifier: Apache-2.0
"""Which image files a data directory holds, and their classes.

Each part ("train", "test", "probe", the name of a further test set) is either a table
`<part>.csv` or `<part>.parquet` with the columns `path` and `label`, or a folder
`<part>/<class>/` of files; a table comes first. Paths are relative to the data directory and never
lead out of it. Classes are those of "train", in the order of their names, or of their numbers
where all of them are numbers.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from ieg_core.data.tables import SUFFIXES, read_columns
from ieg_core.errors import UserError

TRAIN: Final = "train"
TEST: Final = "test"
PROBE: Final = "probe"
COLUMNS: Final = ("path", "label")
_NAMED: Final = 5


class ImageFile(NamedTuple):
    """One file.

    Attributes:
      path: Relative to the data directory, with slashes.
      label: Its class number.
    """

    path: str
    label: int


@dataclass(frozen=True)
class Listing:
    """The files of a data directory.

    Attributes:
      class_names: The names, by class number.
      parts: The files of each part, folders in the order of their names, tables in their own.
      beside: Files that lie beside a part's class folders and so are in no class, by their paths.
    """

    class_names: tuple[str, ...]
    parts: dict[str, tuple[ImageFile, ...]]
    beside: tuple[str, ...] = ()


def list_files(
    root: Path,
    eval_sets: Iterable[str] = (),
    max_classes: int = 0,
    test_names: Sequence[str] = (TEST,),
) -> Listing:
    """Lists a data directory.

    Args:
      root: The data directory.
      eval_sets: Names of further test sets, as parts.
      max_classes: Only the first so many classes are taken; 0 for all. A part with other class
        names has the same classes under them, in their order.
      test_names: What the test set may be called.

    Returns:
      The listing; "probe" is there only if the directory has one.

    Raises:
      UserError: There is no training or test set, it has fewer than two classes, a class without a
        file, classes that training does not know, a table without its columns, a path that leads
        outside or is listed twice, or a name that is no UTF-8.
    """
    if not root.is_dir():
        raise UserError(
            f"there is no data directory {root}: expected a folder with train/<class>/… and "
            "test/<class>/…, or with train.csv and test.csv (DATA_DIR=…)"
        )
    train = _read_part(root, TRAIN)
    if train is None:
        raise UserError(
            f"{root} has no training set: expected train/<class>/… or train.csv with the columns "
            "path and label"
        )
    beside = _files_beside(root, TRAIN)
    names = _in_order({label for _, label in train})[: max_classes or None]
    if len(names) < 2:
        loose = f", and {len(beside)} files outside of class folders" if beside else ""
        raise UserError(
            f"the training set in {root} has {len(names)} class ({', '.join(names) or 'none'})"
            f"{loose}: expected at least two, each a folder in train/ or a label in the table"
        )
    known = {name: number for number, name in enumerate(names)}
    parts = {TRAIN: tuple(ImageFile(p, known[label]) for p, label in train if label in known)}
    if own := sorted({TRAIN, TEST, PROBE}.intersection(eval_sets)):
        raise UserError(
            f"images.eval_sets names {own[0]!r}, which every run looks at anyway: expected the "
            "names of further folders or tables beside it"
        )
    for part in (TEST, PROBE, *eval_sets):
        called = test_names if part == TEST else (part,)
        found = next((name for name in called if has_part(root, name)), None)
        rows = None if found is None else _read_part(root, found)
        if found is None or rows is None:
            if part == PROBE:
                continue
            raise UserError(
                f"{root} has no {'test set' if part == TEST else f'test set {part!r}'}: expected "
                f"{part}/<class>/… or {part}.csv with the columns path and label"
            )
        places = known
        if not max_classes:
            _refuse_unknown(root, part, {label for _, label in rows}, known)
        elif not known.keys() & {label for _, label in rows}:
            others = _in_order({label for _, label in rows})[:max_classes]
            places = {name: number for number, name in enumerate(others)}
        parts[part] = tuple(ImageFile(p, places[label]) for p, label in rows if label in places)
        if not parts[part]:
            raise UserError(f"the part {part} of {root} has no file of any class of train")
        beside += _files_beside(root, found)
    missing = set(range(len(names))) - {file.label for file in parts.get(PROBE, parts[TRAIN])}
    if missing:
        raise UserError(
            f"the probe in {root} has no image of class {names[min(missing)]!r}: expected at least "
            "one of every class, or no probe at all"
        )
    return Listing(names, parts, tuple(beside))


def has_part(root: Path, part: str) -> bool:
    """Returns whether a data directory has a part, as a table or as a folder."""
    return _table(root, part) is not None or (root / part).is_dir()


def _table(root: Path, part: str) -> Path | None:
    tables = (root / f"{part}{ending}" for ending in SUFFIXES)
    return next((table for table in tables if table.is_file()), None)


def _read_part(root: Path, part: str) -> list[tuple[str, str]] | None:
    """Returns (path, class name) of a part's files; None if there is no such part."""
    if table := _table(root, part):
        _refuse_outside(table, Path(os.path.realpath(root)))
        return _read_table(root, table)
    folder = root / part
    return list(_folder_files(root, folder)) if folder.is_dir() else None


def _files_beside(root: Path, part: str) -> list[str]:
    """Returns the files in a part's folder that lie in none of its classes."""
    if _table(root, part):
        return []
    return [f"{part}/{name}" for name in sorted(_visible(root / part, folders=False))]


def _folder_files(root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    inside = Path(os.path.realpath(root))
    for name in sorted(_visible(folder, folders=True)):
        files = sorted(_walk(folder / name, inside, ()))
        if not files:
            raise UserError(
                f"class {name!r} has no file in {folder / name}: put images there, or remove the "
                "folder"
            )
        for path in files:
            yield path.relative_to(root).as_posix(), name


def _walk(folder: Path, inside: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Walks through a class, sub-folders included; links may lead neither out of it nor back up."""
    target = _refuse_outside(folder, inside)
    if any(each.is_relative_to(target) for each in above):
        raise UserError(
            f"{folder} leads back to {target}, in which it lies: expected folders that can be "
            "walked through to their end; remove the link"
        )
    above = (*above, target)
    for name in _visible(folder, folders=False):
        path = folder / name
        if path.is_symlink():
            _refuse_outside(path, inside)
        yield path
    for name in _visible(folder, folders=True):
        yield from _walk(folder / name, inside, above)


def _visible(folder: Path, *, folders: bool) -> list[str]:
    """Returns the names in a folder that do not begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _is_folder(e) == folders and e.name[0] != "."]
    except OSError as error:
        raise UserError(
            f"cannot read the folder {folder} ({error.strerror}): make it readable"
        ) from error
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raw = os.fsencode(name)
            raise UserError(
                f"the name {raw!r} in {folder} is no UTF-8: expected names in UTF-8; rename it "
                "(convmv does it for whole folders)"
            ) from None
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: as a file it cannot be read, which is counted and told


def _refuse_outside(path: Path, inside: Path) -> Path:
    """Returns what a path leads to."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(inside):
        raise UserError(
            f"{path} leads out of the data directory, to {target}: expected files inside it; copy "
            "them there"
        )
    return target


def _read_table(root: Path, table: Path) -> list[tuple[str, str]]:
    inside, listed, seen = os.path.realpath(root), [], set()
    columns = read_columns(table, COLUMNS)
    for number, (path, label) in enumerate(zip(columns["path"], columns["label"], strict=True), 2):
        if path is None or label is None or not str(path).strip() or not str(label).strip():
            raise UserError(
                f"line {number} of {table} lacks a path or a label: expected both in every line"
            )
        path, label = str(path).strip(), str(label).strip()
        if "\0" in path:
            raise UserError(f"line {number} of {table} has no path but {path!r}: mend the table")
        # Before links are followed: "link/../x" is x here, and what is checked is what is read.
        path = os.path.normpath(path)
        target = Path(os.path.realpath(root / path))
        if os.path.isabs(path) or not target.is_relative_to(inside):
            raise UserError(
                f"line {number} of {table} leads out of the data directory: {path!r}; expected a "
                f"path relative to {root}, of a file inside it"
            )
        if path in seen:
            raise UserError(f"line {number} of {table} lists {path!r} again: list it once")
        seen.add(path)
        listed.append((path, label))
    if not listed:
        raise UserError(f"{table} lists no file: expected a line with path and label for each")
    return listed


def _refuse_unknown(root: Path, part: str, labels: Iterable[str], known: dict[str, int]) -> None:
    if foreign := sorted(set(labels) - known.keys()):
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise UserError(
            f"the part {part} of {root} has classes that train has not: "
            f"{', '.join(foreign[:_NAMED])}{more}: expected only classes of train, "
            f"{', '.join(list(known)[:_NAMED])}{' …' if len(known) > _NAMED else ''}"
        )


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    found = list(names)
    if all(name.isascii() and name.isdigit() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))
