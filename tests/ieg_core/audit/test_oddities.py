# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.oddities import find_oddities


def images(labels, digests=None, trusted=()):
    names = tuple(sorted({label for label in labels if label is not None}))
    known = np.full(len(labels), MISSING, np.int32)
    for place, label in dict(trusted).items():
        known[place] = names.index(label)
    return LabeledImages(
        names=tuple(f"{number}.png" for number in range(len(labels))),
        class_names=names,
        labels=np.array(
            [[MISSING if label is None else names.index(label)] for label in labels], np.int32
        ),
        annotators=("label",),
        trusted=known,
        digests=digests and tuple(digests),
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("cat", "Cat", "cat "), "('Cat' and 'cat' and 'cat ')"),
        (("T-shirt", "t shirt", "tshirt", "cat"), "('T-shirt' and 't shirt' and 'tshirt')"),
        (("1", "01", "1.0", "10"), "('01' and '1' and '1.0')"),
        (("A", "A+", "A-", "-1", "1", "1-2", "12", "C++", "C#", "C"), None),
    ],
)
def test_names_that_may_be_of_one_class(names, told):
    notes = find_oddities(images(names))
    assert len(notes) == (told is not None)
    assert all(f"differ only in case, spaces or zeros {told}" in note for note in notes)


def test_names_that_may_stand_for_no_label():
    (note,) = find_oddities(images(("cat", "None", " n/a", "other")))
    assert note.startswith("' n/a' and 'None' may mean that there is no label")


def test_copies_under_several_labels_and_under_one():
    labels = ("cat", "dog", "cat", "cat", None, "dog", "cat", "dog")
    several, same = find_oddities(images(labels, "aabbbccd"))
    assert several.endswith("at most one is right: 2, such as 0.png (cat) and 1.png (dog)")
    assert same.startswith("copies of other files, with the same label: 1; copies confirm")
    # What somebody has confirmed counts, not what was given.
    notes = find_oddities(images(labels, "aabbbccd", {1: "cat", 5: "cat"}))
    assert [note[:46] for note in notes] == ["copies of other files, with the same label: 3;"]
    assert not find_oddities(images(labels, "abcdefgh"))
