"""Kernels split into Gaussians and a short part: closed forms, the measured error, units, the cutoff."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from tenfac import GaussianBasis
from tenfac.functional.charges.lattice import find_lattice
from tenfac.functional.charges.separation import Separation, separate
from tests.checks import assert_above, assert_below, assert_close, assert_equal

CASES = [
    (0.0, False),
    (0.2, False),
    (1.0, False),
    (2.0, False),
    (19.0, False),
    (0.2, True),
    (2.0, True),
    (19.0, True),
]


def long_part(split: Separation, r: np.ndarray) -> np.ndarray:
    return np.exp(-np.multiply.outer(r**2, split.exponents)) @ split.weights


def kernel(r: np.ndarray, kappa: float, slater: bool) -> np.ndarray:
    return np.exp(-kappa * r) / (1.0 if slater else r)


@pytest.mark.parametrize(("kappa", "slater"), CASES)
def test_the_long_part_at_0_is_that_of_the_integral(kappa, slater) -> None:
    split = separate(2.0, 5.0, 2e-14, kappa, slater=slater)
    shift = kappa / 4.0
    want = 4.0 / np.sqrt(np.pi) * np.exp(-(shift**2)) - kappa * scipy.special.erfc(shift)
    want = scipy.special.erfc(shift) if slater else want
    assert_below(abs(split.at_zero - want) / split.scale, 2e-14, "error at 0")
    assert_close(split.scale, 1.0 if slater else 4.0 / np.sqrt(np.pi))


@pytest.mark.parametrize(("kappa", "slater"), CASES)
@pytest.mark.parametrize(("alpha", "diameter"), [(2.0, 5.0), (2.0, 0.3), (30.0, 40.0)])
def test_the_error_said_is_the_largest_up_to_the_diameter_and_below_tol(
    kappa, slater, alpha, diameter
) -> None:
    r = np.concatenate([np.geomspace(1e-3 / alpha, diameter, 3000), np.linspace(0.01, 1, 3000) * diameter])
    for tol in (1e-1, 1e-3, 1e-8):
        split = separate(alpha, diameter, tol, kappa, slater=slater)
        assert_close(split.kernel(r), kernel(r, kappa, slater))
        error = np.abs(long_part(split, r) + split.short(r) - kernel(r, kappa, slater)).max() / split.scale
        assert_below(split.error, tol, "error said")
        assert_below(abs(split.error - error), 0.05 * error + 1e-12, "error said less the one found")


def test_no_fewer_nodes_keep_the_tolerance() -> None:
    # the midpoint rule on one panel: erf(r) / r against 2 / sqrt(pi) exp(-r^2 / 4), off by 1.7 % at r = 0.5
    assert_equal([len(separate(1.0, 0.5, tol).weights) for tol in (0.5, 0.018, 0.016)], [1, 1, 2])
    assert_equal(len(separate(1.0, 2.0, 0.5).weights), 2)  # of one node each


@pytest.mark.parametrize(("kappa", "slater"), CASES)
@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_of_length_scale(kappa, slater, unit) -> None:
    split = separate(2.0, 5.0, 1e-9, kappa, slater=slater)
    scaled = separate(2.0 / unit, 5.0 * unit, 1e-9, kappa / unit, slater=slater)
    height = 1.0 if slater else unit
    assert_close(scaled.exponents * unit**2, split.exponents, 1000)
    assert_close(scaled.weights * height, split.weights, 1000)
    assert_close(scaled.cutoff(1e-7) / unit, split.cutoff(1e-7), 1e4)
    r = np.array([1e-3, 0.1, 1.0])
    assert_close(scaled.short(unit * r) * height, split.short(r), 1000)
    assert_close(scaled.short_slope(unit * r) * unit * height, split.short_slope(r), 1000)


@pytest.mark.parametrize(("kappa", "slater"), CASES)
def test_the_short_part_is_the_smaller_beyond_the_cutoff_and_keeps_its_digits(kappa, slater, make) -> None:
    split = separate(2.0, 5.0, 1e-9, kappa, slater=slater)
    places = np.array([1e-3, 0.1, 0.5, 1.0, 1.5])
    # the part of the integral beyond alpha, by quadrature in 1 / t
    x, w = np.polynomial.legendre.leggauss(60)
    edges = np.linspace(0.0, 0.5, 200)
    s = (edges[:-1, None] + np.diff(edges)[:, None] / 2 * (1 + x)).ravel()
    w = (np.diff(edges)[:, None] / 2 * w).ravel() / s**2
    density = 2 / np.sqrt(np.pi) * np.exp(-((kappa * s / 2) ** 2)) * (kappa * s**2 / 2 if slater else 1.0)
    gauss = np.exp(-np.multiply.outer(places**2, s**-2.0))
    rows = slice(1, None)  # near 0 the quadrature has no digits
    assert_close(
        split.short(make.asarray(places))[rows], (gauss @ (w * density))[rows], 200, like=make.asarray(places)
    )
    slope = -2 * places * (gauss @ (w * density / s**2))
    got = split.short_slope(make.asarray(places))[rows]
    assert_close(got, slope[rows], 200, like=make.asarray(places))
    for tol in (1e-1, 1e-3, 1e-9, 1e-13):
        cutoff = split.cutoff(tol)
        bound = tol * split.scale
        if slater and split.short(np.array(0.0)) <= bound:
            assert_below(cutoff, 1e-6, "cutoff where all is long")
            continue
        assert_below(split.short(np.array(cutoff * (1 + 1e-9))), bound, "beyond")
        assert_above(split.short(np.array(cutoff * (1 - 1e-9))), bound, "inside")


@pytest.mark.parametrize(
    ("make_one", "name"),
    [
        (lambda: separate(1.0, 1.0, 1e-3), "alpha"),
        (lambda: find_lattice(np.eye(3)), "step"),
        (lambda: GaussianBasis([1.0], domain=[(0.0, 1.0)])._axes[0], "factor"),
    ],
    ids=["split", "lattice", "axis"],
)
def test_what_is_worked_out_once_stays_and_is_compared_as_a_whole(make_one, name) -> None:
    one, other = make_one(), make_one()
    with pytest.raises(AttributeError):
        setattr(one, name, 2.0)
    assert one != other
    assert_equal(len({one, other}), 2)
