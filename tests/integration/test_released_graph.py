# SPDX-License-Identifier: Apache-2.0
"""The methods on the released ResNet-29, against numbers of the authors' graph.

released_graph.npz was computed under TensorFlow 2.21 from a rebuilding of their TF1 graph: `p000` …
its 89 trainable variables in their order of creation (a stage's first block has its projection
after its three convolutions), `m087` and `m088` FSR's momentum of the dense layer; `l2r_…` and
`fsr_…` batch, probe or dictionary, logits, P and ∂P/∂w, and each example's loss before and after
FSR's look-ahead. Their regularizer is 1e-4·Σ‖kernel‖², so wd = 2e-4 here.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

DECAY, CLASSES = 2e-4, 10


@pytest.fixture(scope="module")
def numbers():
    return np.load(Path(__file__).parent / "released_graph.npz")


@pytest.fixture(scope="module")
def network():
    from ieg_core.models import zoo
    from ieg_core.training.step import build_network

    return build_network(zoo.build("resnet29-released", CLASSES, (32, 32, 3)), DECAY)


def params_of(numbers):
    """Returns the variables with each stage's projection before the block's third convolution."""
    values = [numbers[f"p{index:03d}"] for index in range(89)]
    for index, (first, second) in enumerate(itertools.pairwise(values)):
        if first.ndim == second.ndim == 4:  # two kernels in a row: conv3 and projection
            values[index : index + 2] = [second, first]
    return values


def batch_of(numbers, method):
    from keras import ops

    from ieg_core.methods.method import Batch

    x, y, p, q = (numbers[f"{method}_in_{name}"] for name in "xypq")
    one_hot = np.eye(CLASSES, dtype=np.float32)
    return Batch(
        ids=ops.arange(len(x)),
        images=ops.convert_to_tensor(x),
        strong_images=None,
        labels=ops.convert_to_tensor(one_hot[y]),
        soft_labels=None,
        probe_images=ops.convert_to_tensor(p),
        probe_labels=ops.convert_to_tensor(one_hot[q]),
        mixing=None,
        epoch=ops.cast(0.0, "float32"),
        size=len(x),
        probe_size=len(p),
    )


def state_of(numbers):
    from keras import ops

    from ieg_core.methods.method import State
    from ieg_core.models import zoo

    model = zoo.build("resnet29-released", CLASSES, (32, 32, 3))
    params = params_of(numbers)
    momentum = [np.zeros_like(param) for param in params]
    momentum[-2:] = numbers["m087"], numbers["m088"]  # the dense layer's, which FSR alone reads
    assert [p.shape for p in params] == [tuple(v.shape) for v in model.trainable_variables]
    stats = [np.asarray(v) for v in model.non_trainable_variables]
    tensors = [
        [ops.convert_to_tensor(value) for value in values] for values in (params, momentum, stats)
    ]
    return State(*tensors, {})


def error(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


def test_l2r_weighs_as_the_authors_graph(numbers, network):
    from ieg_core import backend
    from ieg_core.experiment.methods import L2RSettings
    from ieg_core.methods import l2r

    batch, state = batch_of(numbers, "l2r"), state_of(numbers)

    def logits_of(params):
        logits, _, stats = network.forward(params, state.stats, batch.images)
        return logits, stats

    at_batch = backend.linearize(logits_of, state.params)
    np.testing.assert_allclose(at_batch.outputs, numbers["l2r_out_logits"], atol=2e-5)
    settings = L2RSettings()
    assert settings.lookahead_lr == 0.1
    gradient, probe_loss = l2r.meta_gradient(network, settings, state, batch, at_batch)
    expected = numbers["l2r_out_grad_w"]
    assert 0 < (expected > 0).sum() < len(expected)
    assert error(gradient, expected) < 1e-4
    assert error(probe_loss, numbers["l2r_out_probe_loss"]) < 1e-5


def test_fsr_weighs_as_the_authors_graph(numbers, network):
    """The release takes all features after the look-ahead from one BatchNorm batch."""
    from keras import ops

    from ieg_core.experiment.methods import FSRSettings
    from ieg_core.methods import fsr
    from ieg_core.methods.losses import softmax_cross_entropy

    batch, state = batch_of(numbers, "fsr"), state_of(numbers)
    size = batch.size
    logits, features, _ = network.forward(state.params, state.stats, batch.images)
    np.testing.assert_allclose(logits, numbers["fsr_out_logits"], atol=2e-5)
    residuals = ops.softmax(logits) - batch.labels
    settings = FSRSettings()
    assert (settings.lookahead_lr, settings.lookahead_momentum) == (0.1, 0.9)
    kernel, bias = fsr.lookahead_dense(network, settings, state, features, residuals, size)
    together = ops.concatenate([batch.images, batch.probe_images])
    shared = network.forward(state.params, state.stats, together).features
    own, dictionary = shared[:size], shared[size:]
    losses = {
        "before": softmax_cross_entropy(logits, batch.labels),
        "after": softmax_cross_entropy(own @ kernel + bias, batch.labels),
    }
    for name, found in losses.items():
        assert error(found, numbers[f"fsr_out_loss_{name}"]) < 1e-5
    gradient, probe_losses = fsr.meta_gradient(
        network, settings, batch, (kernel, bias), dictionary, features, residuals
    )
    assert error(ops.mean(probe_losses), numbers["fsr_out_probe_loss"]) < 1e-5
    assert error(gradient, numbers["fsr_out_grad_w"]) < 1e-5
