# SPDX-License-Identifier: Apache-2.0
"""What looks odd about labels and can be told without judging any: names and copies of images."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.errors import some

_NO_LABEL: Final = {"?", "-", "n/a", "na", "nil", "none", "null", "missing", "unlabeled"}
_BETWEEN_WORDS: Final = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])")
_NUMBER: Final = re.compile(r"0*(\d+)(?:\.0+)?", re.ASCII)


def find_oddities(images: LabeledImages) -> list[str]:
    """Returns what looks odd, one line each.

    These are classes whose names differ only in case, spaces or zeros; classes that may stand for a
    missing label; and copies of an image, by `digests`, under several labels or under one.
    """
    labels = np.where(images.trusted != MISSING, images.trusted, images.given)
    used = [images.class_names[number] for number in np.unique(labels[labels != MISSING]).tolist()]
    return [*_similar(used), *_missing(used), *_copies(images, labels.tolist())]


def _similar(names: Iterable[str]) -> Iterable[str]:
    alike = defaultdict(list)
    for name in names:
        alike[_spelled(name)].append(name)
    groups = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    if groups:
        yield (
            f"classes differ only in case, spaces or zeros ({some(groups)}): if they are the same, "
            "give them one name and audit again"
        )


def _spelled(name: str) -> str:
    """Returns what two spellings of a class have in common."""
    text = name.strip().casefold()
    number = _NUMBER.fullmatch(text)
    return number[1] if number else _BETWEEN_WORDS.sub("", text)


def _missing(names: Iterable[str]) -> Iterable[str]:
    if found := [repr(name) for name in names if name.strip().casefold() in _NO_LABEL]:
        yield (
            f"{' and '.join(found)} may mean that there is no label: if so, leave the label empty "
            "and audit again"
        )


def _copies(images: LabeledImages, labels: Sequence[int]) -> Iterable[str]:
    if images.digests is None:
        return
    counts = Counter(images.digests)
    places = defaultdict(list)
    for place, digest in enumerate(images.digests):
        if counts[digest] > 1 and labels[place] != MISSING:
            places[digest].append(place)
    several = [group for group in places.values() if len({labels[place] for place in group}) > 1]
    if several:
        first = several[0][0]
        other = next(place for place in several[0] if labels[place] != labels[first])
        shown = " and ".join(
            f"{images.names[place]} ({images.class_names[labels[place]]})"
            for place in (first, other)
        )
        yield (
            f"images whose copies have other labels, of which at most one is right: "
            f"{len(several)}, such as {shown}"
        )
    if same := sum(len(group) - 1 for group in places.values()) - sum(
        len({labels[place] for place in group}) - 1 for group in several
    ):
        yield (
            f"copies of other files, with the same label: {same}; copies confirm each other's "
            "labels, so leave them out"
        )
