# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from ieg_core.data.corruption import (
    asymmetric_transition,
    corrupt_labels,
    expected_matrix,
    long_tail_counts,
    realized_matrix,
    select_per_class,
    transition_matrix,
    uniform_transition,
)
from ieg_core.draws.generator import generator
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import DEFAULT_NOISE_RATES, GRAMMAR, NOISES, parse
from ieg_core.report.html import page

PAGE = Path(page.__file__).with_name("report.html.j2")


@pytest.mark.parametrize("noise", NOISES)
def test_each_noise_has_a_name_rates_a_matrix_and_a_sentence_in_the_report(noise):
    """What CONTRIBUTING.md asks of a new one."""
    spec = parse(f"cifar10_{noise}_0.25")
    assert (spec.noise, spec.noise_rate) == (noise, 0.25)
    assert DEFAULT_NOISE_RATES[noise]
    assert f"<base>_{noise}_<r>" in GRAMMAR
    matrix = transition_matrix(spec)
    np.testing.assert_allclose(matrix.sum(1), 1)
    # CIFAR-10 has as many images of each class.
    assert spec.true_flip_rate == pytest.approx(1 - matrix.diagonal().mean())
    assert f"{{% if '{noise}' in noises %}}" in PAGE.read_text(encoding="utf-8")


def test_uniform_transition_by_hand():
    # r = 0.3, C = 3: 0.7 + 0.1 stays, 0.1 goes to each of the two others.
    np.testing.assert_allclose(
        uniform_transition(3, 0.3), [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    )


def test_asymmetric_transition_by_hand():
    np.testing.assert_allclose(
        asymmetric_transition(4, 0.25, {0: 1, 2: 3, 3: 2}),
        [[0.75, 0.25, 0, 0], [0, 1, 0, 0], [0, 0, 0.75, 0.25], [0, 0, 0.25, 0.75]],
    )


def test_digits_flip_as_the_methods_page_says():
    matrix = transition_matrix(parse("digits_asymmetric_0.4"))
    flips = {(int(a), int(b)) for a, b in np.argwhere(matrix == 0.4)}
    assert flips == {(7, 1), (3, 8), (5, 6), (6, 5), (9, 4)}


@pytest.mark.parametrize(
    "text",
    [
        "digits",
        "digits_uniform_0",
        "digits_uniform_1",
        "cifar100_asymmetric_0.3",
        "cifar10_imbal_0.1",
    ],
)
def test_every_row_is_a_distribution(text):
    matrix = transition_matrix(parse(text))
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("text", ["digits", "digits_uniform_0", "digits_asymmetric_0"])
def test_no_noise_changes_nothing(text):
    labels = np.arange(10, dtype=np.int32)
    uniforms = np.array([0.0, *np.linspace(0.1, 0.9, 8), np.nextafter(1, 0)])
    np.testing.assert_array_equal(
        corrupt_labels(labels, transition_matrix(parse(text)), uniforms), labels
    )


def test_inverse_distribution_by_hand():
    # Row 1 is (0.1, 0.8, 0.1): 0 below 0.1, 1 from 0.1, 2 from 0.9.
    labels = np.ones(5, np.int32)
    uniforms = np.array([0.0, 0.09, 0.11, 0.89, 0.91])
    noisy = corrupt_labels(labels, uniform_transition(3, 0.3), uniforms)
    assert noisy.dtype == np.int32
    np.testing.assert_array_equal(noisy, [0, 0, 1, 1, 2])


def test_the_largest_draw_reaches_no_class_of_probability_zero():
    almost_one = np.full(10, np.nextafter(1, 0))
    for rate in np.linspace(0, 1, 41):
        matrix = asymmetric_transition(10, rate, {c: (c + 3) % 10 for c in range(9)})
        labels = np.arange(10, dtype=np.int32)
        noisy = corrupt_labels(labels, matrix, almost_one)
        assert (matrix[labels, noisy] > 0).all()


def test_what_happens_to_an_example_depends_on_its_own_draw_alone():
    rng = generator(0, "test")
    labels = rng.integers(0, 10, 500).astype(np.int32)
    uniforms = rng.random(500)
    matrix = uniform_transition(10, 0.6)
    noisy = corrupt_labels(labels, matrix, uniforms)
    order = rng.permutation(500)
    np.testing.assert_array_equal(
        corrupt_labels(labels[order], matrix, uniforms[order]), noisy[order]
    )


@pytest.mark.parametrize(
    "text", ["cifar10_uniform_0.4", "cifar10_asymmetric_0.4", "digits_uniform_1"]
)
def test_the_realized_matrix_keeps_within_binomial_bounds(text):
    spec = parse(text)
    per_class = 5000
    labels = np.repeat(np.arange(10, dtype=np.int32), per_class)
    asked = transition_matrix(spec)
    noisy = corrupt_labels(labels, asked, generator(0, "noise").random(len(labels)))
    realized = realized_matrix(labels, noisy, 10)
    sigma = np.sqrt(asked * (1 - asked) / per_class)
    assert (np.abs(realized - asked) <= 5 * sigma + 1e-12).all()
    flip_rate = np.mean(labels != noisy)
    assert abs(flip_rate - spec.true_flip_rate) < 5 * np.sqrt(0.25 / len(labels))


def test_realized_matrix_by_hand():
    clean, noisy = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 2, 1])
    np.testing.assert_allclose(
        realized_matrix(clean, noisy, 3), [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]
    )
    # Beliefs that are certain are labels.
    np.testing.assert_array_equal(
        expected_matrix(np.eye(3)[clean], noisy), realized_matrix(clean, noisy, 3)
    )


def test_expected_matrix_by_hand():
    believed = np.array([[0.75, 0.25, 0], [0.5, 0.5, 0], [1, 0, 0]], np.float32)
    noisy = np.array([0, 1, 1])
    wanted = [[0.75 / 2.25, 1.5 / 2.25, 0], [0.25 / 0.75, 0.5 / 0.75, 0], [0, 0, 0]]
    np.testing.assert_allclose(expected_matrix(believed, noisy), wanted)
    first = np.array([0.75 + 1, 1.5 + 1, 1]) / (2.25 + 3)
    second = np.array([0.25 + 1, 0.5 + 1, 1]) / (0.75 + 3)
    wanted = [first, second, np.full(3, 1 / 3)]
    np.testing.assert_allclose(expected_matrix(believed, noisy, prior=3.0), wanted)


def test_long_tail_of_cifar10_is_the_literature_s():
    counts = long_tail_counts(np.full(10, 5000), 0.02)
    assert counts.sum() == 13_996
    assert counts[0] == 5000
    assert counts[-1] == 100


def test_long_tail_by_hand():
    # rho = 0.01, C = 3: 100·(1, 0.1, 0.01).
    np.testing.assert_array_equal(long_tail_counts(np.array([100, 100, 100]), 0.01), [100, 10, 1])
    # A class never grows: 100·0.25^(1/2) = 50 are wanted of 40.
    np.testing.assert_array_equal(long_tail_counts(np.array([100, 40, 90]), 0.25), [100, 40, 25])
    np.testing.assert_array_equal(long_tail_counts(np.array([7, 5]), 1.0), [7, 5])


def test_a_long_tail_that_empties_a_class_is_refused():
    with pytest.raises(UserError, match=r"imbalance 0.001 leaves class 2 .* at least 0.01"):
        long_tail_counts(np.array([100, 100, 100]), 0.001)


def test_selection_takes_the_smallest_draws_of_each_class():
    labels = np.array([0, 0, 0, 1, 1, 1])
    uniforms = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    chosen = select_per_class(labels, np.arange(6), np.array([2, 1]), uniforms)
    np.testing.assert_array_equal(chosen, [1, 2, 3])
    # Without candidate 1, the next of its class comes in.
    chosen = select_per_class(labels, np.array([0, 2, 3, 4, 5]), np.array([2, 1]), uniforms)
    np.testing.assert_array_equal(chosen, [0, 2, 3])


def test_a_larger_selection_contains_a_smaller_one():
    labels = np.arange(300) % 3
    uniforms = generator(0, "test").random(300)
    small, large = (
        select_per_class(labels, np.arange(300), np.full(3, count), uniforms) for count in (5, 20)
    )
    assert set(small) < set(large)
    assert select_per_class(labels, np.arange(300), np.zeros(3, int), uniforms).size == 0
