"""Integrals of functions of a GP mode: batches, blocks of points, one knot."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import GP
from tests.checks import assert_close, assert_equal
from tests.processes import M32, M52

GRID = np.array([0.0, 0.4, 0.9, 2.1])
X = np.linspace(-1.0, 3.0, 29)


def functions(derivative, **options):
    """A mode, and a batch of factors of shape (2, 3, size, 4)."""
    mode = GP(M52, GRID, domain=(-1.0, 3.0), derivative=derivative, **options)
    return mode, np.random.default_rng(0).normal(size=(2, 3, mode.size, 4))


@pytest.mark.parametrize("derivative", [-1, 0, 1])
def test_batches_are_evaluated_one_by_one(derivative):
    mode, factor = functions(derivative)
    got = mode.rows(factor, X)
    assert_equal(got.shape, (2, 3, X.size, 4))
    for b in np.ndindex(2, 3):
        assert_close(got[b], mode.rows(factor[b], X), scale=np.abs(got).max())
    assert_equal(mode.rows(factor, []).shape, (2, 3, 0, 4))


@pytest.mark.parametrize("derivative", [-1, 0])
@pytest.mark.parametrize("count", [2, 29, 58])
def test_points_in_blocks_are_those_one_by_one(derivative, count, monkeypatch):
    mode, factor = functions(derivative)
    x = np.resize(X, count)
    want = np.stack([mode.rows(factor, place) for place in x], axis=-2)
    monkeypatch.setattr("tenfac.core.modes.bridge._NUMBERS", 1)
    assert_close(mode.rows(factor, x), want)


@pytest.mark.parametrize("derivative", [-1, 0, 1])
def test_what_is_made_of_a_factor_has_the_rows_of_its_mode(derivative):
    mode, factor = functions(derivative)
    more = mode.common(GP(M52, [0.1, 2.5], domain=(-1.0, 3.0), derivative=derivative))
    made = [mode.diff(factor), mode.restrict(factor, (0.1, 2.0)), (more, mode.embed(more, factor))]
    factor[..., -1, :] = 0.0  # a derivative plus a constant has no integral in the mode
    made += [mode.antiderivative(factor)] if derivative >= 0 else []
    for found, rows in made:
        assert_equal(rows.shape, (2, 3, found.size, 4))
    for found, rows in made[1:3]:
        inside = np.linspace(0.1, 2.0, 7)
        assert_close(found.rows(rows, inside), mode.rows(functions(derivative)[1], inside), 2000)


def test_one_knot_is_integrated_to_both_sides():
    mode = GP(M32, [1.0], domain=(0.0, 3.0))
    rate = np.sqrt(3) / 0.8
    longer, integral = mode.antiderivative(mode.factor(np.array([2.0])))

    def half(width):  # of (1 + r x) exp(-r x) from 0
        return 2 / rate - (2 / rate + width) * np.exp(-rate * width)

    want = 2.0 * np.array([0.0, half(1.0), half(1.0) + half(2.0)])
    assert_close(longer.rows(integral, [0.0, 1.0, 3.0])[:, 0], want)
    assert_close(mode.integral(want) @ mode.factor(np.array([2.0])), want[2:])
