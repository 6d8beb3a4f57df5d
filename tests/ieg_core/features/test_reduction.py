# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features.reduction import reduce_features


def test_components_have_variance_one_and_explain_what_varies_most():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(9000, 2))
    features = hidden @ rng.normal(size=(2, 6)) * 50 + 7 + rng.normal(size=(9000, 6))
    reduced, reduction = reduce_features([features], 3)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(np.cov(reduced.T, bias=True), np.eye(3), atol=1e-3)
    assert reduction.variances[1] > 20 * reduction.variances[2]
    np.testing.assert_allclose(reduction.apply([features[:5]]), reduced[:5])


def test_features_of_two_networks_are_those_of_one_with_all_of_them():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(50, 4)), 100 * rng.normal(size=(50, 3))
    both, _ = reduce_features([first, second])
    one, _ = reduce_features([np.hstack([first, second])])
    np.testing.assert_array_equal(both, one)
    assert both.shape == (50, 7)


def test_fewer_examples_than_features_leave_fewer_components():
    reduced, _ = reduce_features([np.random.default_rng(2).normal(size=(5, 30))])
    assert reduced.shape == (5, 4)


def test_a_constant_feature_says_nothing():
    rng = np.random.default_rng(2)
    varied = rng.normal(size=(20, 3))
    constant = np.hstack([varied, np.full((20, 1), 3.0)])
    expected, _ = reduce_features([varied])
    found, reduction = reduce_features([constant])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    constant[:, 3] = 1e6
    np.testing.assert_allclose(reduction.apply([constant]), found, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "no features"),
        ([np.zeros((3, 2)), np.zeros((4, 2))], "the same number of rows"),
        ([np.zeros(3)], r"expected \[n, D\]"),
        ([np.zeros((1, 3))], "one example"),
        ([np.ones((4, 3))], "the same features"),
        ([np.array([[1.0, 2.0], [3.0, np.nan]])], "row 1 are not finite"),
    ],
)
def test_other_features_are_refused(features, message):
    with pytest.raises(UserError, match=message):
        reduce_features(features)


def test_each_network_adds_components():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(700, 350)).astype(np.float32) for _ in range(2)]
    assert reduce_features(features[:1])[0].shape == (700, 320)
    assert reduce_features(features)[0].shape == (700, 640)
    assert reduce_features(features, 30)[0].shape == (700, 30)


def test_the_first_components_are_those_of_a_reduction_to_fewer():
    features = [np.random.default_rng(5).normal(size=(60, 9)).astype(np.float32)]
    reduced, reduction = reduce_features(features)
    fewer = reduction.first(4)
    np.testing.assert_array_equal(fewer.apply(features), reduce_features(features, 4)[0])
    np.testing.assert_allclose(fewer.apply(features), reduced[:, :4], atol=1e-5)
    assert len(reduction.first(99).variances) == 9
