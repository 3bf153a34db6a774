"""Compressing the observations of a slice loses nothing that the likelihood can see."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.bayes.collapsed.slices import Slices
from tests.checks import assert_close, assert_equal


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """40 rows of 3 functions in 4 slices of 1, 2, 3 and 34 rows, with weights 1 to 3."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat([0, 1, 2, 3], [1, 2, 3, 34]))
    return rng.normal(size=(40, 3)), rng.normal(size=40), rng.integers(1, 4, 40) * 1.0, codes


def group(design: np.ndarray, y: np.ndarray, weights: np.ndarray, codes: np.ndarray, size: int) -> Slices:
    return Slices.group(lambda chosen: design[chosen], y, weights, codes, size)


def squares(slices: Slices, h: np.ndarray) -> float:
    """Sum of squared residuals at one coefficient vector per slice."""
    parts = zip(slices.designs, slices.targets, h, strict=True)
    return slices.leftover + sum(float(np.sum((target - design @ one) ** 2)) for design, target, one in parts)


def test_squared_residuals_are_those_of_all_rows_for_any_coefficients(rows) -> None:
    design, y, weights, codes = rows
    slices = group(design, y, weights, codes, 4)
    for seed in range(5):
        h = np.random.default_rng(seed).normal(size=(4, 3)) * 3
        want = float(np.sum(weights * (y - np.einsum("np,np->n", design, h[codes])) ** 2))
        assert_close(squares(slices, h), want)


def test_a_slice_has_at_most_as_many_rows_as_functions(rows) -> None:
    slices = group(*rows, 4)
    assert_equal([design.shape for design in slices.designs], [(1, 3), (2, 3), (3, 3), (3, 3)])
    assert_equal([target.shape for target in slices.targets], [(1,), (2,), (3,), (3,)])


def test_a_weight_is_a_number_of_repeats(rows) -> None:
    design, y, weights, codes = rows
    again = np.repeat(np.arange(40), weights.astype(int))
    weighted = group(design, y, weights, codes, 4)
    repeated = group(design[again], y[again], np.ones(again.size), codes[again], 4)
    assert_equal((weighted.n_obs, repeated.n_obs), (float(again.size),) * 2)
    h = np.random.default_rng(1).normal(size=(4, 3))
    assert_close(squares(weighted, h), squares(repeated, h))
    for one, other in zip(weighted.designs, repeated.designs, strict=True):
        assert_close(one.T @ one, other.T @ other, factor=1e3)


def test_row_order_does_not_matter(rows) -> None:
    order = np.random.default_rng(3).permutation(40)
    h = np.random.default_rng(1).normal(size=(4, 3))
    shuffled = group(*(part[order] for part in rows), 4)
    assert_close(squares(shuffled, h), squares(group(*rows, 4), h))


def test_the_constant_terms_are_those_of_independent_noise(rows) -> None:
    design, y, weights, codes = rows
    slices = group(design, y, weights, codes, 4)
    repeated = np.repeat(y, weights.astype(int))
    want = float(np.sum(-0.5 * repeated**2 / 0.3 - 0.5 * np.log(2 * np.pi * 0.3)))
    assert_close(slices.constant_terms(0.3), want)


def test_rows_that_repeat_one_point_compress_without_loss() -> None:
    design = np.tile([[1.0, 2.0]], (50, 1))
    y = np.random.default_rng(0).normal(size=50)
    slices = group(design, y, np.ones(50), np.zeros(50, dtype=int), 1)
    h = np.array([[0.3, -0.4]])
    assert_close(squares(slices, h), float(np.sum((y - design @ h[0]) ** 2)))


def test_slices_joined_are_those_of_all_rows(rows) -> None:
    design, y, weights, codes = rows
    added = np.isin(codes, [0, 2]) | (np.arange(40) % 2 == 0)  # slices of their own, and rows of slices there
    kept, places = np.unique(codes[~added]), np.unique(codes[added])

    def part(chosen: np.ndarray) -> Slices:
        own = np.unique(codes[chosen], return_inverse=True)[1]
        return group(design[chosen], y[chosen], weights[chosen], own, own.max() + 1)

    assert_equal((kept.tolist(), places.tolist()), ([1, 3], [0, 2, 3]))
    joined, whole = part(~added).joined(part(added), places, ~np.isin(places, kept)), group(*rows, 4)
    assert_equal([block.shape for block in joined.designs], [block.shape for block in whole.designs])
    assert_close(joined.n_obs, whole.n_obs)
    for seed in range(5):
        h = np.random.default_rng(seed).normal(size=(4, 3)) * 3
        assert_close(squares(joined, h), squares(whole, h))
