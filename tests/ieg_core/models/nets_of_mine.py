# SPDX-License-Identifier: Apache-2.0
"""Networks as people write them, good ones and others; named by the tests as `module:function`."""

import keras
from keras import layers


def small(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(num_classes)(x))


def sequential(num_classes, image_shape):
    del image_shape
    return keras.Sequential(
        [layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(num_classes)]
    )


class Written(keras.Model):
    def __init__(self, num_classes):
        super().__init__()
        self.pool = layers.GlobalAveragePooling2D()
        self.out = layers.Dense(num_classes)

    def call(self, images):
        return self.out(self.pool(images))


def subclassed(num_classes, image_shape):
    del image_shape
    return Written(num_classes)


def with_features(num_classes, image_shape):
    images = keras.Input(image_shape)
    features = layers.Dense(5)(layers.Flatten()(images))
    return keras.Model(images, [layers.Dense(num_classes)(features), features])


def other_features(num_classes, image_shape):
    """Its second output is not what the last layer takes."""
    images = keras.Input(image_shape)
    embedding = layers.Dense(5)(layers.Flatten()(images))
    logits = layers.Dense(num_classes)(layers.ReLU()(embedding))
    return keras.Model(images, [logits, embedding])


def named_output(num_classes, image_shape):
    images = keras.Input(image_shape)
    return keras.Model(images, {"logits": layers.Dense(num_classes)(layers.Flatten()(images))})


def last_layer_twice(num_classes, image_shape):
    images = keras.Input(image_shape)
    last = layers.Dense(num_classes)
    return keras.Model(images, last(last(layers.Dense(num_classes)(layers.Flatten()(images)))))


def tanh_end(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Dense(num_classes, activation="tanh")(layers.Flatten()(images))
    return keras.Model(images, x)


def no_dense_end(num_classes, image_shape):
    images = keras.Input(image_shape)
    maps = layers.Conv2D(num_classes, 3)(images)
    return keras.Model(images, layers.GlobalAveragePooling2D()(maps))


def no_bias(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Dense(num_classes, use_bias=False)(layers.Flatten()(images))
    return keras.Model(images, x)


def dropout(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Flatten()(images)
    x = keras.Sequential([layers.Dense(4), layers.Dropout(0.5, name="forget")])(x)
    return keras.Model(images, layers.Dense(num_classes)(x))


def no_dropout(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Dropout(0.0)(layers.Flatten()(images))
    return keras.Model(images, layers.Dense(num_classes)(x))


class Noise(layers.Layer):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


def hidden_noise(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = Noise()(layers.Flatten()(images))
    return keras.Model(images, layers.Dense(num_classes)(x))


def block(filters):
    maps = keras.Input((None, None, filters))
    x = layers.Conv2D(filters, 3, padding="same", name="conv")(maps)
    return keras.Model(maps, layers.BatchNormalization(name="norm")(x))


def twins(num_classes, image_shape):
    """Two nested models whose layers have equal names, as a function that makes a block gives."""
    images = keras.Input(image_shape)
    x = block(image_shape[-1])(block(image_shape[-1])(images))
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(x)))


def softmax(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Dense(num_classes, activation="softmax")(layers.Flatten()(images))
    return keras.Model(images, x)


def softmax_layer(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Softmax()(layers.Dense(num_classes)(layers.Flatten()(images)))
    return keras.Model(images, x)


def nested_softmax(num_classes, image_shape):
    images = keras.Input(image_shape)
    parts = [layers.Flatten(), layers.Dense(num_classes, activation="softmax")]
    return keras.Model(images, keras.Sequential(parts)(images))


class WrittenSoftmax(Written):
    def call(self, images):
        return keras.ops.softmax(super().call(images))


def hidden_softmax(num_classes, image_shape):
    del image_shape
    return WrittenSoftmax(num_classes)


def whole_numbers(num_classes, image_shape):
    images = keras.Input(image_shape, dtype="uint8")
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(images)))


def not_finite(num_classes, image_shape):
    images = keras.Input(image_shape)
    x = layers.Rescaling(float("inf"))(layers.Flatten()(images))
    return keras.Model(images, layers.Dense(num_classes)(x))


def spectral(num_classes, image_shape):
    """Its layer replaces the kernel by the normalized one at every call in training mode."""
    images = keras.Input(image_shape)
    x = layers.SpectralNormalization(layers.Conv2D(4, 3), name="bounded")(images)
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(x)))


def recurrent(num_classes, image_shape):
    """A generator of random numbers that nothing is drawn from, as its dropout's rate is 0."""
    images = keras.Input(image_shape)
    x = layers.LSTM(4)(layers.Reshape((image_shape[0], -1))(images))
    return keras.Model(images, layers.Dense(num_classes)(x))


@keras.saving.register_keras_serializable("nets_of_mine")
class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


def registered(num_classes, image_shape):
    del image_shape
    return keras.Sequential([layers.Flatten(), Doubled(), layers.Dense(num_classes)])


class Unregistered(layers.Layer):
    def call(self, x):
        return 2 * x


def unregistered(num_classes, image_shape):
    del image_shape
    return keras.Sequential([layers.Flatten(), Unregistered(), layers.Dense(num_classes)])


@keras.saving.register_keras_serializable("nets_of_mine")
class Forgetful(layers.Layer):
    def __init__(self, factor=1.0, **settings):
        super().__init__(**settings)
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return super().get_config()


def forgetful(num_classes, image_shape):
    """What is loaded has lost its factor."""
    del image_shape
    return keras.Sequential([layers.Flatten(), Forgetful(3.0), layers.Dense(num_classes)])


def with_lambda(num_classes, image_shape):
    del image_shape
    double = layers.Lambda(lambda x: 2 * x)
    return keras.Sequential([layers.Flatten(), double, layers.Dense(num_classes)])


def no_config(num_classes, image_shape):
    del image_shape
    return keras.Sequential([layers.Flatten(), Holder(object()), layers.Dense(num_classes)])


class Holder(layers.Layer):
    def __init__(self, content):
        super().__init__()
        self.content = content

    def call(self, x):
        return x


def too_few(num_classes, image_shape):
    images = keras.Input(image_shape)
    return keras.Model(images, layers.Dense(num_classes - 1)(layers.Flatten()(images)))


def other_input(num_classes, image_shape):
    del image_shape
    images = keras.Input((64, 64, 3))
    return keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(images)))


def nothing_to_train(num_classes, image_shape):
    model = small(num_classes, image_shape)
    model.trainable = False
    return model


def fails(num_classes, image_shape):
    raise KeyError("weights\nnot found")


def no_model(num_classes, image_shape):
    return [num_classes, image_shape]


def one_argument(num_classes):
    return num_classes
