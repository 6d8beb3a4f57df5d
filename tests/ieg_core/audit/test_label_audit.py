# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from ieg_core.audit.cleaning import clean_labels, write_cleaned
from ieg_core.audit.images import MISSING, LabeledImages
from ieg_core.audit.label_audit import LabelAuditRecord, audit_labels, columns
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


@pytest.mark.parametrize(("n", "seed"), [(200, 0), (200, 1), (1200, 0)])
def test_careful_cleaning_never_does_harm(n, seed):
    images, features, clean = draw(n=n, seed=seed)
    audit = audit_labels(images, [features])
    cleaned = clean_labels(audit, 0.95)
    assert (cleaned.labels != clean).sum() <= (images.given != clean).sum()
    if n > 1000:  # of few images, nothing may be certain enough
        assert cleaned.expected_right >= 0.95
        assert (cleaned.labels != clean).sum() < (images.given != clean).sum() / 2
        stricter = clean_labels(audit, 0.999)
        assert 0 < stricter.changed.sum() < cleaned.changed.sum()
        assert (stricter.labels[~stricter.changed] == images.given[~stricter.changed]).all()


def test_features_that_cannot_judge_are_refused():
    images, features, _ = draw(distance=0)
    with pytest.raises(UserError, match="cannot judge these labels"):
        audit_labels(images, [features])


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
