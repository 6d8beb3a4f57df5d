# SPDX-License-Identifier: Apache-2.0
"""The building blocks of all networks."""

from collections.abc import Callable
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Layers:
    """Creates named layers with one precision and one kind of BatchNorm.

    Attributes:
      dtype: Keras dtype policy of all layers except the head, for example "mixed_bfloat16".
      head_dtype: Dtype of features and logits.
      normalization: Creates a BatchNorm layer with a given name.
    """

    dtype: str
    head_dtype: str
    normalization: Callable[[str], keras.Layer]

    def convolution(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        strides: int,
        name: str,
        *,
        padding: str = "same",
    ) -> keras.KerasTensor:
        """Applies a convolution without bias.

        Args:
          x: [B, H, W, channels].
          filters: Channels of the result.
          size: Side of the kernel.
          strides: Strides in both directions.
          name: Name of the layer.
          padding: "same", with which the output side is ⌈side / strides⌉, or "valid".

        Returns:
          [B, H', W', filters].
        """
        return keras.layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding=padding,
            use_bias=False,
            # `initial_values` replaces the zeros. JAX would compile each random initializer, which
            # takes 15 s per network.
            kernel_initializer="zeros",
            dtype=self.dtype,
            name=name,
        )(x)

    def centered_convolution(
        self, x: keras.KerasTensor, filters: int, size: int, strides: int, name: str
    ) -> keras.KerasTensor:
        """Applies a convolution of odd size whose zero padding is the same on all sides.

        With strides, `convolution` pads an even side by one pixel less at the top and left. The
        arguments are those of `convolution`.
        """
        if strides == 1:
            return self.convolution(x, filters, size, strides, name)
        x = keras.layers.ZeroPadding2D((size - 1) // 2, dtype=self.dtype, name=f"{name}_pad")(x)
        return self.convolution(x, filters, size, strides, name, padding="valid")

    def normalize(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies BatchNorm."""
        return self.normalization(name)(x)

    def relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies max(x, 0)."""
        return keras.layers.ReLU(dtype=self.dtype, name=name)(x)

    def normalize_relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies BatchNorm, then max(x, 0)."""
        return self.relu(self.normalize(x, f"{name}_norm"), f"{name}_relu")

    def max_pool(
        self, x: keras.KerasTensor, size: int, strides: int, name: str
    ) -> keras.KerasTensor:
        """Applies max pooling over squares of the side `size`.

        Args:
          x: [B, H, W, channels].
          size: Side of the squares.
          strides: Strides in both directions.
          name: Name of the layer.

        Returns:
          [B, ⌈H / strides⌉, ⌈W / strides⌉, channels].
        """
        return keras.layers.MaxPooling2D(
            size, strides=strides, padding="same", dtype=self.dtype, name=name
        )(x)

    def add(self, x: keras.KerasTensor, y: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Adds a block's residual to its shortcut."""
        return keras.layers.Add(dtype=self.dtype, name=name)([x, y])

    def pad_channels(
        self, x: keras.KerasTensor, filters: int, strides: int, name: str, *, pool: int = 1
    ) -> keras.KerasTensor:
        """Lowers the resolution and adds zero channels on both sides up to `filters`.

        Each of the remaining ⌈side / strides⌉² pixels is the mean of a square with the side `pool`;
        with 1, every `strides`-th pixel is kept.

        Uses only built-in Keras layers with serializable settings, so that an exported network
        loads without this package.

        Args:
          x: [B, H, W, channels].
          filters: Channels of the result, at least those of x.
          strides: Strides in both directions.
          name: Prefix of the layers' names.
          pool: Side of the squares that are averaged.

        Returns:
          [B, ⌈H / strides⌉, ⌈W / strides⌉, filters].
        """
        if strides > 1:
            x = keras.layers.AveragePooling2D(
                pool, strides=strides, padding="same", dtype=self.dtype, name=f"{name}_subsample"
            )(x)
        height, width, channels = x.shape[1:]
        if filters == channels:
            return x
        before = (filters - channels) // 2
        after = filters - channels - before
        x = keras.layers.Reshape(
            (height * width, channels, 1), dtype=self.dtype, name=f"{name}_flatten"
        )(x)
        x = keras.layers.ZeroPadding2D(
            ((0, 0), (before, after)), dtype=self.dtype, name=f"{name}_pad"
        )(x)
        return keras.layers.Reshape(
            (height, width, filters), dtype=self.dtype, name=f"{name}_shape"
        )(x)

    def head(
        self, x: keras.KerasTensor, num_classes: int
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Applies global average pooling and a dense layer.

        Args:
          x: Feature maps [B, H, W, F].
          num_classes: C.

        Returns:
          Logits [B, C] and penultimate features [B, F], both in `head_dtype`.
        """
        features = keras.layers.GlobalAveragePooling2D(dtype=self.head_dtype, name="features")(x)
        logits = keras.layers.Dense(
            num_classes, kernel_initializer="zeros", dtype=self.head_dtype, name="logits"
        )(features)
        return logits, features
