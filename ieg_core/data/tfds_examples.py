# SPDX-License-Identifier: Apache-2.0
"""Reads the examples of a TFDS build, however it is stored."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_CHUNK: Final = 200
_RANDOM_ACCESS: Final = "array_record"


def examples(
    builder: Any, split: str, decoders: Mapping[str, Any] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Reads every example of a split, in the order in which TFDS stores them.

    Args:
      builder: The build's `tfds.core.DatasetBuilder`.
      split: The split's name.
      decoders: By feature, as TFDS takes them; None decodes everything.

    Yields:
      The example's features as NumPy values, by name. Of a build in a sequential format, TFRecord,
      by way of TensorFlow.
    """
    if builder.info.file_format.value != _RANDOM_ACCESS:
        import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split, decoders=decoders))
        return
    source = builder.as_data_source(split, decoders=decoders)
    for start in range(0, len(source), _CHUNK):
        yield from source.__getitems__(range(start, min(start + _CHUNK, len(source))))
