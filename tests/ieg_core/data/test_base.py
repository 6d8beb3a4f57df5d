# SPDX-License-Identifier: Apache-2.0
import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ieg_core.data.open import open_cifar, open_source
from ieg_core.errors import UserError


def test_digits_are_scikit_learn_s(tmp_path):
    source = open_source("digits", tmp_path)
    train = source.train_images(np.arange(len(source.train_labels)))
    test = source.test_images(np.arange(len(source.test_labels)))
    assert train.dtype == np.uint8
    assert train.shape == (1438, 8, 8, 1)
    assert test.shape == (359, 8, 8, 1)
    assert source.train_labels.dtype == source.test_labels.dtype == np.int32
    assert source.image_shape == (8, 8, 1)
    assert source.class_names == tuple("0123456789")

    values, targets = load_digits(return_X_y=True)
    # v·255/16 = 15.9375·v; the only half, 8·15.9375 = 127.5, rounds to the even 128.
    table = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    originals = {
        (table[v.astype(int)].tobytes(), int(t)) for v, t in zip(values, targets, strict=True)
    }
    ours = {
        (image.reshape(64).astype(int).tobytes(), int(label))
        for images, labels in ((train, source.train_labels), (test, source.test_labels))
        for image, label in zip(images, labels, strict=True)
    }
    assert ours == originals


def test_the_digits_test_set_is_a_fixed_stratified_fifth(tmp_path):
    source = open_source("digits", tmp_path)
    test, train = np.bincount(source.test_labels), np.bincount(source.train_labels)
    assert (np.abs(test - (test + train) / 5) <= 0.5).all()
    # Another split would change every published number.
    assert source.digest.startswith("78e65efe8e1df24e")


def test_importing_the_data_package_is_light():
    code = (
        "import sys; import ieg_core.data; heavy = ('sklearn', 'keras', 'tensorflow', "
        "'tensorflow_datasets', 'jax', 'kfp'); print([m for m in heavy if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_an_unknown_base_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown data set 'cifar': did you mean 'cifar10'"):
        open_source("cifar", tmp_path)


@pytest.mark.parametrize("base", ["cifar10", "cifar100"])
def test_a_record_becomes_an_image(base, tmp_path, small_cifar, write_folder):
    layout, files = small_cifar(base)
    write_folder(tmp_path, layout, files)
    source = open_cifar(layout, tmp_path)
    num_files = len(layout.train_files)
    assert source.train_images([]).shape == (0, 32, 32, 3)
    assert len(source.train_labels) == 20 * num_files
    expected_labels = np.tile(np.arange(20) % len(source.class_names), num_files)
    np.testing.assert_array_equal(source.train_labels, expected_labels)
    # The last record of the last training file, pixel (row 1, column 2): red, green and blue
    # planes of 1024 bytes follow the label bytes.
    record = files[layout.train_files[-1]][-layout.record_bytes :]
    pixel = layout.label_bytes + 1 * 32 + 2
    image = source.train_images([20 * num_files - 1])[0]
    assert image[1, 2].tolist() == [record[pixel], record[pixel + 1024], record[pixel + 2048]]
    record = files[layout.test_files[0]][: layout.record_bytes]
    assert source.test_images([0])[0, 1, 2, 0] == record[pixel]


def test_equal_data_have_equal_digests_and_no_other(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar10")
    digests = []
    for case in ("first", "copy", "pixel", "label"):
        changed = bytearray(files["data_batch_2.bin"])
        if case == "pixel":
            changed[500] ^= 1
        if case == "label":
            changed[0] ^= 1
        write_folder(tmp_path / case, layout, files | {"data_batch_2.bin": bytes(changed)})
        digests.append(open_cifar(layout, tmp_path / case).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_truncated_file_is_named(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar10")
    folder = write_folder(tmp_path, layout, files)
    (folder / "data_batch_3.bin").write_bytes(files["data_batch_3.bin"][:-1])
    with pytest.raises(
        UserError,
        match=r"data_batch_3.bin has 61459 bytes, expected 61460 \(20 records of 3073 bytes\)",
    ):
        open_cifar(layout, tmp_path)


def test_a_missing_file_is_named(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar100")
    folder = write_folder(tmp_path, layout, files)
    (folder / "test.bin").unlink()
    with pytest.raises(UserError, match=r"test.bin \(No such file.*expected 61480 bytes; unpack"):
        open_cifar(layout, tmp_path)


def test_a_small_folder_does_not_pass_for_the_official_one(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar10")
    write_folder(tmp_path, layout, files)
    with pytest.raises(UserError, match=r"data_batch_1.bin has 61460 bytes, expected 30730000"):
        open_source("cifar10", tmp_path)


def test_a_label_that_is_no_class_is_refused(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar10")
    wrong = bytearray(files["test_batch.bin"])
    wrong[3073] = 10
    write_folder(tmp_path, layout, files | {"test_batch.bin": bytes(wrong)})
    with pytest.raises(UserError, match=r"test_batch.bin holds the label 10, expected .* 0 to 9"):
        open_cifar(layout, tmp_path)


def test_altered_bytes_of_known_files_are_found_and_named(tmp_path, small_cifar, write_folder):
    layout, files = small_cifar("cifar10")
    write_folder(tmp_path / "official", layout, files)
    known = dataclasses.replace(
        layout,
        sha256={name: hashlib.sha256(files[name]).hexdigest() for name in layout.records_per_file},
        digest=open_cifar(layout, tmp_path / "official").digest,
    )
    assert open_cifar(known, tmp_path / "official").digest == known.digest
    altered = bytearray(files["data_batch_4.bin"])
    altered[1000] ^= 1
    write_folder(tmp_path / "altered", layout, files | {"data_batch_4.bin": bytes(altered)})
    with pytest.raises(UserError, match=r"data_batch_4.bin is altered: its SHA-256 is .* expected"):
        open_cifar(known, tmp_path / "altered")


@pytest.mark.parametrize("kind", ["missing parent", "file"])
def test_a_data_directory_that_cannot_be_is_refused(kind, tmp_path):
    data_dir = tmp_path / "nowhere" / "data" if kind == "missing parent" else tmp_path / "file"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no data directory .*cifar-10-batches-bin/ or cifar-10-b"):
        open_source("cifar10", data_dir)
