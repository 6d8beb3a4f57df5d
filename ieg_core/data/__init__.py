# SPDX-License-Identifier: Apache-2.0
"""Base images by random access, corruption, and the prepared overlays of label noise."""

from ieg_core.data.source import Source

__all__ = ["Source"]
