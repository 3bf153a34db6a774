"""Charges on a grid: which places count as one, and the near part by convolution."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from tenfac.functional.charges.lattice import find_lattice
from tenfac.functional.charges.separation import separate
from tests.checks import assert_close, assert_equal
from tests.functional.charges.test_electrostatics import crystal


def test_a_grid_may_have_eight_cells_per_charge_and_no_more() -> None:
    for far, shape in ((23.0, (24, 1, 1)), (24.0, None), (25.0, None)):
        found = find_lattice(np.array([[0.0, 1, 2], [1.0, 1, 2], [far, 1, 2]]))
        assert_equal(None if found is None else found.shape, shape)
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 3, 0], [0, 0, 4.0]])  # 2 * 4 * 2 cells
    found = find_lattice(corner)
    assert_equal((found.shape, found.step.tolist()), ((2, 4, 2), [1.0, 1.0, 4.0]))
    assert_equal(found.cells.tolist(), [0, 8, 4, 6, 1])
    assert_equal(find_lattice(np.concatenate([corner, corner[:1]])), None)  # a place twice


def test_the_near_part_of_a_grid_is_the_sum_over_its_pairs() -> None:
    positions, charges = crystal(4, 1.0)
    positions, charges = positions[:50] * [1.0, 1.1, 0.9], charges[:50] + 0.1
    lattice, split = find_lattice(positions), separate(1.5, 8.0, 1e-8)
    for cutoff in (0.8, 1.05, 2.4, 50.0):
        value, slope = lattice.short(split, cutoff, charges, True)
        delta = positions[:, None] - positions
        r = np.linalg.norm(delta, axis=2)
        near = (r > 0) & (r < cutoff)
        r[~near] = 1.0
        assert_close(value, (near * scipy.special.erfc(1.5 * r) / r) @ charges, 1e4, scale=1.0)
        tail = 2 * 1.5 / np.sqrt(np.pi) * np.exp(-((1.5 * r) ** 2))
        along = near * -(scipy.special.erfc(1.5 * r) / r + tail) / r / r * charges
        assert_close(slope, np.einsum("ij,ijn->in", along, delta), 1e4, scale=1.0)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_grid_is_one_in_any_unit_wherever_it_begins(unit, dtype) -> None:
    cells = crystal(4, 1.0)[0][3:]
    places = (unit * (cells * [0.1, 0.7, 1.0] + [0.13, -5.0, 3.3])).astype(dtype)
    ulp = np.spacing(np.abs(places[5]).max())
    places[7:20, 1] += ulp  # a plane in two halves, a rounding apart
    found = find_lattice(places)
    assert_equal(found.shape, (4, 4, 4))
    assert_equal(found.cells.tolist(), np.ravel_multi_index(cells.astype(int).T, (4, 4, 4)).tolist())
    assert_close(found.step, unit * np.array([0.1, 0.7, 1.0]), 100 * np.finfo(dtype).eps / 2.0**-52)
    places[:, 2] = places[0, 2] + np.spacing(places[0, 2]) * (cells[:, 2] == 1)  # one plane
    assert_equal(find_lattice(places[cells[:, 2] < 2][::2]).shape, (4, 4, 1))
    for n in range(2):
        moved = places.copy()
        moved[40, n] += 40 * np.spacing(np.abs(places[:, n]).max())
        assert_equal(find_lattice(moved), None)


def test_places_a_few_roundings_apart_that_reach_far_are_no_single_plane() -> None:
    ulp = float(np.spacing(np.float32(1000)))
    near = 1000 + ulp * np.random.default_rng(0).permutation(np.arange(0, 120, 3))[:36]
    places = np.stack([near, np.arange(36.0), np.zeros(36)], axis=1).astype(np.float32)
    assert_equal(find_lattice(places), None)


def test_the_kernel_is_made_for_the_distances_there_are_and_no_others() -> None:
    split, shapes = separate(1.5, 20.0, 1e-8), []

    def short(r):
        shapes.append(r.shape)
        return split.short(r)

    lattice = find_lattice(crystal(5, 1.0)[0][:50] * [1.0, 2.0, 1.0])
    assert_equal(lattice.shape, (2, 5, 5))
    for cutoff in (1.5, 4.5, 1e9):
        lattice.short(SimpleNamespace(short=short), cutoff, np.ones(50), False)
    assert_equal(shapes, [(3, 1, 3), (3, 5, 9), (3, 9, 9)])
