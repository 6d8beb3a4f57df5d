# SPDX-License-Identifier: Apache-2.0
"""Run by `test_strong.py` under each backend: compiled strong views of every policy.

KERAS_BACKEND=jax python tests/ieg_core/augment/strong_on_backend.py OUT.npz
"""

import sys

import numpy as np
from keras import ops

from ieg_core import augment, backend
from ieg_core.draws.generator import generator
from ieg_core.draws.views import strong_view_draws
from ieg_core.experiment.config import AugmentationConfig
from ieg_core.host.runtime import Runtime
from tests.ieg_core.augment import pictures
from tests.ieg_core.augment.pillow import POLICIES

backend.start(Runtime())
arrays = {}
for policy in POLICIES:
    images = np.repeat(pictures.gray() if policy == "digits" else pictures.color(), 8, axis=0)
    config = AugmentationConfig(strong=policy, cutout=3 if policy == "digits" else 16)
    drawn = strong_view_draws(generator(0, policy), len(images), config, images.shape[1:])

    def view(images, draws, config=config):
        return augment.strong_view(images, draws, config)

    arrays[policy] = ops.convert_to_numpy(backend.compile_function(view)(images, drawn))
np.savez(sys.argv[1], **arrays)
