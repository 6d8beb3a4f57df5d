# SPDX-License-Identifier: Apache-2.0
"""The methods by name; their settings and what planning knows of them: `experiment.methods`."""

from collections.abc import Mapping
from types import MappingProxyType

from ieg_core.methods.fsr import FSR
from ieg_core.methods.ieg import IEG, IEG_NO_LOOKAHEAD
from ieg_core.methods.l2r import L2R
from ieg_core.methods.method import Method
from ieg_core.methods.supervised import MIXUP, PROBE_ONLY, SUPERVISED

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
