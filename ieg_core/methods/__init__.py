# SPDX-License-Identifier: Apache-2.0
"""The methods, one file a paper method; their settings and facts are in ieg_core.settings."""

from collections.abc import Mapping
from types import MappingProxyType

from ieg_core.methods.fsr import FSR
from ieg_core.methods.ieg import IEG, IEG_NO_LOOKAHEAD
from ieg_core.methods.l2r import L2R
from ieg_core.methods.protocol import Batch, Forward, Method, Network, State, Update
from ieg_core.methods.supervised import MIXUP, PROBE_ONLY, SUPERVISED
from ieg_core.mixing import Mixing

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "supervised": SUPERVISED,
        "supervised_strong": SUPERVISED,
        "mixup": MIXUP,
        "probe_only": PROBE_ONLY,
        "l2r": L2R,
        "fsr": FSR,
        "ieg_no_lookahead": IEG_NO_LOOKAHEAD,
        "ieg": IEG,
    }
)

__all__ = ["METHODS", "Batch", "Forward", "Method", "Mixing", "Network", "State", "Update"]
