# SPDX-License-Identifier: Apache-2.0
"""Really builds TFDS's Fashion-MNIST from small files."""

import dataclasses
import gzip

import numpy as np
import pytest

from ieg_core.data.base import in_memory_source
from ieg_core.data.public.fashion_mnist import idx_files
from ieg_core.errors import UserError
from tests.ieg_core.data.public.test_fashion_mnist import SMALL, known, opened, splits

# TFDS asks protobuf for a field's label in a way that protobuf is about to drop.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")


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
