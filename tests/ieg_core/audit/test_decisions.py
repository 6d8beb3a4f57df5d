# SPDX-License-Identifier: Apache-2.0
import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ieg_core.audit.decisions import (
    COLUMNS,
    KINDS,
    Decisions,
    apply,
    read_decisions,
    rows,
)
from ieg_core.audit.images import LabeledImages
from ieg_core.data.tables import EXECUTED, mark_text
from ieg_core.errors import UserError

NAMES = ("a.png", "cat/b.png", "=c.png", "'=c.png")
CLASSES = ("cat", "dog", "-1")
HEADER = "path,label,decision\n"

# What file systems allow: no surrogates (which are not UTF-8), no NUL, which csv cannot read.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
risky = st.builds(str.__add__, st.sampled_from([*EXECUTED, "'", "''", '"', "a"]), texts)


@st.composite
def decided(draw):
    names = draw(st.lists(texts | risky, min_size=1, max_size=8, unique=True))
    classes = draw(st.lists(texts | risky, min_size=2, max_size=5, unique=True))
    places = draw(st.lists(st.sampled_from(range(len(names))), unique=True))
    kinds = tuple(draw(st.sampled_from(KINDS)) for _ in places)
    labels = [
        -1 if kind == "drop" else draw(st.sampled_from(range(len(classes)))) for kind in kinds
    ]
    known = Decisions(np.array(places, np.int64), np.array(labels, np.int32), kinds)
    return known, names, classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decisions")


def write_decisions(path, decisions, names, class_names):
    """Writes as review.js does: all cells quoted, those that a spreadsheet executes marked."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows(map(mark_text, cells) for cells in rows(decisions, names, class_names))


@given(decided())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_and_no_cell_is_executed(folder, made):
    known, names, classes = made
    path = folder / "decisions.csv"
    write_decisions(path, known, names, classes)
    found = read_decisions(path, names, classes)
    assert rows(found, names, classes) == rows(known, names, classes)
    assert found.kinds == known.kinds
    np.testing.assert_array_equal(found.labels, known.labels)
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell[0] in EXECUTED for cell in cells if cell)


def read(tmp_path, lines, names=NAMES):
    path = tmp_path / "decisions.csv"
    path.write_text(HEADER + lines, encoding="utf-8")
    return read_decisions(path, names, CLASSES)


def test_a_file_that_a_person_wrote_is_read_too(tmp_path):
    found = read(tmp_path, "=c.png, dog ,keep\ncat/b.png,-1, other\na.png,cat,drop\na.png,,drop\n")
    assert found.indices.tolist() == [2, 1, 0]
    assert found.labels.tolist() == [1, 2, -1]
    assert found.kinds == ("keep", "other", "drop")


def test_an_apostrophe_belongs_to_the_name_where_only_that_one_is_known(tmp_path):
    assert read(tmp_path, "'=c.png,dog,keep\n").indices.tolist() == [2]
    assert read(tmp_path, "'=c.png,dog,keep\n", ("a.png", "'=c.png")).indices.tolist() == [1]
    assert read(tmp_path, "''=c.png,dog,keep\n").indices.tolist() == [3]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("b.png,cat,keep\n", "row 1: the path 'b.png' is not among the 4 images"),
        ("a.png,cat,keep\ncat/b.png,bird,other\n", "row 2: unknown label 'bird'"),
        ("a.png,,keep\n", "row 1: unknown label ''"),
        ("a.png,cat\n", "row 1: unknown decision ''"),
        ("a.png,cat,kept\n", "row 1: unknown decision 'kept': did you mean 'keep'"),
        ("a.png,cat,keep\na.png,dog,other\n", "row 2: contradicts row 1 about 'a.png'"),
        ("a.png,cat,keep\na.png,,drop\n", "row 2: contradicts row 1 about 'a.png'"),
        ('a.png,"cat,keep\n', "cannot read the decisions"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(tmp_path, lines, reason):
    with pytest.raises(UserError) as error:
        read(tmp_path, lines)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "decisions.csv",
            "path,label\na.png,cat\n",
            "expected path, label and decision; decision is missing",
        ),
        ("decisions.csv", None, r"\(No such file .*path, label and decision; check the path$"),
        ("decisions.xlsx", "", "expected .csv"),
    ],
)
def test_another_file_is_refused(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        read_decisions(tmp_path / name, NAMES, CLASSES)


def test_no_decisions_are_none(tmp_path):
    found = read(tmp_path, "")
    assert len(found) == 0
    assert found.changed_per_hundred == ()


def test_each_hundred_reviews_count_the_labels_that_they_changed():
    kinds = ("suggestion",) * 60 + ("keep",) * 40 + ("other", "drop", "keep") * 20
    found = Decisions(np.arange(160), np.zeros(160, np.int32), kinds)
    assert found.changed_per_hundred == (60, 20)


@pytest.fixture
def images():
    return LabeledImages(
        names=("a", "b", "c", "d"),
        class_names=CLASSES,
        labels=np.array([[0, 1], [1, -1], [2, 2], [0, 0]], np.int32),
        annotators=("one", "two"),
        trusted=np.array([-1, -1, -1, 2], np.int32),
        read=lambda place: np.full((1, 1, 1), place, np.uint8),
        digests=("0a", "0b", "0c", "0d"),
    )


def decisions(*lines):
    places, labels, kinds = zip(*lines, strict=True)
    return Decisions(np.array(places, np.int64), np.array(labels, np.int32), kinds)


def test_confirmed_labels_are_trusted_and_given_ones_stay(images):
    found = apply(images, decisions((1, 0, "other"), (0, 0, "keep")))
    assert found.trusted.tolist() == [0, 0, -1, 2]
    np.testing.assert_array_equal(found.labels, images.labels)
    assert found.names == images.names
    assert images.trusted.tolist() == [-1, -1, -1, 2]


def test_dropped_images_are_gone_from_every_part(images):
    found = apply(images, decisions((0, -1, "drop"), (2, 1, "suggestion")))
    assert found.names == ("b", "c", "d")
    assert found.labels.tolist() == [[1, -1], [2, 2], [0, 0]]
    assert found.trusted.tolist() == [-1, 1, 2]
    assert found.digests == ("0b", "0c", "0d")
    assert list(found.indices) == [1, 2, 3]
    assert [int(found.read(place).item()) for place in range(3)] == [1, 2, 3]
    again = apply(found, decisions((0, -1, "drop")))
    assert list(again.indices) == [2, 3]
    assert int(again.read(0).item()) == 2


def test_a_decision_against_a_trusted_label_is_refused(images):
    assert apply(images, decisions((3, 2, "keep"))).trusted[3] == 2
    with pytest.raises(UserError, match=r"'d' is 'dog', but it is trusted as '-1': expected one"):
        apply(images, decisions((3, 1, "other")))
