# SPDX-License-Identifier: Apache-2.0
import keras

from ieg_core import backend


def test_what_keras_json_sets_is_undone():
    """Keras has read the user's keras.json when our backend is imported."""
    assert keras.config.image_data_format() == "channels_last"
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    backend.set_keras_defaults()
    layer = keras.layers.Conv2D(1, 1)
    assert (layer.data_format, layer.dtype) == ("channels_last", "float32")
    assert keras.config.epsilon() == 1e-7
