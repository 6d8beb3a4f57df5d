# SPDX-License-Identifier: Apache-2.0
"""Really builds TFDS's CIFAR from a small archive in the official layout.

TFDS checks the archive's size and SHA-256 as always; the tests register those of the small one.
"""

import shutil

import numpy as np
import pytest

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_cifar
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse

# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")


@pytest.fixture
def register(monkeypatch):
    """A function that tells TFDS the size and SHA-256 of an archive of ours."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import compute_url_info

    def run(base, archive):
        url_infos = tfds.builder_cls(base).url_infos
        (url,) = url_infos
        monkeypatch.setitem(url_infos, url, compute_url_info(archive))

    return run


def assert_same_data(source, expected):
    assert source.digest == expected.digest
    assert source.version == expected.version
    for split in ("train", "test"):
        labels = getattr(expected, f"{split}_labels")
        np.testing.assert_array_equal(getattr(source, f"{split}_labels"), labels)
        ids = np.arange(len(labels))[::-1]
        np.testing.assert_array_equal(
            getattr(source, f"{split}_images")(ids), getattr(expected, f"{split}_images")(ids)
        )


def label_set_bytes(source, label_sets_dir):
    label_set = prepare_label_set(
        parse(f"{source.base}_uniform_0.4"),
        seed=0,
        probe_per_class=0 if source.base == "cifar100" else 2,
        source=source,
        label_sets_dir=label_sets_dir,
    )
    return {path.name: path.read_bytes() for path in (label_sets_dir / label_set.name).iterdir()}


@pytest.mark.parametrize(("base", "records"), [("cifar10", 20), ("cifar100", 200)])
def test_tfds_and_the_binary_folder_are_one_source(
    base, records, tmp_path, small_cifar, write_folder, write_archive, register
):
    layout, files = small_cifar(base, records)
    write_folder(tmp_path / "binary", layout, files)
    register(base, write_archive(tmp_path / "tfds", layout, files))

    expected = open_cifar(layout, tmp_path / "binary")
    source = open_cifar(layout, tmp_path / "tfds")
    assert source.origin.startswith("TFDS")
    assert_same_data(source, expected)
    assert label_set_bytes(source, tmp_path / "a") == label_set_bytes(expected, tmp_path / "b")

    kept = tmp_path / "tfds" / layout.folder
    for name in layout.records_per_file:
        assert (kept / name).read_bytes() == files[name]
    reopened = open_cifar(layout, tmp_path / "tfds")
    assert reopened.origin == str(kept)
    assert_same_data(reopened, expected)


def test_a_data_set_that_tfds_prepared_before_is_read_where_it_lies(
    tmp_path, small_cifar, write_folder, write_archive, register
):
    import tensorflow_datasets as tfds

    layout, files = small_cifar("cifar10")
    write_folder(tmp_path / "binary", layout, files)
    register("cifar10", write_archive(tmp_path / "archive", layout, files))
    data_dir = tmp_path / "data"
    builder = tfds.builder("cifar10", data_dir=data_dir, try_gcs=False)  # TFRecord, its default
    builder.download_and_prepare(
        download_dir=tmp_path / "downloads",
        download_config=tfds.download.DownloadConfig(
            manual_dir=tmp_path / "archive", try_download_gcs=False
        ),
    )
    stored = [example["id"] for example in tfds.as_numpy(builder.as_dataset("train"))]
    assert stored != sorted(stored)  # TFDS shuffles, so the order has to be restored
    source = open_cifar(layout, data_dir)
    assert source.origin.startswith("TFDS")
    assert_same_data(source, open_cifar(layout, tmp_path / "binary"))

    more, _ = small_cifar("cifar10", 21)
    (data_dir / layout.folder).rename(tmp_path / "aside")
    with pytest.raises(
        UserError, match=r"is damaged or incomplete \(its train set has 100 images, expected 105"
    ):
        open_cifar(more, data_dir)


def test_a_damaged_data_set_of_tfds_is_one_line(
    tmp_path, small_cifar, write_archive, register, caplog
):
    layout, files = small_cifar("cifar10")
    register("cifar10", write_archive(tmp_path, layout, files))
    source = open_cifar(layout, tmp_path)
    shutil.rmtree(tmp_path / layout.folder)
    # Of what was unpacked on the way nothing is left.
    assert sorted(path.name for path in (tmp_path / "tfds").iterdir()) == ["cifar10", "downloads"]
    assert not (tmp_path / "tfds" / "downloads" / "extracted").exists()
    (folder,) = (tmp_path / "tfds" / "cifar10").iterdir()
    info = (folder / "dataset_info.json").read_text()
    (train,) = folder.glob("cifar10-train.*")
    whole = train.read_bytes()
    for path, content, reason in (
        (folder / "dataset_info.json", "", "Failed to load JSON"),
        (folder / "dataset_info.json", "{}", "do not match"),
        (folder / "dataset_info.json", info.replace('"100"', '"20"'), "files of train hold 100 ex"),
        (folder / "dataset_info.json", info.replace("cifar10", "mnist"), "No such file"),
        (folder / "dataset_info.json", None, "it has no dataset_info.json"),
        (train, whole[:70_000], "Corrupted"),
        (train, None, "No such file"),
    ):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        line = r"cifar10.* is damaged or incomplete \(.+\): delete that folder and run again"
        with pytest.raises(UserError, match=line) as caught:
            open_cifar(layout, tmp_path)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        train.write_bytes(whole)
        (folder / "dataset_info.json").write_text(info)
    assert_same_data(open_cifar(layout, tmp_path), source)
    assert caplog.messages == []


def test_an_altered_archive_is_refused(tmp_path, small_cifar, write_archive, register, monkeypatch):
    layout, files = small_cifar("cifar10")
    archive = write_archive(tmp_path, layout, files)
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz is not the official archive"):
        open_cifar(layout, tmp_path)
    assert archive.exists()
    assert not (tmp_path / layout.folder).exists()


def test_without_data_and_network_the_error_says_what_to_put_where(
    tmp_path, small_cifar, monkeypatch, caplog
):
    # A port that nothing listens on: the request fails as it does without a network.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    # The first opener of a process is kept, and with it the proxies that it found.
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    layout, _ = small_cifar("cifar10")
    with pytest.raises(
        UserError, match="put the folder cifar-10-batches-bin/ or the archive "
    ) as e:
        open_cifar(layout, tmp_path / "data")
    assert str(tmp_path / "data") in str(e.value)
    assert "cifar-10-binary.tar.gz" in str(e.value)
    assert "\n" not in str(e.value)
    assert caplog.messages == []  # nor does TFDS warn of folders that are not there
    # A mistyped folder is not left behind as an empty one.
    assert not (tmp_path / "data").exists()
    for folder in ("tfds/cifar10/3.0.2", "cifar10/3.0.2"):  # of a build that was interrupted
        (tmp_path / "data" / folder).mkdir(parents=True)
    with pytest.raises(UserError, match="put the folder cifar-10-batches-bin/"):
        open_cifar(layout, tmp_path / "data")
    assert caplog.messages == []
