# SPDX-License-Identifier: Apache-2.0
"""Checks on the real images, where they lie beside the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.labels.open import open_given
from ieg_core.data.open import open_source
from ieg_core.data.public.cifar import LAYOUTS
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse

UNPACK = Path(__file__).parents[5] / "shared" / "data" / "unpack_cifar.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not UNPACK.exists(), reason="the real CIFAR images are not in ../shared/data"
    ),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, UNPACK, "--out", folder], check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("base", ["cifar10", "cifar100"])
def test_the_official_files_are_read(base, data_dir, tmp_path):
    source = open_source(base, data_dir)
    assert source.digest == LAYOUTS[base].digest
    num_classes = len(source.class_names)
    np.testing.assert_array_equal(
        np.bincount(source.train_labels), [50_000 // num_classes] * num_classes
    )
    np.testing.assert_array_equal(
        np.bincount(source.test_labels), [10_000 // num_classes] * num_classes
    )
    label_set = prepare_label_set(
        parse(f"{base}_imbal_0.02"),
        seed=0,
        probe_per_class=1,
        source=source,
        label_sets_dir=tmp_path,
    )
    assert len(label_set.train_ids) + num_classes == {"cifar10": 13_996, "cifar100": 12_608}[base]


@pytest.mark.parametrize(
    ("base", "names_file"),
    [("cifar10", "batches.meta.txt"), ("cifar100", "fine_label_names.txt")],
)
def test_the_class_names_are_the_official_ones(base, names_file, data_dir):
    names = (data_dir / LAYOUTS[base].folder / names_file).read_text().split()
    assert open_source(base, data_dir).class_names == tuple(names)


def test_the_superclasses_are_the_official_coarse_labels(data_dir):
    from ieg_core.experiment.base_datasets import CIFAR100_CLASSES, CIFAR100_SUPERCLASSES

    folder = data_dir / "cifar-100-binary"
    coarse_names = (folder / "coarse_label_names.txt").read_text().split()
    records = np.fromfile(folder / "train.bin", np.uint8).reshape(-1, 3074)
    official = {
        (coarse_names[coarse], CIFAR100_CLASSES[fine]) for coarse, fine in records[:, :2].tolist()
    }
    assert official == {
        (coarse, fine) for coarse, fines in CIFAR100_SUPERCLASSES.items() for fine in fines
    }


def test_one_altered_byte_of_the_official_files_is_found(data_dir):
    path = data_dir / "cifar-10-batches-bin" / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[1_000_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_2.bin is altered: its SHA-256 is"):
        open_source("cifar10", data_dir)
    content[1_000_000] ^= 1
    path.write_bytes(content)
    assert open_source("cifar10", data_dir).digest == LAYOUTS["cifar10"].digest


PUBLISHED_RATES = {  # percent wrong, arXiv 2110.12088
    "cifar10_human_aggregate": 9.0,
    "cifar10_human_random1": 17.2,
    "cifar10_human_random2": 18.1,
    "cifar10_human_random3": 17.6,
    "cifar10_human_worst": 40.2,
    "cifar100_human": 40.2,
}


@pytest.mark.parametrize("name", PUBLISHED_RATES)
def test_people_were_wrong_as_often_as_published(name, data_dir, tmp_path):
    spec = parse(name)
    (data_dir / "cifar-n").mkdir(exist_ok=True)
    for path in UNPACK.parent.glob("*_human.pt"):
        shutil.copy(path, data_dir / "cifar-n")
    source = open_source(spec.base, data_dir)
    label_set = prepare_label_set(
        spec,
        seed=0,
        probe_per_class=0,
        source=source,
        label_sets_dir=tmp_path,
        given=open_given(spec, source, data_dir),
    )
    rate = label_set.manifest.realised_flip_rate
    assert round(100 * rate, 1) == PUBLISHED_RATES[name]
    assert rate == np.mean(label_set.noisy_labels != label_set.clean_labels)
