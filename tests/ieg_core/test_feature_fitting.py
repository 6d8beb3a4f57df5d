# SPDX-License-Identifier: Apache-2.0
import json
import os

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from ieg_core import feature_fitting, fitting
from ieg_core.cli import main
from ieg_core.errors import UserError
from ieg_core.feature_fitting import fit_on_features
from ieg_core.features.head import train_head
from ieg_core.fitting import fit
from tests.ieg_core.data.trees import write_tree

COUNT = 150
NAMES = ("red", "green", "blue")
RNG = np.random.default_rng(0)
TRUTH = np.arange(COUNT) % 3
GIVEN = TRUTH.copy()
GIVEN[::5] = (TRUTH[::5] + 1) % 3
COLORS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])


def draw(truth):
    noise = RNG.normal(0, 40, (len(truth), 12, 10, 3))
    return np.clip(COLORS[truth][:, None, None] + noise, 0, 255).astype(np.uint8)


IMAGES, FURTHER = draw(TRUTH), draw(TRUTH[:30])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Fits are so small here that threads wait for each other longer than they compute."""
    with threadpool_limits(1):
        yield


def mean_color(batch):
    return batch[:, ::16, ::16].mean((1, 2))


def test_it_learns_from_the_posterior_and_predicts_any_images(tmp_path):
    given = [NAMES[label] for label in GIVEN]
    test = (FURTHER, [NAMES[label] for label in TRUTH[:30]])
    fitted = fit_on_features(
        IMAGES, given, mean_color, test=test, class_names=NAMES, progress=False
    )
    assert fitted.accuracy == 1
    predicted = fitted.predict(list(FURTHER))
    assert predicted.shape == (30, 3)
    assert predicted.argmax(1).tolist() == TRUTH[:30].tolist()
    np.testing.assert_allclose(predicted.sum(1), 1, rtol=1e-5)
    wrong = set(range(0, COUNT, 5))
    assert len(set(fitted.audit.suspects(30)) & wrong) >= 28
    assert "Classifier on" in repr(fitted)
    assert "accuracy 100.0%" in repr(fitted)
    image = Image.fromarray(FURTHER[0])
    image.save(tmp_path / "one.png")
    for one in (image, tmp_path / "one.png", str(tmp_path / "one.png"), FURTHER[:1]):
        np.testing.assert_allclose(fitted.predict(one), predicted[:1], atol=1e-6)
    with pytest.raises(UserError, match=r"that of one image: .*pass images.None."):
        fitted.predict(FURTHER[0])


def test_features_alone_are_enough(capsys):
    """In place of images, in every argument."""
    matrix, further = IMAGES.mean((1, 2)), FURTHER.mean((1, 2))
    fitted = fit(matrix, GIVEN, test=(further, TRUTH[:30]), probe=(further[:6], TRUTH[:6]))
    assert capsys.readouterr().out == "fit: retrain trusts the labels of the probe\n"
    assert fitted.accuracy == 1
    assert fitted.predict(further).argmax(1).tolist() == TRUTH[:30].tolist()
    with pytest.raises(UserError, match=r"received features \(150, 3\) and network 'resnet11'"):
        fit(matrix, GIVEN, "resnet11")
    with pytest.raises(UserError, match="received 2 features an image: expected 3, as in training"):
        fitted.predict(further[:, :2])
    with pytest.raises(UserError, match="received images for a classifier on features: expected"):
        fitted.predict(FURTHER)
    with pytest.raises(UserError, match="on features that were passed to it: expected a network"):
        fitted.save("head.safetensors")
    with pytest.raises(UserError, match="received 2 features an image: expected 3, as in training"):
        fit(matrix, GIVEN, test=(further[:, :2], TRUTH[:30]))


def test_without_a_test_set_it_measures_agreement():
    fitted = fit_on_features(IMAGES, GIVEN, mean_color, progress=False)
    assert fitted.accuracy == pytest.approx(0.8, abs=0.05)


def test_a_probe_is_trusted_and_never_suspected():
    fitted = fit_on_features(IMAGES, GIVEN, mean_color, probe=(FURTHER, TRUTH[:30]), progress=False)
    assert fitted.audit.summary.trusted == 30
    assert len(fitted.audit.order) == COUNT
    assert fitted.audit.images.indices[COUNT + 1] == ("probe", 1)
    np.testing.assert_array_equal(fitted.audit.images.read(COUNT + 1), FURTHER[1])


def test_a_seed_repeats_it_and_settings_count():
    first, again, other = (
        fit_on_features(IMAGES, GIVEN, mean_color, settings=settings, progress=False)
        for settings in ({"hidden": "0"}, {"hidden": "0"}, {"hidden": "8"})
    )
    np.testing.assert_array_equal(first.predict(FURTHER), again.predict(FURTHER))
    assert (len(first.head.layers), len(other.head.layers)) == (2, 4)


@pytest.mark.parametrize(("settings", "batch"), [({}, 16), ({"batch_size": "64"}, 64)])
def test_small_sets_get_small_batches(monkeypatch, settings, batch):
    received = []

    def train(inputs, q, chosen, *, seed):
        received.append(chosen.batch_size)
        return train_head(inputs, q, chosen, seed=seed)

    monkeypatch.setattr(feature_fitting, "train_head", train)
    fit_on_features(IMAGES, GIVEN, mean_color, settings=settings, progress=False)
    assert received == [batch]


def test_files_to_predict_that_cannot_be_decoded_are_told(tmp_path):
    fitted = fit_on_features(IMAGES, GIVEN, mean_color, progress=False)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="can be decoded"):
        fitted.predict(str(tmp_path / "broken.png"))


def test_a_saved_classifier_predicts_files(tmp_path, capsys, monkeypatch):
    import keras

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in list(os.environ):  # what `predict` sets is put back
        monkeypatch.setenv(name, os.environ[name])
    pixels = keras.Input((8, 8, 3))
    network, head = tmp_path / "color.keras", tmp_path / "head.safetensors"
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels)).save(network)
    given = [NAMES[label] for label in GIVEN]
    fitted = fit_on_features(IMAGES, given, str(network), class_names=NAMES, progress=False)
    with pytest.raises(UserError, match=r"head\.keras: expected .* ends as head\.safetensors"):
        fitted.save(tmp_path / "head.keras")
    fitted.save(head)
    for number in range(3):
        Image.fromarray(FURTHER[number]).save(tmp_path / f"{number}.png")
    images = [str(tmp_path / f"{number}.png") for number in range(3)]
    assert main.main(["predict", "--top", "1", str(head), *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [*NAMES]
    # Both read files at the size of the network: resized twice, pixels would differ.
    assert main.main(["predict", "--json", str(head), *images]) == 0
    for line, row in zip(capsys.readouterr().out.splitlines(), fitted.predict(images), strict=True):
        likely = {each["name"]: each["probability"] for each in json.loads(line)["classes"]}
        np.testing.assert_allclose([likely[name] for name in NAMES], row, atol=1e-5)


def test_a_function_has_no_name_to_save(tmp_path):
    fitted = fit_on_features(IMAGES, GIVEN, mean_color, progress=False)
    with pytest.raises(UserError, match=r"features are of function.*expected a network by name"):
        fitted.save(tmp_path / "head.safetensors")
    assert not any(tmp_path.iterdir())


def test_test_images_that_are_trained_on_are_told(tmp_path, capsys):
    paths = []
    for number, pixels in enumerate((*IMAGES, *FURTHER[:2])):
        Image.fromarray(pixels).save(tmp_path / f"{number:03}.png")
        paths.append(tmp_path / f"{number:03}.png")

    def mean_color(batch):
        return batch.mean((1, 2))

    test = paths[-3:], TRUTH[[COUNT - 1, 0, 1]]
    fit_on_features(paths[:COUNT], GIVEN, mean_color, test=test, progress=False)
    told = "fit: 1 of 3 test images are also trained on, so accuracy is too high\n"
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("place", [".", "labels.csv"])
def test_a_table_is_few_images_too(tmp_path, capsys, place):
    """As an audit takes it, of a folder with one folder of images as well."""
    write_tree(tmp_path, {"images": 1})
    (tmp_path / "labels.csv").write_text("path,label\nimages/bee/0000.png,a\nimages/b.png,b\n")
    assert fitting._suit_features(str(tmp_path / place))
    assert capsys.readouterr().out.startswith("fit: 2 images are too few to train from scratch")


@pytest.mark.slow
def test_fit_starts_from_features_of_a_pre_trained_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fitted = fit(IMAGES, GIVEN, "efficientnet-lite0", test=(FURTHER, TRUTH[:30]))
    assert capsys.readouterr().out == "fit: retrain trusts no label\n"
    assert fitted.accuracy >= 0.9
    assert fitted.predict(FURTHER[:2]).shape == (2, 3)
