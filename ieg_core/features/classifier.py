# SPDX-License-Identifier: Apache-2.0
"""A trained classifier on features as one file, with the names of the networks that it needs.

The file is in safetensors format. It holds the head's layers and the reduction of the features; its
metadata name the classes, and each network with the SHA-256 of its weights and its input size. New
images are cropped to the largest centered square and resized with a bicubic filter
(`ieg_core.data.image_folder.squares`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.errors import UserError
from ieg_core.features.head import Head
from ieg_core.features.network import FeatureNetwork, find_network
from ieg_core.features.reduction import Reduction
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store import arrays

SCHEMA: Final = 1
_REMEDY: Final = "train it again"
_REDUCTION: Final = ("mean", "deviation", "projection", "variances")


@dataclass(frozen=True)
class UsedFeatures:
    """Features that a classifier was trained on.

    Attributes:
      name: Their name, see `ieg_core.experiment.feature_sources`.
      sha256: SHA-256 of the network's weights; "" for precomputed features.
      size: Side of the network's input in pixels; 0 for precomputed features.
    """

    name: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class FeatureClassifier:
    """A classifier on features.

    Attributes:
      class_names: C names, by class number.
      features: What it was trained on, in order.
      reduction: How features are reduced.
      head: The classifier on reduced features.
      trained_on: The data set; "" if it has no name.
      method: The method.
    """

    class_names: tuple[str, ...]
    features: tuple[UsedFeatures, ...]
    reduction: Reduction
    head: Head
    trained_on: str = ""
    method: str = ""

    def predict(self, features: Sequence[np.ndarray]) -> NDArray[np.float32]:
        """Returns p, float32 [m, C], for features [m, D₁], [m, D₂], …, as `self.features` lists."""
        return self.head.predict(self.reduction.apply(features) * self.reduction.scale)

    def networks(self) -> list[FeatureNetwork]:
        """Finds the networks that compute its features of new images.

        Raises:
          UserError: When a network is not installed or has other weights, or the classifier was
            trained on precomputed features.
        """
        networks = []
        for used in self.features:
            if not used.sha256:
                raise UserError(
                    f"the classifier was trained on the features in {used.name}: expected features "
                    "of a network, which can be computed for new images; train it on one"
                )
            network = find_network(used.name, used.size)
            network.require_installed()
            if (network.sha256, network.size) != (used.sha256, used.size):
                raise UserError(
                    f"{used.name} has weights {network.sha256[:12]}… for {network.size} pixels: "
                    f"expected those that the classifier was trained with, {used.sha256[:12]}… for "
                    f"{used.size}; restore that network, or train again"
                )
            networks.append(network)
        return networks

    def write(self, path: Path) -> None:
        """Writes the file atomically."""
        layers = {f"layer{number}": layer for number, layer in enumerate(self.head.layers)}
        kept = {name: getattr(self.reduction, name) for name in _REDUCTION}
        facts = {
            "schema": SCHEMA,
            "class_names": self.class_names,
            "features": [asdict(each) for each in self.features],
            "trained_on": self.trained_on,
            "method": self.method,
        }
        write_bytes_atomic(path, arrays.encode({**layers, **kept}, facts))

    @classmethod
    def read(cls, path: Path) -> "FeatureClassifier":
        """Reads a file that `write` wrote.

        Raises:
          UserError: When the file is missing, damaged or of another format.
        """
        try:
            tensors, facts = arrays.read(path, _REMEDY)
            if facts["schema"] != SCHEMA:
                raise ValueError(f"its schema is {facts['schema']}, not {SCHEMA}")
            count = sum(name.startswith("layer") for name in tensors)
            return cls(
                class_names=tuple(map(str, facts["class_names"])),
                features=tuple(UsedFeatures(**each) for each in facts["features"]),
                reduction=Reduction(**{name: tensors[name] for name in _REDUCTION}),
                head=Head([tensors[f"layer{number}"] for number in range(count)]),
                trained_on=facts["trained_on"],
                method=facts["method"],
            )
        except FileNotFoundError as error:
            raise UserError(f"there is no head {path}: {_REMEDY}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"cannot read the head in {path} ({error}): expected the file that training wrote; "
                f"{_REMEDY}"
            ) from error
