# SPDX-License-Identifier: Apache-2.0
import numpy as np

from ieg_core.methods.method import Network
from tests.ieg_core.methods.by_hand import tensor


def test_decay_is_of_kernels_alone():
    network = Network(lambda *_: None, [True, False], 0.5, dense=(0, 1))
    kernel, bias = network.add_decay(
        [tensor([[1.0]]), tensor([2.0])], [tensor([[3.0]]), tensor([4.0])]
    )
    np.testing.assert_allclose(kernel, [[1.0 + 0.5 * 3.0]])
    np.testing.assert_allclose(bias, [2.0])
