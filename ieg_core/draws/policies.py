# SPDX-License-Identifier: Apache-2.0
"""The policies of the strong view: AutoAugment's sub-policies, and the operations of each policy.

Reference: Cubuk et al., CVPR 2019 (arXiv 1805.09501): the policies found on CIFAR-10 and ImageNet.
"""

from typing import NamedTuple

from ieg_core.draws.operations import Operation as Op


class Application(NamedTuple):
    """One operation of a sub-policy.

    Attributes:
      operation: The operation.
      probability: The probability of applying it, in [0, 1].
      level: Its level, 0 to 10.
    """

    operation: Op
    probability: float
    level: int


SubPolicy = tuple[Application, Application]


def _sub_policies(
    *rows: tuple[tuple[Op, float, int], tuple[Op, float, int]],
) -> tuple[SubPolicy, ...]:
    return tuple((Application(*first), Application(*second)) for first, second in rows)


CIFAR10 = _sub_policies(
    ((Op.INVERT, 0.1, 7), (Op.CONTRAST, 0.2, 6)),
    ((Op.ROTATE, 0.7, 2), (Op.TRANSLATE_X, 0.3, 9)),
    ((Op.SHARPNESS, 0.8, 1), (Op.SHARPNESS, 0.9, 3)),
    ((Op.SHEAR_Y, 0.5, 8), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTO_CONTRAST, 0.5, 8), (Op.EQUALIZE, 0.9, 2)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTO_CONTRAST, 0.9, 3)),
    ((Op.TRANSLATE_Y, 0.9, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTO_CONTRAST, 0.9, 2), (Op.SOLARIZE, 0.8, 3)),
    ((Op.EQUALIZE, 0.8, 8), (Op.INVERT, 0.1, 3)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.AUTO_CONTRAST, 0.9, 1)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTO_CONTRAST, 0.0, 2)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTO_CONTRAST, 0.9, 0), (Op.SOLARIZE, 0.4, 3)),
    ((Op.EQUALIZE, 0.7, 5), (Op.INVERT, 0.1, 3)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTO_CONTRAST, 0.9, 1)),
    ((Op.TRANSLATE_Y, 0.8, 9), (Op.TRANSLATE_Y, 0.9, 9)),
    ((Op.AUTO_CONTRAST, 0.8, 0), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.TRANSLATE_Y, 0.2, 7), (Op.COLOR, 0.9, 6)),
    ((Op.EQUALIZE, 0.7, 6), (Op.COLOR, 0.4, 9)),
    ((Op.SHEAR_Y, 0.2, 7), (Op.POSTERIZE, 0.3, 7)),
    ((Op.COLOR, 0.4, 3), (Op.BRIGHTNESS, 0.6, 7)),
    ((Op.SHARPNESS, 0.3, 9), (Op.BRIGHTNESS, 0.7, 9)),
    ((Op.EQUALIZE, 0.6, 5), (Op.EQUALIZE, 0.5, 1)),
    ((Op.CONTRAST, 0.6, 7), (Op.SHARPNESS, 0.6, 5)),
    ((Op.BRIGHTNESS, 0.3, 7), (Op.AUTO_CONTRAST, 0.5, 8)),
    ((Op.AUTO_CONTRAST, 0.9, 4), (Op.AUTO_CONTRAST, 0.5, 6)),
    ((Op.SOLARIZE, 0.3, 5), (Op.EQUALIZE, 0.6, 5)),
    ((Op.TRANSLATE_Y, 0.2, 4), (Op.SHARPNESS, 0.3, 3)),
    ((Op.BRIGHTNESS, 0.0, 8), (Op.COLOR, 0.8, 8)),
    ((Op.SOLARIZE, 0.2, 6), (Op.COLOR, 0.8, 6)),
    ((Op.SOLARIZE, 0.2, 6), (Op.AUTO_CONTRAST, 0.8, 1)),
    ((Op.SOLARIZE, 0.4, 1), (Op.EQUALIZE, 0.6, 5)),
    ((Op.BRIGHTNESS, 0.0, 0), (Op.SOLARIZE, 0.5, 2)),
    ((Op.AUTO_CONTRAST, 0.9, 5), (Op.BRIGHTNESS, 0.5, 3)),
    ((Op.CONTRAST, 0.7, 5), (Op.BRIGHTNESS, 0.0, 2)),
    ((Op.SOLARIZE, 0.2, 8), (Op.SOLARIZE, 0.1, 5)),
    ((Op.CONTRAST, 0.5, 1), (Op.TRANSLATE_Y, 0.2, 9)),
    ((Op.AUTO_CONTRAST, 0.6, 5), (Op.TRANSLATE_Y, 0.0, 9)),
    ((Op.AUTO_CONTRAST, 0.9, 4), (Op.EQUALIZE, 0.8, 4)),
    ((Op.BRIGHTNESS, 0.0, 7), (Op.EQUALIZE, 0.4, 7)),
    ((Op.SOLARIZE, 0.2, 5), (Op.EQUALIZE, 0.7, 5)),
    ((Op.EQUALIZE, 0.6, 8), (Op.COLOR, 0.6, 2)),
    ((Op.COLOR, 0.3, 7), (Op.COLOR, 0.2, 4)),
    ((Op.AUTO_CONTRAST, 0.5, 2), (Op.SOLARIZE, 0.7, 2)),
    ((Op.AUTO_CONTRAST, 0.2, 0), (Op.EQUALIZE, 0.1, 0)),
    ((Op.SHEAR_Y, 0.6, 5), (Op.EQUALIZE, 0.6, 5)),
    ((Op.BRIGHTNESS, 0.9, 3), (Op.AUTO_CONTRAST, 0.4, 1)),
    ((Op.EQUALIZE, 0.8, 8), (Op.EQUALIZE, 0.7, 7)),
    ((Op.EQUALIZE, 0.7, 7), (Op.SOLARIZE, 0.5, 0)),
    ((Op.EQUALIZE, 0.8, 4), (Op.TRANSLATE_Y, 0.8, 9)),
    ((Op.TRANSLATE_Y, 0.8, 9), (Op.TRANSLATE_Y, 0.6, 9)),
    ((Op.TRANSLATE_Y, 0.9, 0), (Op.TRANSLATE_Y, 0.5, 9)),
    ((Op.AUTO_CONTRAST, 0.5, 3), (Op.SOLARIZE, 0.3, 4)),
    ((Op.SOLARIZE, 0.5, 3), (Op.EQUALIZE, 0.4, 4)),
    ((Op.COLOR, 0.7, 7), (Op.TRANSLATE_X, 0.5, 8)),
    ((Op.EQUALIZE, 0.3, 7), (Op.AUTO_CONTRAST, 0.4, 8)),
    ((Op.TRANSLATE_Y, 0.4, 3), (Op.SHARPNESS, 0.2, 6)),
    ((Op.BRIGHTNESS, 0.9, 6), (Op.COLOR, 0.2, 8)),
    ((Op.SOLARIZE, 0.5, 2), (Op.INVERT, 0.0, 3)),
    ((Op.AUTO_CONTRAST, 0.1, 5), (Op.BRIGHTNESS, 0.0, 0)),
    ((Op.CUTOUT, 0.2, 4), (Op.EQUALIZE, 0.1, 1)),
    ((Op.EQUALIZE, 0.7, 7), (Op.AUTO_CONTRAST, 0.6, 4)),
    ((Op.COLOR, 0.1, 8), (Op.SHEAR_Y, 0.2, 3)),
    ((Op.SHEAR_Y, 0.4, 2), (Op.ROTATE, 0.7, 0)),
    ((Op.SHEAR_Y, 0.1, 3), (Op.AUTO_CONTRAST, 0.9, 5)),
    ((Op.TRANSLATE_Y, 0.3, 6), (Op.CUTOUT, 0.3, 3)),
    ((Op.EQUALIZE, 0.5, 0), (Op.SOLARIZE, 0.6, 6)),
    ((Op.AUTO_CONTRAST, 0.3, 5), (Op.ROTATE, 0.2, 7)),
    ((Op.EQUALIZE, 0.8, 2), (Op.INVERT, 0.4, 0)),
    ((Op.EQUALIZE, 0.9, 5), (Op.COLOR, 0.7, 0)),
    ((Op.EQUALIZE, 0.1, 1), (Op.SHEAR_Y, 0.1, 3)),
    ((Op.AUTO_CONTRAST, 0.7, 3), (Op.EQUALIZE, 0.7, 0)),
    ((Op.BRIGHTNESS, 0.5, 1), (Op.CONTRAST, 0.1, 7)),
    ((Op.CONTRAST, 0.1, 4), (Op.SOLARIZE, 0.6, 5)),
    ((Op.SOLARIZE, 0.2, 3), (Op.SHEAR_X, 0.0, 0)),
    ((Op.TRANSLATE_X, 0.3, 0), (Op.TRANSLATE_X, 0.6, 0)),
    ((Op.EQUALIZE, 0.5, 9), (Op.TRANSLATE_Y, 0.6, 7)),
    ((Op.SHEAR_X, 0.1, 0), (Op.SHARPNESS, 0.5, 1)),
    ((Op.EQUALIZE, 0.8, 6), (Op.INVERT, 0.3, 6)),
    ((Op.AUTO_CONTRAST, 0.3, 9), (Op.CUTOUT, 0.5, 3)),
    ((Op.SHEAR_X, 0.4, 4), (Op.AUTO_CONTRAST, 0.9, 2)),
    ((Op.SHEAR_X, 0.0, 3), (Op.POSTERIZE, 0.0, 3)),
    ((Op.SOLARIZE, 0.4, 3), (Op.COLOR, 0.2, 4)),
    ((Op.EQUALIZE, 0.1, 4), (Op.EQUALIZE, 0.7, 6)),
    ((Op.EQUALIZE, 0.3, 8), (Op.AUTO_CONTRAST, 0.4, 3)),
    ((Op.SOLARIZE, 0.6, 4), (Op.AUTO_CONTRAST, 0.7, 6)),
    ((Op.AUTO_CONTRAST, 0.2, 9), (Op.BRIGHTNESS, 0.4, 8)),
    ((Op.EQUALIZE, 0.1, 0), (Op.EQUALIZE, 0.0, 6)),
    ((Op.EQUALIZE, 0.8, 4), (Op.EQUALIZE, 0.0, 4)),
    ((Op.EQUALIZE, 0.5, 5), (Op.AUTO_CONTRAST, 0.1, 2)),
    ((Op.SOLARIZE, 0.5, 5), (Op.AUTO_CONTRAST, 0.9, 5)),
    ((Op.AUTO_CONTRAST, 0.6, 1), (Op.AUTO_CONTRAST, 0.7, 8)),
    ((Op.EQUALIZE, 0.2, 0), (Op.AUTO_CONTRAST, 0.1, 2)),
    ((Op.EQUALIZE, 0.6, 9), (Op.EQUALIZE, 0.4, 4)),
)

IMAGENET = _sub_policies(
    ((Op.EQUALIZE, 0.8, 1), (Op.SHEAR_Y, 0.8, 4)),
    ((Op.COLOR, 0.4, 9), (Op.EQUALIZE, 0.6, 3)),
    ((Op.COLOR, 0.4, 1), (Op.ROTATE, 0.6, 8)),
    ((Op.SOLARIZE, 0.8, 3), (Op.EQUALIZE, 0.4, 7)),
    ((Op.SOLARIZE, 0.4, 2), (Op.SOLARIZE, 0.6, 2)),
    ((Op.COLOR, 0.2, 0), (Op.EQUALIZE, 0.8, 8)),
    ((Op.EQUALIZE, 0.4, 8), (Op.SOLARIZE_ADD, 0.8, 3)),
    ((Op.SHEAR_X, 0.2, 9), (Op.ROTATE, 0.6, 8)),
    ((Op.COLOR, 0.6, 1), (Op.EQUALIZE, 1.0, 2)),
    ((Op.INVERT, 0.4, 9), (Op.ROTATE, 0.6, 0)),
    ((Op.EQUALIZE, 1.0, 9), (Op.SHEAR_Y, 0.6, 3)),
    ((Op.COLOR, 0.4, 7), (Op.EQUALIZE, 0.6, 0)),
    ((Op.POSTERIZE, 0.4, 6), (Op.AUTO_CONTRAST, 0.4, 7)),
    ((Op.SOLARIZE, 0.6, 8), (Op.COLOR, 0.6, 9)),
    ((Op.SOLARIZE, 0.2, 4), (Op.ROTATE, 0.8, 9)),
    ((Op.ROTATE, 1.0, 7), (Op.TRANSLATE_Y, 0.8, 9)),
    ((Op.SHEAR_X, 0.0, 0), (Op.SOLARIZE, 0.8, 4)),
    ((Op.SHEAR_Y, 0.8, 0), (Op.COLOR, 0.6, 4)),
    ((Op.COLOR, 1.0, 0), (Op.ROTATE, 0.6, 2)),
    ((Op.EQUALIZE, 0.8, 4), (Op.EQUALIZE, 0.0, 8)),
    ((Op.EQUALIZE, 1.0, 4), (Op.AUTO_CONTRAST, 0.6, 2)),
    ((Op.SHEAR_Y, 0.4, 7), (Op.SOLARIZE_ADD, 0.6, 7)),
    ((Op.POSTERIZE, 0.8, 2), (Op.SOLARIZE, 0.6, 10)),
    ((Op.SOLARIZE, 0.6, 8), (Op.EQUALIZE, 0.6, 1)),
    ((Op.COLOR, 0.8, 6), (Op.ROTATE, 0.4, 5)),
)

_RELEASED = {Op.SOLARIZE: Op.SOLARIZE_RELEASED, Op.POSTERIZE: Op.POSTERIZE_RELEASED}
IMAGENET_RELEASED = tuple(
    (
        first._replace(operation=_RELEASED.get(first.operation, first.operation)),
        second._replace(operation=_RELEASED.get(second.operation, second.operation)),
    )
    for first, second in IMAGENET
)
"""ImageNet's sub-policies as the authors of IEG and FSR released them."""

TABLES = {
    "autoaugment": CIFAR10,
    "autoaugment_imagenet": IMAGENET,
    "autoaugment_imagenet_released": IMAGENET_RELEASED,
}

RANDAUGMENT = (
    Op.IDENTITY,
    Op.AUTO_CONTRAST,
    Op.EQUALIZE,
    Op.POSTERIZE,
    Op.SOLARIZE,
    Op.COLOR,
    Op.CONTRAST,
    Op.BRIGHTNESS,
    Op.SHARPNESS,
    Op.SHEAR_X,
    Op.SHEAR_Y,
    Op.TRANSLATE_X,
    Op.TRANSLATE_Y,
    Op.ROTATE,
)
"""The 14 operations of Cubuk et al. 2019 (arXiv 1909.13719)."""


def possible_operations(policy: str) -> frozenset[Op]:
    """Returns the operations that a policy can draw: one of STRONG_POLICIES, but not "weak"."""
    if policy == "digits":
        return frozenset({Op.FINE_BRIGHTNESS})
    if policy == "randaugment":
        return frozenset(RANDAUGMENT)
    steps = (step.operation for pair in TABLES[policy] for step in pair)
    return frozenset({Op.IDENTITY, *steps})
