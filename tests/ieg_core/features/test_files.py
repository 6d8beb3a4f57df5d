# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ieg_core.data import tables
from ieg_core.errors import UserError
from ieg_core.features.files import in_order_of, read_features
from ieg_core.host import archives

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


def write(folder):
    np.save(folder / "a.npy", FEATURES)
    np.savez(folder / "b.npz", features=FEATURES)
    columns = {f"f{number}": column for number, column in enumerate(FEATURES.T)}
    pq.write_table(pa.table(columns), folder / "c.parquet")
    pq.write_table(pa.table({"embedding": FEATURES.tolist()}), folder / "d.parquet")
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(FEATURES.ravel()), 3)
    pq.write_table(pa.table({"embedding": fixed}), folder / "e.parquet")
    return sorted(folder.iterdir())


def test_every_kind_of_file_is_read(tmp_path):
    found = read_features(write(tmp_path))
    assert len(found) == 5
    for features in found:
        np.testing.assert_array_equal(features, FEATURES)
    assert isinstance(found[0], np.memmap)


def test_other_files_are_refused(tmp_path):
    def refused(name, message, *others):
        with pytest.raises(UserError, match=message):
            read_features([tmp_path / name, *(tmp_path / other for other in others)])

    write(tmp_path)
    refused("missing.npy", "there is no file .*missing.npy")
    (tmp_path / "x.txt").write_text("1")
    refused("x.txt", r"not a features file: expected one ending in \.npy, \.npz, \.parquet")
    (tmp_path / "x.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    refused("x.npy", "cannot read features")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and nothing more")
    refused("x.npz", "cannot read features")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    refused("x.parquet", "cannot read features")
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    refused("object.npy", "cannot read features")
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("features")
        refused(name, f"it is not an {name[4:]} file")
    np.savez(tmp_path / "two.npz", a=FEATURES, b=FEATURES)
    refused("two.npz", "the arrays a, b, expected one")
    pq.write_table(pa.table({"e": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    refused("ragged.parquet", "differ in length")
    np.save(tmp_path / "words.npy", np.array([["a"], ["b"]]))
    refused("words.npy", "expected numbers")
    np.save(tmp_path / "short.npy", FEATURES[:3])
    refused("a.npy", r"in .*a\.npy and .*short\.npy have .*the same number of rows", "short.npy")
    np.save(tmp_path / "nan.npy", np.where(FEATURES == 4, np.nan, FEATURES))
    refused("a.npy", r"row 1 in \S*nan\.npy are not finite", "nan.npy", "c.parquet")


def test_files_that_unpack_to_much_more_than_their_size_are_refused(tmp_path, monkeypatch):
    zeros = np.zeros((100_000, 1), np.float32)
    np.savez_compressed(tmp_path / "a.npz", zeros)
    pq.write_table(pa.table({"a": zeros[:, 0]}), tmp_path / "b.parquet")
    assert read_features([tmp_path / "a.npz"])[0].shape == (100_000, 1)
    assert read_features([tmp_path / "b.parquet"])[0].shape == (100_000, 1)
    monkeypatch.setattr(archives, "_MOST_TEXT", 1000)
    monkeypatch.setattr(tables, "_MOST_UNPACKED", 1000)
    with pytest.raises(UserError, match=r"unpacks arr_0\.npy to 400,128 bytes: expected at most"):
        read_features([tmp_path / "a.npz"])
    with pytest.raises(UserError, match="it unpacks to more than"):
        read_features([tmp_path / "b.parquet"])


def test_rows_follow_the_names_in_their_file(tmp_path):
    names = ["b/1.png", "a/1.png", "a/2.png", "a/3.png"]
    np.savez(tmp_path / "named.npz", x=FEATURES, paths=np.array(names))
    columns = {"name": names, "f0": FEATURES[:, 0], "f1": FEATURES[:, 1], "f2": FEATURES[:, 2]}
    pq.write_table(pa.table(columns), tmp_path / "named.parquet")
    np.save(tmp_path / "plain.npy", FEATURES)
    paths = [tmp_path / name for name in ("named.npz", "named.parquet", "plain.npy")]
    features = read_features(paths)
    found = in_order_of(sorted(names), features, paths)
    for each in found[:2]:
        np.testing.assert_array_equal(each, FEATURES[[1, 2, 3, 0]])
    np.testing.assert_array_equal(found[2], FEATURES)
    # Fewer images than rows are fine, another image is not.
    assert len(in_order_of(names[:2], features[:1], paths[:1])[0]) == 2
    with pytest.raises(UserError, match=r"no features of 1 of 2 images, such as c\.png"):
        in_order_of([names[0], "c.png"], features[:1], paths[:1])


def test_names_that_are_no_texts_or_not_one_per_row_are_refused(tmp_path):
    path = tmp_path / "twice.npz"
    np.savez(path, x=FEATURES, names=np.array(["a", "b", "b", "c"]))
    with pytest.raises(UserError, match="4 names, 3 of them different, for 4 rows"):
        in_order_of(["a"], read_features([path]), [path])
    np.savez(path, x=FEATURES, names=np.array(["a", "b", "c", "d"], object))
    with pytest.raises(
        UserError, match=r"cannot read the names in .*twice\.npz .*: expected texts"
    ):
        in_order_of(["a"], read_features([path]), [path])
