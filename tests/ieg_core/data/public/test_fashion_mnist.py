# SPDX-License-Identifier: Apache-2.0
import dataclasses
import gzip
import hashlib
import struct

import numpy as np
import pytest

from ieg_core.data import open as opening
from ieg_core.data.base import Split, in_memory_source
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.open import open_given
from ieg_core.data.public import fashion_mnist
from ieg_core.data.public.fashion_mnist import LAYOUT, SYSTEM_FOLDER, idx_files, open_fashion_mnist
from ieg_core.errors import UserError
from ieg_core.experiment.base_datasets import FASHION_MNIST_CLASSES
from ieg_core.experiment.dataset_spec import parse

# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
SMALL = dataclasses.replace(LAYOUT, examples={"train": 40, "test": 20}, digest=None, sha256={})
TRAIN_IMAGES, TEST_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def splits():
    rng = np.random.default_rng(0)
    return [
        Split(
            rng.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8),
            (np.arange(count) % 10).astype(np.int32),
        )
        for count in SMALL.examples.values()
    ]


def written(folder, *, zipped=False):
    """Writes the files, independently of `idx_files`."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in zip(("train", "t10k"), splits(), strict=True):
        count = len(labels)
        for name, content in (
            ("images-idx3", struct.pack(">iiii", 0x803, count, 28, 28) + images.tobytes()),
            ("labels-idx1", struct.pack(">ii", 0x801, count) + bytes(labels.tolist())),
        ):
            name = f"{prefix}-{name}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


def opened(data_dir, system="none", layout=SMALL):
    return open_fashion_mnist(data_dir, layout, data_dir / system)


def known(source):
    """The layout with the digests of a source's data."""
    digests = {
        name: hashlib.sha256(content[16 if "idx3" in name else 8 :]).hexdigest()
        for name, content in idx_files(*splits()).items()
    }
    return dataclasses.replace(SMALL, digest=source.digest, sha256=digests)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("folder", ["fashion-mnist", ".", "FashionMNIST/raw", "system"])
def test_the_files_are_found_in_every_place(folder, zipped, tmp_path):
    place = written(tmp_path / folder, zipped=zipped)
    source = opened(tmp_path, "system")
    assert source.origin == str(place)
    assert source.image_shape == (28, 28, 1)
    assert source.class_names == FASHION_MNIST_CLASSES
    train, test = splits()
    np.testing.assert_array_equal(source.train_labels, train.labels)
    np.testing.assert_array_equal(source.test_labels, test.labels)
    np.testing.assert_array_equal(source.train_images([3, 1]), train.images[[3, 1], 0, ..., None])
    np.testing.assert_array_equal(source.test_images([19]), test.images[[19], 0, ..., None])


def test_the_data_directory_comes_before_the_systems_folder(tmp_path):
    written(tmp_path / "system")
    assert opened(tmp_path, "system").origin == str(tmp_path / "system")
    place = written(tmp_path / "fashion-mnist")
    assert opened(tmp_path, "system").origin == str(place)


def test_written_files_are_the_official_format(tmp_path):
    folder = written(tmp_path / "fashion-mnist")
    files = idx_files(*splits())
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRAIN_IMAGES, lambda content: content[:-1], r"has 31375 bytes.*expected 31376"),
        (TRAIN_IMAGES, lambda content: content + b"\0", r"has more than 31376 bytes"),
        (TRAIN_IMAGES, lambda content: b"", r"has 0 bytes and the magic number none"),
        (TEST_LABELS, lambda content: b"\0\0\x0d" + content[3:], "number 00000d01, expected 28"),
        (TEST_LABELS, lambda content: content[:-1] + b"\x0a", "holds the label 10, expected"),
        (TEST_LABELS, None, r"cannot read .*t10k-labels-idx1-ubyte.gz \(No such file"),
    ],
)
def test_a_cut_or_damaged_file_is_one_line(name, change, message, tmp_path):
    path = written(tmp_path / "fashion-mnist") / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=rf"{message}.*; get the four files again") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content[:-9], id="cut"),
        pytest.param(lambda content: content[:200] + b"\xff" * 20 + content[220:], id="damaged"),
        pytest.param(lambda content: b"no gzip", id="another format"),
        pytest.param(lambda content: content[:-6] + b"\0" + content[-5:], id="checksum"),
    ],
)
def test_a_damaged_gzip_file_is_one_line(change, tmp_path):
    path = written(tmp_path / "fashion-mnist", zipped=True) / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"is truncated or altered .*get the four files") as caught:
        opened(tmp_path)
    assert str(path) in str(caught.value)


def test_a_gzip_file_is_not_unpacked_beyond_its_size(tmp_path):
    path = written(tmp_path / "fashion-mnist", zipped=True) / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)) + b"never read, or it would be no gzip")
    with pytest.raises(UserError, match=r"has more than 31376 bytes .*, expected 31376"):
        opened(tmp_path)


def test_one_altered_byte_is_found_and_its_file_named(tmp_path):
    folder = written(tmp_path / "fashion-mnist")
    layout = known(opened(tmp_path))
    opened(tmp_path, layout=layout)
    path = folder / TRAIN_IMAGES
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{TRAIN_IMAGES} is altered or from another data set"):
        opened(tmp_path, layout=layout)


@pytest.mark.parametrize(
    "name",
    [
        "fashion_mnist",
        "fashion_mnist_uniform_0.4",
        "fashion_mnist_asymmetric_1",
        "fashion_mnist_imbal_0.5",
        "fashion_mnist_imbal_0.5_0.2",
    ],
)
def test_every_corruption_makes_a_label_set(name, tmp_path):
    written(tmp_path / "fashion-mnist")
    label_set = prepare_label_set(
        parse(name), seed=0, probe_per_class=1, source=opened(tmp_path), label_sets_dir=tmp_path
    )
    assert label_set.image_shape == (28, 28, 1)
    if "asymmetric" in name:
        flips = {
            (FASHION_MNIST_CLASSES[true], FASHION_MNIST_CLASSES[noisy])
            for true, noisy in zip(label_set.clean_labels, label_set.noisy_labels, strict=True)
            if true != noisy
        }
        assert flips == {
            ("ankle_boot", "sneaker"),
            ("sneaker", "sandal"),
            ("pullover", "shirt"),
            ("coat", "dress"),
            ("dress", "coat"),
        }


def test_a_label_file_gives_the_labels(tmp_path):
    written(tmp_path / "fashion-mnist")
    source, spec = opened(tmp_path), parse("fashion_mnist_labels")
    labels = (source.train_labels + 1) % 10
    path = tmp_path / "mine.csv"
    lines = [f"{index},{FASHION_MNIST_CLASSES[label]}" for index, label in enumerate(labels)]
    path.write_text("index,label\n" + "\n".join(lines) + "\n")
    given = open_given(spec, source, tmp_path, str(path))
    np.testing.assert_array_equal(given.labels, labels)


def test_the_base_is_opened_by_its_name(tmp_path, monkeypatch):
    written(tmp_path / "fashion-mnist")
    with pytest.raises(UserError, match=r"has 31376 bytes.*IDX, 60000 x 28 x 28"):
        opening.open_source("fashion_mnist", tmp_path)
    monkeypatch.setattr(opening, "open_fashion_mnist", opened)
    assert opening.open_source("fashion_mnist", tmp_path).base == "fashion_mnist"


@pytest.mark.slow
@pytest.mark.skipif(
    not SYSTEM_FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_real_files_of_debian_are_the_official_ones(tmp_path):
    source = open_fashion_mnist(tmp_path)
    assert source.origin == str(fashion_mnist.SYSTEM_FOLDER)
    assert source.digest == LAYOUT.digest
    np.testing.assert_array_equal(np.bincount(source.train_labels), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(source.test_labels), [1000] * 10)


# Really builds TFDS's Fashion-MNIST from small files.


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A data directory with a TFDS build of the small files, in TFDS's own format."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import compute_url_info
    from tensorflow_datasets.image_classification import mnist

    for split, count in SMALL.examples.items():
        monkeypatch.setattr(mnist, f"_{split.upper()}_EXAMPLES", count)
    (tmp_path / "files").mkdir()
    url_infos = tfds.builder_cls("fashion_mnist").url_infos
    for name, content in idx_files(*splits()).items():
        path = tmp_path / "files" / f"{name}.gz"
        path.write_bytes(gzip.compress(content))
        (url,) = (url for url in url_infos if url.endswith(path.name))
        monkeypatch.setitem(url_infos, url, compute_url_info(path))
    builder = tfds.builder("fashion_mnist", data_dir=tmp_path / "data", try_gcs=False)
    builder.download_and_prepare(
        download_dir=tmp_path / "downloads",
        download_config=tfds.download.DownloadConfig(
            manual_dir=tmp_path / "files", try_download_gcs=False
        ),
    )
    return tmp_path / "data"


def test_a_build_of_tfds_is_read_in_the_official_order_and_kept_as_files(prepared):
    expected = in_memory_source("fashion_mnist", "official", "", *splits())
    source = opened(prepared, layout=known(expected))
    assert source.origin.startswith("TFDS")
    np.testing.assert_array_equal(
        source.train_images(np.arange(40)), expected.train_images(np.arange(40))
    )
    kept = prepared / "fashion-mnist"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == idx_files(*splits())
    reopened = opened(prepared)
    assert (reopened.origin, reopened.digest) == (str(kept), expected.digest)


def test_a_build_of_other_data_is_one_line(prepared):
    layout = dataclasses.replace(SMALL, digest="0" * 64)
    with pytest.raises(
        UserError, match=r"TFDS data set fashion_mnist in .* is altered: its digest"
    ):
        opened(prepared, layout=layout)
    layout = dataclasses.replace(SMALL, examples={"train": 41, "test": 20})
    with pytest.raises(UserError, match=r"its train set has 40 images, expected 41\)"):
        opened(prepared, layout=layout)
    assert not (prepared / "fashion-mnist").exists()


def test_without_data_and_network_the_error_says_what_to_put_where(tmp_path, monkeypatch):
    # A port that nothing listens on: the request fails as it does without a network.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    # The first opener of a process is kept, and with it the proxies that it found.
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(
        UserError, match=r"cannot be downloaded .*Debian's package dataset-"
    ) as told:
        opened(tmp_path / "data")
    assert str(tmp_path / "data") in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "data").exists()
    with pytest.raises(UserError, match="there is no such folder"):
        opened(tmp_path / "missing" / "data")
