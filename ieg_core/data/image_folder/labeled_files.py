# SPDX-License-Identifier: Apache-2.0
"""Lists image files with one or several labels each, in whatever layout people have them.

<folder>/<class>/…                  class folders alone
<folder>/train/…                    a data directory of `ieg_core.data.image_folder.listing`; test
                                    may be missing, and probe is trusted
<folder>/<one table>                one CSV or Parquet file with a column `path`, alone or beside
                                    one folder
<table>                             such a file itself; paths are relative to its folder

A table's column `label` is the given label. Every further column whose name starts with "label" or
"annotator" is an annotator's, and so is any other whose cells are all classes; without a column
`label`, all are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ieg_core.data.image_folder.listing import (
    PROBE,
    TEST,
    TRAIN,
    checked_paths,
    class_folders,
    find_table,
    folder_files,
    is_split,
    loose_images,
    visible,
)
from ieg_core.data.tables import SUFFIXES, class_name, is_no_label, read_columns, read_header
from ieg_core.errors import UserError, some

PATH: Final = "path"
LABEL: Final = "label"
_OF_AN_AUDIT: Final = {"given", "suggested", "score"}
_ANNOTATOR: Final = re.compile("label|annotator", re.IGNORECASE)

Label = str | None


@dataclass(frozen=True)
class LabeledFiles:
    """n image files and their labels.

    Attributes:
      root: The folder that paths are relative to.
      paths: n paths with forward slashes; for a table without paths, the numbers of its rows.
      labels: n rows of a labels, None for none.
      annotators: The names of the a columns.
      trusted: n classes that are known, None for those that are not.
      has_files: Whether `paths` are files.
      notes: What was left out, a line each.
    """

    root: Path
    paths: tuple[str, ...]
    labels: tuple[tuple[Label, ...], ...]
    annotators: tuple[str, ...]
    trusted: tuple[Label, ...]
    has_files: bool = True
    notes: tuple[str, ...] = ()


def list_labeled_files(
    place: Path,
    *,
    annotators: Sequence[str] = (),
    with_test: bool = False,
    needs_paths: bool = True,
) -> LabeledFiles:
    """Lists a folder or a table.

    Args:
      place: The folder or the table.
      annotators: Names of the columns that hold labels; by default those that the module names.
      with_test: Whether the test set's labels are judged too.
      needs_paths: Whether a table must have a column `path`; not where images are not needed.

    Returns:
      The files, those of class folders sorted by path, those of a table in its order.

    Raises:
      UserError: When there are none, a table lacks a column or a label, annotators are named or a
        test set is asked for where there is none, or a path or a name is refused
        (`ieg_core.data.image_folder.listing`).
    """
    listed = _list(place, annotators, with_test, needs_paths)
    if missing := [name for name in annotators if name not in listed.annotators]:
        raise UserError(
            f"{place} has class folders and no column {missing[0]}: annotators are columns of a "
            "table; leave them out (--annotators)"
        )
    if with_test and not is_split(place, TEST):
        raise UserError(
            f"{place} has no test set: expected {TEST}/ or {TEST}.csv to judge its labels too; "
            "leave that out (--with-test)"
        )
    return listed


def _list(
    place: Path, annotators: Sequence[str], with_test: bool, needs_paths: bool
) -> LabeledFiles:
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"{place} is a file of another kind: expected a folder of images, or a table "
                f"ending in {' or '.join(SUFFIXES)}"
            )
        return _from_table(place.parent, place, annotators, needs_paths)
    if not place.is_dir():
        raise UserError(f"there is no folder or table {place}: expected a folder of images")
    train = find_table(place, TRAIN)
    if not is_split(place, TRAIN):
        return _without_splits(place, annotators, with_test, needs_paths)
    listed = (
        _from_folder(place, place / TRAIN)
        if train is None
        else _from_table(place, train, annotators, needs_paths)
    )
    listed = _with_parts(place, listed, annotators, with_test)
    others = [name for name in visible(place, folders=True) if name not in (TRAIN, TEST, PROBE)]
    if others and train is None:
        left_out = f"the folders {some(sorted(others))} next to train/ are ignored"
        listed = replace(listed, notes=(*listed.notes, left_out))
    return listed


def _with_parts(
    place: Path, listed: LabeledFiles, annotators: Sequence[str], with_test: bool
) -> LabeledFiles:
    """Appends the probe, and the test set if its labels are judged."""
    if is_split(place, TEST):
        if with_test:
            listed = _joined(listed, _part(place, TEST, annotators), trusted=False)
        else:
            note = "the test set is not judged: add --with-test to judge its labels too"
            listed = replace(listed, notes=(*listed.notes, note))
    if is_split(place, PROBE):
        listed = _joined(listed, _part(place, PROBE, annotators), trusted=True)
    return listed


def _without_splits(
    place: Path, annotators: Sequence[str], with_test: bool, needs_paths: bool
) -> LabeledFiles:
    parts = [name for name in (TEST, PROBE) if is_split(place, name)]
    classes = class_folders(place, parts)
    files = visible(place, folders=False)
    # A single folder beside a table holds the images of the table.
    tables = (
        []
        if len(classes) > 1
        else sorted(
            place / name
            for name in files
            if Path(name).suffix.lower() in SUFFIXES
            and (not needs_paths or PATH in read_header(place / name))
        )
    )
    if classes and not tables:
        listed = _from_folder(place, place, leave_out=parts)
        return _with_parts(place, listed, annotators, with_test)
    if len(tables) == 1:
        return _from_table(place, tables[0], annotators, needs_paths)
    if tables:
        raise UserError(
            f"{place} has the tables {some([table.name for table in tables])}: expected one; name "
            f"it, such as {tables[0]}"
        )
    raise UserError(
        f"{place} has no class folders ({len(files)} files, no folder): expected <class>/…, "
        "train/<class>/…, or a table with the columns path and label"
    )


def _part(root: Path, part: str, annotators: Sequence[str]) -> LabeledFiles:
    table = find_table(root, part)
    if table is None:
        return _from_folder(root, root / part)
    return _from_table(root, table, annotators, needs_paths=True)


def _from_folder(root: Path, folder: Path, leave_out: Sequence[str] = ()) -> LabeledFiles:
    rows = list(folder_files(root, folder, leave_out))
    loose = loose_images(folder)
    number = "1 image is" if len(loose) == 1 else f"{len(loose)} images are"
    note = f"{number} left out, outside of class folders ({some(loose)})"
    return LabeledFiles(
        root,
        tuple(path for path, _ in rows),
        tuple((label,) for _, label in rows),
        (LABEL,),
        (None,) * len(rows),
        notes=(note,) if loose else (),
    )


def _joined(listed: LabeledFiles, part: LabeledFiles, *, trusted: bool) -> LabeledFiles:
    """Appends a part. A trusted one has no annotator: who checked it is none of those judged."""
    if shared := set(listed.paths) & set(part.paths):
        raise UserError(
            f"{sorted(shared)[0]} is listed in two parts of {listed.root}: expected each image in "
            "one; remove it from the other"
        )
    width = len(listed.annotators)
    first = tuple(next((cell for cell in row if cell is not None), None) for row in part.labels)
    none: tuple[Label, ...] = (None,) * width
    rows = tuple(none if trusted else (cell, *none[1:]) for cell in first)
    sure = first if trusted else (None,) * len(first)
    return LabeledFiles(
        listed.root,
        listed.paths + part.paths,
        listed.labels + rows,
        listed.annotators,
        listed.trusted + sure,
        notes=listed.notes + part.notes,
    )


def _from_table(
    root: Path, table: Path, annotators: Sequence[str], needs_paths: bool
) -> LabeledFiles:
    header = read_header(table, (PATH, LABEL))
    if set(header) >= _OF_AN_AUDIT:
        raise UserError(
            f"{table} is the table of an audit: expected the images' own, with path and label"
        )
    has_paths = needs_paths or PATH in header
    others = [name for name in header if name not in (PATH, LABEL) and name]
    wanted = list(annotators) or [name for name in (LABEL, *others) if name in header]
    if not wanted or (needs_paths and PATH not in header):
        raise UserError(
            f"{table} has the columns {', '.join(header) or '(none)'}: expected {PATH}, {LABEL} "
            "and further columns of labels, separated by commas or semicolons"
        )
    columns = read_columns(table, [*([PATH] if has_paths else []), *wanted])
    paths = (
        checked_paths(root, table, columns[PATH])
        if has_paths
        else [str(number) for number in range(len(columns[wanted[0]]))]
    )
    labels = {name: _texts(columns[name]) for name in wanted}
    chosen, left_out = (wanted, []) if annotators else _choose(labels)
    empty = [name for name in chosen if not any(labels[name])]
    if empty:
        raise UserError(
            f"the column {empty[0]} of {table} has no label in any row: expected some; leave the "
            "column out"
        )
    notes = (
        (f"the columns {some(left_out)} of {table.name} are not labels and are left out",)
        if left_out
        else ()
    )
    return LabeledFiles(
        root,
        tuple(paths),
        tuple(zip(*(labels[name] for name in chosen), strict=True)),
        tuple(chosen),
        (None,) * len(paths),
        has_files=has_paths,
        notes=notes,
    )


def _choose(labels: dict[str, list[Label]]) -> tuple[list[str], list[str]]:
    """Returns which columns hold labels, and which do not."""
    sure = [name for name in labels if _ANNOTATOR.match(name)]
    if not sure:
        return list(labels), []
    classes = {cell for name in sure for cell in labels[name]} - {None}
    chosen = [
        name
        for name, cells in labels.items()
        if name in sure or (any(cells) and set(cells) - {None} <= classes)
    ]
    return chosen, [name for name in labels if name not in chosen]


def _texts(cells: Sequence[Any]) -> list[Label]:
    """Returns labels as texts; pandas writes whole numbers beside missing ones as 3.0."""
    texts = [None if is_no_label(cell) else class_name(str(cell)).strip() for cell in cells]
    if None in texts and all(text is None or re.fullmatch(r"\d+\.0", text) for text in texts):
        return [text and text[:-2] for text in texts]
    return texts
