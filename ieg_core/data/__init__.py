# SPDX-License-Identifier: Apache-2.0
"""Base images by random access, corruption, and the prepared overlays of label noise."""

from ieg_core.data.overlay import Overlay, load_overlay, prepare_overlay
from ieg_core.data.source import Source
from ieg_core.data.sources import open_source

__all__ = ["Overlay", "Source", "load_overlay", "open_source", "prepare_overlay"]
