# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import zipfile

import numpy as np
import pytest

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.cifar_n import FILES
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_cifar
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse

KEYS = {
    "cifar10_human_aggregate": "aggre_label",
    "cifar10_human_random1": "random_label1",
    "cifar10_human_random2": "random_label2",
    "cifar10_human_random3": "random_label3",
    "cifar10_human_worst": "worse_label",
    "cifar100_human": "noisy_label",
}


@pytest.fixture
def small_source(tmp_path, small_cifar, write_folder):
    """A function from a base to its source in tmp_path/data, with few images."""

    def build(base):
        layout, files = small_cifar(base, 200 if base == "cifar100" else 20)
        write_folder(tmp_path / "data", layout, files)
        return open_cifar(layout, tmp_path / "data")

    return build


def published(source, seed=0):
    """The published arrays for a source: of each set, other labels."""
    rng = np.random.default_rng(seed)
    classes = len(source.class_names)
    arrays = {"clean_label": source.train_labels.astype(np.int64)}
    for spec, key in KEYS.items():
        if spec.startswith(f"{source.base}_"):
            arrays[key] = rng.integers(0, classes, len(source.train_labels))
    return arrays


def write_published(folder, base, content):
    """Writes what PyTorch's `save` writes: a zip with a pickle in it."""
    path = folder / "cifar-n" / FILES[base]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_set_of_the_published_file_is_what_is_trained_on(tmp_path, small_source, name, zipped):
    spec = parse(name)
    source = small_source(spec.base)
    arrays = published(source)
    path = write_published(tmp_path / "data", spec.base, pickle.dumps(arrays, protocol=2))
    if not zipped:
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    given = open_given(spec, source, tmp_path / "data")
    np.testing.assert_array_equal(given.labels, arrays[KEYS[name]])
    label_set = prepare_label_set(
        spec, seed=0, probe_per_class=1, source=source, label_sets_dir=tmp_path / "o", given=given
    )
    np.testing.assert_array_equal(label_set.noisy_labels, arrays[KEYS[name]])
    np.testing.assert_array_equal(label_set.clean_labels, source.train_labels)
    wrong = np.mean(arrays[KEYS[name]] != source.train_labels)
    assert label_set.manifest.realised_flip_rate == pytest.approx(wrong)
    assert label_set.manifest.true_flip_rate == pytest.approx(wrong)
    assert label_set.manifest.noise_rate is None
    assert label_set.manifest.labels_file is None


class RunsWhenRead:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_nothing_in_the_file_is_run(tmp_path, small_source):
    source = small_source("cifar10")
    mark = tmp_path / "was-run"
    content = pickle.dumps(published(source) | {"worse_label": RunsWhenRead(mark)}, protocol=2)
    path = write_published(tmp_path / "data", "cifar10", content)
    with pytest.raises(UserError, match=r"it refers to \w+.system; no code in it was run") as error:
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")
    assert not mark.exists()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def changed(arrays, **changes):
    return pickle.dumps({**arrays, **changes}, protocol=2)


BAD = {
    "other images": (
        lambda a: changed(a, clean_label=a["clean_label"][::-1].copy()),
        "its clean labels are not those of",
    ),
    "a set is missing": (
        lambda a: pickle.dumps({"clean_label": a["clean_label"]}),
        "'worse_label' is missing",
    ),
    "too few": (lambda a: changed(a, worse_label=a["worse_label"][:-1]), r"has shape \(99,\)"),
    "no class": (lambda a: changed(a, worse_label=a["worse_label"] + 1), "ranges from 1 to 10"),
    "floats": (lambda a: changed(a, worse_label=a["worse_label"] / 2), "not of integers"),
    "truncated": (lambda a: pickle.dumps(a)[:-30], "no code in it was run"),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_one_clear_line(tmp_path, small_source, name):
    make, message = BAD[name]
    source = small_source("cifar10")
    write_published(tmp_path / "data", "cifar10", make(published(source)))
    with pytest.raises(UserError, match=message) as error:
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")
    assert "\n" not in str(error.value)
    assert "get it again from" in str(error.value)


def test_a_damaged_zip_is_told(tmp_path, small_source):
    source = small_source("cifar10")
    path = write_published(tmp_path / "data", "cifar10", pickle.dumps(published(source)))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not CIFAR-N's published label file"):
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_zip_damaged_anywhere_is_told(tmp_path, small_source, method):
    source = small_source("cifar10")
    path = tmp_path / "data" / "cifar-n" / FILES["cifar10"]
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(published(source)))
    whole = path.read_bytes()
    for place in range(48, len(whole) - 120, 40):
        path.write_bytes(whole[:place] + bytes(byte ^ 255 for byte in whole[place : place + 8])
                         + whole[place + 8 :])  # fmt: skip
        with pytest.raises(UserError, match="is not CIFAR-N's published label file"):
            open_given(parse("cifar10_human_worst"), source, tmp_path / "data")


def test_a_zip_without_a_pickle_and_one_that_unpacks_to_too_much(
    tmp_path, small_source, monkeypatch
):
    source = small_source("cifar10")
    path = write_published(tmp_path / "data", "cifar10", pickle.dumps(published(source)))
    monkeypatch.setattr("ieg_core.data.labels.cifar_n.MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"it unpacks to \d+ bytes"):
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(UserError, match="is not CIFAR-N's published label file"):
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")


def test_without_the_files_the_error_says_what_to_put_where(tmp_path, small_source):
    source = small_source("cifar10")
    with pytest.raises(UserError, match=r"put CIFAR-10_human.pt from .* into .*cifar-n, or") as e:
        open_given(parse("cifar10_human_worst"), source, tmp_path / "data")
    assert "\n" not in str(e.value)


# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
@pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
def test_tfds_and_the_published_file_give_the_same_labels(
    tmp_path, small_cifar, small_source, write_archive, monkeypatch
):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import compute_url_info

    source = small_source("cifar10")
    arrays = published(source)
    layout, files = small_cifar("cifar10")
    archive = write_archive(tmp_path / "manual", layout, files)
    (url,) = tfds.builder_cls("cifar10").url_infos
    # TFDS ships no checksums for this data set, and without them it would download.
    url_infos = {url: compute_url_info(archive)}
    monkeypatch.setattr(tfds.builder_cls("cifar10_n"), "url_infos", url_infos)
    # The human labels lie in an order of their own, with a file that says which.
    order = np.random.default_rng(1).permutation(len(source.train_labels))
    np.save(tmp_path / "manual" / "image_order_c10.npy", order)
    names = ["clean_label", "aggre_label", "worse_label"]
    names += ["random_label1", "random_label2", "random_label3"]
    rows = np.stack([arrays[name][order] for name in names], axis=1)
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "manual" / "CIFAR-10_human_annotations.csv").write_text("\n".join(lines) + "\n")
    side = ["batch,a,b,c,d,e,f", *(f"{i},1,2,3,4,5,6" for i in range(len(order) // 10))]
    (tmp_path / "manual" / "side_info_cifar10N.csv").write_text("\n".join(side) + "\n")
    builder = tfds.builder(
        "cifar10_n", data_dir=tmp_path / "data" / "tfds", file_format="array_record", try_gcs=False
    )
    builder.download_and_prepare(
        download_dir=tmp_path / "downloads",
        download_config=tfds.download.DownloadConfig(
            manual_dir=tmp_path / "manual", try_download_gcs=False
        ),
    )
    for spec in (parse(name) for name in KEYS if name.startswith("cifar10_")):
        given = open_given(spec, source, tmp_path / "data")
        np.testing.assert_array_equal(given.labels, arrays[KEYS[str(spec)]])
