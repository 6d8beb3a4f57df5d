# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from ieg_core.audit.cleaning import clean_labels, write_cleaned
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.label_audit import LabelAuditRecord, audit_labels, check_labels, columns
from ieg_core.audit.outputs import write_outputs
from ieg_core.data.tables import read_columns
from ieg_core.errors import UserError


def draw(n=400, classes=3, wrong_share=0.2, seed=0, distance=3.5):
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, classes, n).astype(np.int32)
    features = rng.normal(size=(n, 8)) + distance * np.eye(8)[clean]
    given = np.where(rng.random(n) < wrong_share, (clean + 1) % classes, clean).astype(np.int32)
    images = LabeledImages(
        names=tuple(f"{number}.png" for number in range(n)),
        class_names=("a", "b", "c")[:classes],
        labels=given[:, None],
        annotators=("label",),
        trusted=np.full(n, MISSING, np.int32),
    )
    return images, features, clean


def test_wrong_labels_come_first_and_trusted_ones_not_at_all():
    images, features, clean = draw()
    wrong = images.given != clean
    audit = audit_labels(images, [features], clean=clean)
    top = audit.order[: wrong.sum()]
    assert wrong[top].mean() > 0.9
    assert audit.summary.wrong == wrong.sum()
    assert audit.summary.average_precision > 0.9
    assert (np.diff(audit.score[audit.order]) <= 0).all()

    trusted = images.trusted.copy()
    trusted[top[:20]] = clean[top[:20]]
    again = audit_labels(replace(images, trusted=trusted), [features])
    assert not set(again.order) & set(top[:20])
    assert (again.suggested[top[:20]] == clean[top[:20]]).all()


def test_no_true_label_takes_part_in_any_choice():
    images, features, clean = draw()
    shuffled = np.random.default_rng(3).permutation(clean)
    audits = [audit_labels(images, [features], clean=each) for each in (None, clean, shuffled)]
    assert len({audit.summary.average_precision for audit in audits}) == 3
    for audit in audits[1:]:
        np.testing.assert_array_equal(audit.evidence.q, audits[0].evidence.q)
        np.testing.assert_array_equal(audit.order, audits[0].order)
        assert audit.evidence.precisions == audits[0].evidence.precisions
        changed = [clean_labels(each).labels for each in (audit, audits[0])]
        np.testing.assert_array_equal(*changed)


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_careful_cleaning_keeps_its_promise(share):
    images, features, clean = draw(wrong_share=share)
    audit = audit_labels(images, [features])
    cleaned = clean_labels(audit, 0.95)
    assert cleaned.changed.any()
    assert (cleaned.labels == clean)[cleaned.changed].mean() >= 0.9
    assert (cleaned.labels[~cleaned.changed] == images.given[~cleaned.changed]).all()
    assert cleaned.expected_right >= cleaned.least >= 0.95
    stricter = clean_labels(audit, 0.999)
    assert stricter.changed.sum() < cleaned.changed.sum()


def test_labels_without_errors_are_not_cleaned():
    """Not even where one image looks like another class beyond doubt."""
    images, features, clean = draw(wrong_share=0)
    features[0] += 3.5 * (np.eye(8)[(clean[0] + 1) % 3] - np.eye(8)[clean[0]])
    audit = audit_labels(images, [features])
    assert audit.suggested[0] != images.given[0]
    cleaned = clean_labels(audit)
    assert not cleaned.changed.any()
    assert not cleaned.shows_errors

    trusted = images.trusted.copy()
    trusted[0] = audit.suggested[0]
    cleaned = clean_labels(audit_labels(replace(images, trusted=trusted), [features]))
    assert np.flatnonzero(cleaned.labels != images.given).tolist() == [0]
    assert cleaned.shows_errors


def test_a_class_that_features_do_not_recognize_is_told_and_not_cleaned():
    """It is never predicted, so that each of its labels looks wrong, also where all are right."""
    images, features, clean = draw(n=200, wrong_share=0.1, classes=2)
    labels = images.labels.copy()
    labels[:6] = 2
    features[:6] = np.random.default_rng(1).normal(size=(6, 8)) + 3.5 * np.eye(8)[0]
    audit = audit_labels(replace(images, class_names=("a", "b", "rare"), labels=labels), [features])
    assert set(audit.order[:10]) >= set(range(6))
    assert audit.unrecognized == (2,)
    assert audit.summary.unrecognized == ["rare"]
    assert any(line.startswith("They may not recognize rare: ") for line in audit.headline())
    cleaned = clean_labels(audit)
    assert not cleaned.changed[:6].any()
    assert (cleaned.labels == clean)[cleaned.changed].all()
    recognized = audit_labels(images, [features])
    assert recognized.unrecognized == ()
    assert not any("recognize" in line for line in recognized.headline())


def test_few_labels_are_cleaned_with_more_care():
    """Not every label is changed whose suggestion is likely, unless there are many labels."""
    shares = []
    for n in (100, 2000):
        images, features, _ = draw(n=n, wrong_share=0.15, distance=2.5)
        audit = audit_labels(images, [features])
        likely = audit.evidence.score(audit.suggested) <= 0.05
        likely &= audit.suggested != images.given
        cleaned = clean_labels(audit)
        assert not (cleaned.changed & ~likely).any()
        shares.append(cleaned.changed.sum() / likely.sum())
    assert 0 < shares[0] < 0.8 < shares[1] < 1


def test_features_that_cannot_judge_are_refused():
    images, features, _ = draw(distance=0)
    with pytest.raises(UserError, match=f"cannot judge .* of the {len(images)} given labels, cha"):
        audit_labels(images, [features])


def test_features_in_another_order_are_refused():
    images, features, _ = draw()
    with pytest.raises(UserError, match="check that its rows are in the order of the images"):
        audit_labels(images, [features[np.random.default_rng(0).permutation(len(features))]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * 10, "of one class"),
        ([0, 1] * 4 + [2, 0], "the class 'c' has one image"),
        ([MISSING] * 10, "all missing"),
    ],
)
def test_labels_that_leave_nothing_to_learn(labels, message):
    images, features, _ = draw(n=10)
    images = replace(images, labels=np.array(labels, np.int32)[:, None])
    with pytest.raises(UserError, match=message):
        audit_labels(images, [features])


def test_an_annotator_who_repeats_another():
    images, features, _ = draw(n=50)
    twice = replace(
        images, labels=np.repeat(images.labels, 2, axis=1), annotators=("label", "checked")
    )
    with pytest.raises(UserError, match="the labels of checked repeat those of label"):
        audit_labels(twice, [features])


def test_a_column_of_something_else():
    """Such as who labeled each image; people who labeled other images may know other classes."""
    images, _, _ = draw(n=60)
    people = np.array([3, 4] * 30, np.int32)
    names = ("a", "b", "c", "anna", "bob")
    both = replace(
        images,
        class_names=names,
        labels=np.column_stack([images.labels[:, 0], people]),
        annotators=("label", "annotator"),
    )
    with pytest.raises(UserError, match="the column annotator has no class of label: expected"):
        check_labels(both)
    apart = both.labels.copy()
    apart[:30, 0] = apart[30:, 1] = MISSING
    check_labels(replace(both, labels=apart))


def test_oddities_are_notes_and_part_of_the_refusal():
    images, features, _ = draw(n=200, distance=3)
    images = replace(images, class_names=("a", "A", "c"))
    note = "classes differ only in case, spaces or zeros ('a' and 'A')"
    audit = audit_labels(images, [features])
    assert note in audit.summary.notes[0]
    assert any(line.startswith(f"Note: {note}") for line in audit.headline())
    with pytest.raises(UserError, match=r"in the order of the images; classes differ only in case"):
        audit_labels(images, [features[::-1]])


@pytest.mark.parametrize(("n", "is_rough"), [(499, True), (500, False)])
def test_the_number_of_wrong_labels_is_called_rough_where_it_is(n, is_rough):
    audit = audit_labels(draw(n=n)[0], [draw(n=n)[1]])
    (line,) = [line for line in audit.headline() if "are expected to be wrong" in line]
    assert line.endswith("a rough number, since the images are few") is is_rough


def test_more_classes_than_images_allow():
    images, features, _ = draw(n=10)
    images = replace(
        images,
        labels=np.arange(10, dtype=np.int32)[:, None],
        class_names=tuple(map(str, range(10))),
    )
    with pytest.raises(UserError, match="10 classes for 10 images"):
        audit_labels(images, [features])


def test_features_of_other_images_or_with_nan():
    images, features, _ = draw(n=50)
    with pytest.raises(UserError, match="features of 49 images: expected 50"):
        audit_labels(images, [features[:49]])
    features[7, 0] = np.nan
    with pytest.raises(UserError, match="row 7 are not finite"):
        audit_labels(images, [features])


def test_what_is_written_can_be_read(tmp_path):
    images, features, _ = draw(n=60)
    second = images.labels[:, 0].copy()
    second[:30] = MISSING
    images = replace(
        images,
        labels=np.column_stack([images.labels[:, 0], second]),
        annotators=("label", "anna"),
    )
    audit = audit_labels(images, [features])
    write_outputs(tmp_path, audit, top=5)
    assert LabelAuditRecord.read(tmp_path) == audit.summary
    table = read_columns(tmp_path / "audit.csv", ("path", "given", "suggested", "score", "anna"))
    assert table["path"] == [images.names[row] for row in audit.order]
    np.testing.assert_allclose(np.array(table["score"], float), audit.score[audit.order], atol=1e-9)
    assert table["anna"].count("") == 30
    parquet = read_columns(tmp_path / "audit.parquet", ("path", "q"))
    np.testing.assert_allclose(parquet["q"][0], audit.evidence.q[audit.order[0]])

    cleaned = clean_labels(audit)
    write_cleaned(tmp_path / "cleaned.csv", audit, cleaned)
    table = read_columns(tmp_path / "cleaned.csv", ("path", "label"))
    assert table["label"] == [images.class_names[label] for label in cleaned.labels]


def test_an_image_without_a_label_has_a_suggestion_only():
    images, features, clean = draw()
    labels = images.labels.copy()
    labels[:5] = MISSING
    audit = audit_labels(replace(images, labels=labels), [features])
    assert np.isnan(audit.score[:5]).all()
    assert (audit.suggested[:5] == clean[:5]).mean() >= 0.8
    assert not set(range(5)) & set(audit.order)
    table = columns(audit, np.arange(5))
    assert table["given"] == table["score"] == [None] * 5
