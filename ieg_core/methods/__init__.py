# SPDX-License-Identifier: Apache-2.0
"""The methods, one file a paper method; their settings and facts are in ieg_core.config."""

from collections.abc import Mapping
from types import MappingProxyType

from ieg_core.methods.l2r import L2R
from ieg_core.methods.protocol import Batch, Forward, Method, Network, State, Update
from ieg_core.methods.supervised import PROBE_ONLY, SUPERVISED

METHODS: Mapping[str, Method] = MappingProxyType(
    {"supervised": SUPERVISED, "probe_only": PROBE_ONLY, "l2r": L2R}
)

__all__ = ["METHODS", "Batch", "Forward", "Method", "Network", "State", "Update"]
