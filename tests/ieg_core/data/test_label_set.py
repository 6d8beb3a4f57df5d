# SPDX-License-Identifier: Apache-2.0
import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest
import safetensors.numpy

from ieg_core.data.base import EvalSet
from ieg_core.data.corruption import transition_matrix
from ieg_core.data.label_set import (
    CLEAN_VALIDATION,
    draw_labels,
    load_label_set,
    prepare_label_set,
    prepare_soft_label_set,
    probe_note,
)
from ieg_core.data.labels.given import NOT_LISTED, GivenLabels
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.store import seal


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return open_source("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture
def prepare(digits, tmp_path):
    def run(
        text="digits_uniform_0.4",
        seed=0,
        probe=10,
        source=digits,
        label_sets_dir=tmp_path,
        validation=0.0,
    ):
        return prepare_label_set(
            parse(text),
            seed=seed,
            probe_per_class=probe,
            source=source,
            label_sets_dir=label_sets_dir,
            validation_fraction=validation,
        )

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_preparing_twice_gives_the_same_bytes(prepare, tmp_path):
    first = prepare(label_sets_dir=tmp_path / "a")
    second = prepare(label_sets_dir=tmp_path / "b")
    assert first.name == second.name == f"digits_uniform_0.4-seed0-probe10-{first.digest[:8]}"
    assert contents(tmp_path / "a" / first.name) == contents(tmp_path / "b" / first.name)


def test_a_prepared_label_set_is_not_written_again(prepare, tmp_path):
    label_set = prepare()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / label_set.name).iterdir()}
    again = prepare()
    assert again.digest == label_set.digest
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / label_set.name).iterdir()
    } == before
    assert [path.name for path in tmp_path.iterdir()] == [label_set.name]


def test_probe_is_clean_balanced_and_apart(prepare, digits):
    label_set = prepare(probe=10)
    np.testing.assert_array_equal(
        np.bincount(label_set.clean_labels[label_set.probe_ids]), [10] * 10
    )
    assert not set(label_set.probe_ids) & set(label_set.train_ids)
    everything = np.union1d(label_set.probe_ids, label_set.train_ids)
    np.testing.assert_array_equal(everything, np.arange(len(digits.train_labels)))
    np.testing.assert_array_equal(label_set.clean_labels, digits.train_labels)
    np.testing.assert_array_equal(label_set.test_labels, digits.test_labels)
    assert label_set.train_ids.dtype == label_set.probe_ids.dtype == np.int64
    assert label_set.noisy_labels.dtype == label_set.clean_labels.dtype == np.int32


def test_noise_does_not_depend_on_the_probe_nor_the_probe_on_the_noise(prepare):
    without, with_probe, other_noise = (
        prepare(probe=0),
        prepare(probe=10),
        prepare("digits_asymmetric_0.2", probe=10),
    )
    np.testing.assert_array_equal(without.noisy_labels, with_probe.noisy_labels)
    np.testing.assert_array_equal(with_probe.probe_ids, other_noise.probe_ids)
    assert without.probe_ids.shape == (0,)
    assert len(without.train_ids) == len(without.noisy_labels)
    assert without.name != with_probe.name


def test_the_validation_set_is_apart_and_the_same_for_every_method(prepare, digits):
    without, with_probe = (prepare(probe=probe, validation=0.2) for probe in (0, 10))
    plain = prepare(probe=10)
    held_out = with_probe.validation_ids
    np.testing.assert_array_equal(held_out, without.validation_ids)
    for label_set in (without, with_probe):
        parts = (label_set.train_ids, label_set.probe_ids, label_set.validation_ids)
        together = np.concatenate(parts)
        assert len(together) == len(np.unique(together)) == len(digits.train_labels)
        np.testing.assert_array_equal(label_set.noisy_labels, plain.noisy_labels)
    given = with_probe.noisy_labels
    np.testing.assert_array_equal(
        np.bincount(given[held_out]), np.floor(0.2 * np.bincount(given) + 0.5)
    )
    assert with_probe.manifest.class_counts["validation"] == np.bincount(given[held_out]).tolist()
    assert with_probe.name.startswith("digits_uniform_0.4-seed0-probe10-validation0.2-")
    assert len({without.digest, with_probe.digest, plain.digest, prepare(probe=0).digest}) == 4


def test_with_a_validation_set_nothing_can_be_measured_on_the_test_set(prepare, digits):
    def no_test(rows):
        raise AssertionError("the test set was read")

    blind = dataclasses.replace(
        digits, test_images=no_test, eval_sets={"other": EvalSet(digits.test_labels, no_test)}
    )
    label_set = prepare(probe=3, validation=0.2)
    measured = label_set.measured(blind)
    held_out, clean = label_set.validation_ids, label_set.clean_validation_ids
    rows = np.arange(len(held_out))
    np.testing.assert_array_equal(measured.test_images(rows), digits.train_images(held_out))
    # Given labels: some are wrong.
    np.testing.assert_array_equal(label_set.test_labels, label_set.noisy_labels[held_out])
    assert (label_set.test_labels != label_set.clean_labels[held_out]).any()
    # The clean part is as the probe: of each class as many, by its true label.
    assert set(clean) <= set(held_out)
    np.testing.assert_array_equal(np.bincount(label_set.clean_labels[clean]), [3] * 10)
    assert list(measured.eval_sets) == [CLEAN_VALIDATION]
    part = measured.eval_sets[CLEAN_VALIDATION]
    np.testing.assert_array_equal(part.labels, label_set.clean_labels[clean])
    np.testing.assert_array_equal(part.images(np.arange(30)), digits.train_images(clean))
    assert prepare(probe=0, validation=0.2).measured(blind).eval_sets == {}
    assert prepare(probe=3).measured(blind) is blind


def test_a_validation_set_of_a_long_tail_has_its_shape_and_none_is_empty(prepare):
    label_set = prepare("digits_imbal_0.1", probe=0, validation=0.2)
    counts = label_set.manifest.class_counts
    # A fifth of 142, 113, 87, 67, 52, 40, 31, 24, 18, 14, rounded.
    assert counts["validation"] == [28, 23, 17, 13, 10, 8, 6, 5, 4, 3]
    assert counts["clean"] == [142, 113, 87, 67, 52, 40, 31, 24, 18, 14]
    with pytest.raises(UserError, match=r"validation_fraction=0.001 holds out no example"):
        prepare("digits_imbal_0.1", probe=0, validation=0.001)


def test_the_seed_varies_noise_probe_and_tail(prepare):
    first, second = prepare("digits_imbal_0.2_0.4"), prepare("digits_imbal_0.2_0.4", seed=1)
    assert not np.array_equal(first.noisy_labels, second.noisy_labels)
    assert not np.array_equal(first.probe_ids, second.probe_ids)
    kept = [set(np.union1d(o.train_ids, o.probe_ids)) for o in (first, second)]
    assert kept[0] != kept[1]
    assert len(kept[0]) == len(kept[1])


def test_the_long_tail_leaves_its_class_sizes(prepare):
    label_set = prepare("digits_imbal_0.1", probe=2)
    # n_max = 146: ⌊146·0.1^(c/9)⌋ for c = 0..9, class 0 having 142 only.
    assert label_set.manifest.class_counts["clean"] == [142, 113, 87, 67, 52, 40, 31, 24, 18, 14]
    kept = np.union1d(label_set.train_ids, label_set.probe_ids)
    counts = np.bincount(label_set.clean_labels[kept]).tolist()
    assert counts == label_set.manifest.class_counts["clean"]
    np.testing.assert_array_equal(label_set.noisy_labels, label_set.clean_labels)


def test_the_small_classes_of_a_long_tail_give_the_probe_what_they_have(prepare, digits):
    label_set = prepare("digits_imbal_0.02", probe=10)
    # ⌊146·0.02^(c/9)⌋ = …, 10, 6, 4, 2 for the last classes; each keeps one example to train on.
    assert label_set.manifest.class_counts["probe"] == [10] * 6 + [9, 5, 3, 1]
    assert min(label_set.manifest.class_counts["train"]) == 1
    assert probe_note(label_set) == (
        "digits_imbal_0.02: 4 of 10 classes are too small for a probe of 10 and give all of "
        "their examples but one, '9' only 1; the probe has 78 examples"
    )
    assert probe_note(prepare("digits_imbal_0.1", probe=2)) == ""
    assert probe_note(prepare(probe=10)) == ""


def test_the_longest_tail_of_cifar100_has_a_probe_by_default(prepare, digits):
    labels = np.repeat(np.arange(100, dtype=np.int32), 500)
    names = tuple(map(str, range(100)))
    source = dataclasses.replace(digits, base="cifar100", train_labels=labels, class_names=names)
    label_set = prepare("cifar100_imbal_0.01", source=source)
    probe = np.bincount(label_set.clean_labels[label_set.probe_ids])
    assert (probe.min(), probe.max(), len(probe)) == (4, 10, 100)
    assert "'96' only 4" in probe_note(label_set)


def test_the_manifest_tells_what_was_asked_and_what_came_out(prepare, digits, tmp_path):
    label_set = prepare("digits_uniform_0.4", seed=3, probe=10)
    manifest = json.loads((tmp_path / label_set.name / "manifest.json").read_text())
    assert seal.unseal(manifest) == label_set.manifest.to_value()
    spec = parse("digits_uniform_0.4")
    assert manifest["spec"] == "digits_uniform_0.4"
    assert (manifest["seed"], manifest["probe_per_class"]) == (3, 10)
    assert (manifest["base"], manifest["base_digest"]) == ("digits", digits.digest)
    assert (manifest["num_classes"], manifest["image_shape"]) == (10, [8, 8, 1])
    assert (manifest["noise_rate"], manifest["true_flip_rate"]) == (0.4, pytest.approx(0.36))
    assert manifest["versions"] == {"numpy": np.__version__}

    flipped = np.mean(label_set.noisy_labels != label_set.clean_labels)
    assert manifest["realised_flip_rate"] == pytest.approx(flipped)
    asked, realized = manifest["transition_asked"], np.array(manifest["transition_realised"])
    np.testing.assert_allclose(asked, transition_matrix(spec))
    sizes = np.array(manifest["class_counts"]["clean"])[:, None]
    sigma = np.sqrt(np.multiply(asked, np.subtract(1, asked)) / sizes)
    assert (np.abs(realized - asked) <= 5 * sigma).all()
    assert manifest["class_counts"]["probe"] == [10] * 10
    assert sum(manifest["class_counts"]["train"]) == len(label_set.train_ids)
    np.testing.assert_allclose((realized * sizes).sum(axis=0), manifest["class_counts"]["noisy"])


def test_loading_gives_what_was_prepared(prepare, digits, tmp_path):
    prepared = prepare()
    loaded = load_label_set(tmp_path / prepared.name, digits)
    for field in dataclasses.fields(prepared):
        np.testing.assert_equal(getattr(loaded, field.name), getattr(prepared, field.name))
    assert loaded.spec == parse("digits_uniform_0.4")


@pytest.mark.parametrize(("probe", "message"), [(139, "from 0 to 138"), (-1, "from 0 to 138")])
def test_a_probe_that_a_class_cannot_give_is_refused(probe, message, prepare, tmp_path):
    assert len(prepare(probe=138).train_ids) == 1438 - 1380
    with pytest.raises(UserError, match=f"probe of {probe} .* class '8' has 139 .* {message}"):
        prepare(probe=probe)
    with pytest.raises(UserError, match=r"probe of 14 .* class '9' has 1 training examples"):
        prepare("digits_imbal_0.01", probe=14)


def test_a_validation_set_leaves_every_class_an_example(prepare):
    # 139 · 0.01^(c/9): the last class has one example, of which one half rounds to one.
    assert len(prepare("digits_imbal_0.01", probe=0, validation=0.4).validation_ids)
    message = (
        r"class '9' of digits_imbal_0\.01 has no .* beside validation_fraction=0\.5: .* smaller"
    )
    with pytest.raises(UserError, match=message):
        prepare("digits_imbal_0.01", probe=0, validation=0.5)


def test_labels_for_no_example_of_a_class_are_refused(digits):
    given = np.where(digits.train_labels == 3, NOT_LISTED, digits.train_labels)
    with pytest.raises(UserError, match=r"class '3' of digits_labels has no .* in the label file"):
        draw_labels(parse("digits_labels"), 0, 0, digits, GivenLabels(given))


def test_other_base_data_are_refused_by_digest(prepare, digits, tmp_path):
    label_set = prepare()
    other = dataclasses.replace(digits, digest="0" * 64, origin="elsewhere")
    with pytest.raises(
        UserError, match=r"prepared for digits data with digest .* 0000.* from elsewhere"
    ):
        load_label_set(tmp_path / label_set.name, other)
    assert prepare(source=other).name != label_set.name
    with pytest.raises(UserError, match="the data of 'digits': expected 'cifar10' for cifar10"):
        prepare("cifar10")


def test_the_posterior_of_a_run_makes_a_label_set_of_its_own(prepare, digits, tmp_path):
    taught = prepare()
    q = np.full((len(taught.noisy_labels), 10), 0.1, np.float32)

    def soften(rows):
        return prepare_soft_label_set(
            taught, rows, teacher="a-run", source=digits, label_sets_dir=tmp_path
        )

    made = soften(q)
    np.testing.assert_array_equal(made.soft_labels, q)
    np.testing.assert_array_equal(made.noisy_labels, taught.noisy_labels)
    np.testing.assert_array_equal(made.train_ids, np.arange(len(q)))  # the probe too
    np.testing.assert_array_equal(made.probe_ids, taught.probe_ids)
    assert made.manifest.soft_labels_of == "a-run"
    assert soften(q).digest == made.digest
    changed = q.copy()
    changed[3, :2] = 0.15, 0.05
    assert len({taught.digest, made.digest, soften(changed).digest}) == 3
    assert prepare().digest == taught.digest
    assert taught.soft_labels is None


def flip_a_label(folder):
    arrays = safetensors.numpy.load_file(folder / "arrays.safetensors")
    arrays["noisy_labels"] = (arrays["noisy_labels"] + 1).astype(np.int32) % 10
    safetensors.numpy.save_file(arrays, folder / "arrays.safetensors")


def edit_the_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def truncate(name):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(flip_a_label, "is altered or truncated.*digest", id="labels"),
        pytest.param(edit_the_manifest, "is damaged.*sha256", id="manifest"),
        pytest.param(truncate("arrays.safetensors"), "is altered or truncated", id="half arrays"),
        pytest.param(truncate("manifest.json"), "is damaged", id="half manifest"),
        pytest.param(
            lambda folder: (folder / "manifest.json").write_text("[]"),
            "is damaged",
            id="not a manifest",
        ),
        pytest.param(
            lambda folder: (folder / "arrays.safetensors").unlink(),
            "cannot read the label set .*expected manifest.json and",
            id="no arrays",
        ),
    ],
)
def test_an_altered_label_set_is_refused_and_prepared_again(
    change, message, prepare, tmp_path, capsys
):
    label_set = prepare()
    change(tmp_path / label_set.name)
    with pytest.raises(UserError, match=message) as caught:
        load_label_set(tmp_path / label_set.name)
    assert "\n" not in str(caught.value)
    assert prepare().digest == label_set.digest
    assert re.search(message, capsys.readouterr().err)
    assert load_label_set(tmp_path / label_set.name).digest == label_set.digest


def test_another_numpy_makes_the_same_label_set(prepare, tmp_path, monkeypatch):
    label_set = prepare(label_sets_dir=tmp_path / "a")
    monkeypatch.setattr(np, "__version__", "9.9")
    other = prepare(label_sets_dir=tmp_path / "b")
    assert other.manifest.versions == {"numpy": "9.9"}
    assert (other.name, other.digest) == (label_set.name, label_set.digest)


def test_a_folder_that_cannot_be_written_is_a_user_error(prepare, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the label set .*\(Not a directory\)"):
        prepare(label_sets_dir=tmp_path / "file" / "label_sets")


def test_a_full_disk_leaves_nothing_behind(prepare, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write the label set .*\(No space left"):
        prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_faster_writer_s_label_set_stays(prepare, tmp_path, monkeypatch):
    label_set = prepare()
    folder = tmp_path / label_set.name
    before = contents(folder)
    # As if the other process had finished between the look and the rename.
    monkeypatch.setattr(type(folder), "exists", lambda self: False)
    assert prepare().digest == label_set.digest
    monkeypatch.undo()
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [label_set.name]
