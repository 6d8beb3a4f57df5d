# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np

from ieg_core.data import open_source, prepare_overlay
from ieg_core.spec import parse
from ieg_core.training.evaluation import final_predictions


def test_the_examples_trained_on_are_predicted_by_the_averaged_parameters(tmp_path):
    source = open_source("digits", tmp_path)
    overlay = prepare_overlay(
        parse("digits_uniform_0.4"),
        seed=0,
        probe_per_class=1,
        source=source,
        overlays_dir=tmp_path,
    )
    overlay = dataclasses.replace(overlay, train_ids=np.array([7, 3, 9]))

    def predict(params, stats, images):
        assert (params, stats) == ("averaged", "statistics")
        logits = np.zeros((len(images), 10), np.float32)
        logits[:, 4] = images[:].reshape(len(images), -1).mean(1)
        return logits

    state = {"params": "raw", "ema": "averaged", "stats": "statistics"}
    found = final_predictions(predict, state, overlay, source)
    assert found.dtype == np.float32
    assert found.shape == (len(overlay.noisy_labels), 10)
    assert np.flatnonzero(found.sum(1)).tolist() == [3, 7, 9]
    for index in (3, 7, 9):
        brightness = np.exp(source.train_images([index]).mean(dtype=np.float64))
        wanted = np.full(10, 1 / (9 + brightness))
        wanted[4] = brightness / (9 + brightness)
        np.testing.assert_allclose(found[index], wanted, rtol=1e-5)
