# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import tarfile

import numpy as np
import pytest

from ieg_core.data.public.cifar import LAYOUTS
from tests.ieg_core.data.trees import COUNTS, write_tree

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}
LABEL_FILES = {
    "cifar10": {"batches.meta.txt": 10},
    "cifar100": {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
}


def small_layout(base, records=20):
    """The official layout with `records` records a file, and no known digests."""
    layout = LAYOUTS[base]
    return dataclasses.replace(
        layout,
        records_per_file=dict.fromkeys(layout.records_per_file, records),
        sha256={},
        digest=None,
    )


def small_files(layout, seed=0):
    """Files in the official layout, by name: random pixels, every class in turn."""
    rng = np.random.default_rng(seed)
    files = {}
    for name, count in layout.records_per_file.items():
        records = rng.integers(0, 256, (count, layout.record_bytes), dtype=np.uint8)
        records[:, layout.label_bytes - 1] = np.arange(count) % NUM_CLASSES[layout.base]
        if layout.label_bytes == 2:
            records[:, 0] = np.arange(count) % 20
        files[name] = records.tobytes()
    for name, count in LABEL_FILES[layout.base].items():
        files[name] = "".join(f"name{i}\n" for i in range(count)).encode()
    return files


@pytest.fixture
def small_cifar():
    """A function from a base to (layout, files by name)."""

    def build(base, records=20):
        layout = small_layout(base, records)
        return layout, small_files(layout)

    return build


@pytest.fixture
def write_folder():
    """A function that writes files as the official folder under a data directory."""

    def write(data_dir, layout, files):
        folder = data_dir / layout.folder
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture
def write_archive():
    """A function that writes files as the official archive under a data directory."""

    def write(data_dir, layout, files):
        data_dir.mkdir(parents=True, exist_ok=True)
        with tarfile.open(data_dir / layout.archive, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"{layout.folder}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return data_dir / layout.archive

    return write


@pytest.fixture
def tree(tmp_path):
    """A few images of each class, in the folders' layout."""
    return write_tree(tmp_path / "data", COUNTS)
