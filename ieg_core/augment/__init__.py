# SPDX-License-Identifier: Apache-2.0
"""Augmentation of whole batches on the device, with random draws made on the host."""

from ieg_core.augment.crop import crop_and_flip, to_unit_range
from ieg_core.augment.strong import strong_view

__all__ = ["crop_and_flip", "strong_view", "to_unit_range"]
