# SPDX-License-Identifier: Apache-2.0
import hashlib

import pytest

from ieg_core.errors import UserError
from ieg_core.experiment.feature_sources import joined, parse, source_digest
from ieg_core.models.efficientnet_weights import NETWORKS


def test_the_built_in_networks_are_those_with_weights():
    assert {source.kind for source in parse([*NETWORKS])} == {"built-in"}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("efficientnet-lite0", ["built-in"]),
        ("efficientnet-lite0+efficientnet-lite2", ["built-in", "built-in"]),
        ("efficientnet-lite0, my/dino.npy", ["built-in", "file"]),
        (["a.npz", "b.parquet,c.NPY"], ["file", "file", "file"]),
        ("net.keras+net.onnx", ["keras", "onnx"]),
        ("keras.applications:EfficientNetV2B0", ["application"]),
    ],
)
def test_names_joined_by_plus_or_comma(text, kinds):
    sources = parse(text)
    assert [source.kind for source in sources] == kinds
    assert parse(joined(sources)) == sources
    assert [source.is_network for source in sources] == [kind != "file" for kind in kinds]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("efficientnet-lite1", r"did you mean 'efficientnet-lite2' or 'efficientnet-lite0'\?"),
        ("", "unknown features ''"),
        ("efficientnet-lite0+", "unknown features ''"),
        ("features.csv", r"unknown features 'features.csv': expected .*\.npy, \.npz, \.parquet"),
        ("keras.applications:", r"'keras.applications:': did you mean 'keras.applications:NAME'\?"),
        ("a.npy+b.npy+a.npy", "received the features a.npy twice"),
    ],
)
def test_other_names_are_refused_with_near_ones(text, message):
    with pytest.raises(UserError, match=message):
        parse(text)


def test_files_decide_the_digest_and_names_do_not(tmp_path):
    one, other = tmp_path / "one.npy", tmp_path / "other.npy"
    one.write_bytes(b"one")
    other.write_bytes(b"one")
    assert source_digest("efficientnet-lite0") == ""
    alone = source_digest(str(one))
    assert alone == source_digest(f"{other}+efficientnet-lite0")
    digest = hashlib.sha256(b"one").hexdigest()
    assert alone == hashlib.sha256(digest.encode()).hexdigest()
    other.write_bytes(b"other")
    assert source_digest(str(other)) != alone
    with pytest.raises(UserError, match=r"cannot read the features .*missing\.npy \(No such file"):
        source_digest(str(tmp_path / "missing.npy"))
