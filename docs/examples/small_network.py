# SPDX-License-Identifier: Apache-2.0
"""A custom network for NETWORK=docs.examples.small_network:build."""

import keras


def build(num_classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """Returns two convolutions and a dense layer."""
    network = keras.Sequential([keras.Input(image_shape)])
    for filters in (32, 64):
        network.add(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False))
        network.add(keras.layers.BatchNormalization())
        network.add(keras.layers.ReLU())
    network.add(keras.layers.GlobalAveragePooling2D())
    network.add(keras.layers.Dense(num_classes))
    return network
