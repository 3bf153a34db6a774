"""Parts of results, what they cost, units, and what is taken besides numpy arrays of many charges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tenfac import DataError, Electrostatics
from tenfac.functional.charges.electrostatics import _bounds, _checked_tol, _chosen
from tenfac.functional.charges.separation import Separation
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says
from tests.functional.charges.test_electrostatics import crystal, direct, gas

KERNELS = [("coulomb", 0.0), ("yukawa", 0.5), ("slater", 0.5)]
FEW, FEW_CHARGES = gas(12, side=6.0)
GRID, _ = crystal(3, 1.5)
GRID_CHARGES = np.random.default_rng(1).standard_normal(27)


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS)
@pytest.mark.parametrize(
    ("places", "charges"), [(FEW, FEW_CHARGES), (GRID, GRID_CHARGES)], ids=["gas", "grid"]
)
def test_parts_add_up_at_the_charges_and_at_points(places, charges, kernel, kappa) -> None:
    system = Electrostatics(places, charges, kernel=kernel, kappa=kappa, alpha=0.8, tol=1e-8)
    points = places + 0.07
    value, field = direct(places, places, charges, kappa, slater=kernel == "slater")
    scale = 1e-8 * max(np.abs(value).max(), 1.0)
    for at, want in (
        (None, field),
        (points, direct(points, places, charges, kappa, slater=kernel == "slater")[1]),
    ):
        parts = [(system.potential(at, part=p), system.field(at, part=p)) for p in ("long", "short")]
        for n, total in enumerate((system.potential(at), system.field(at))):
            assert_close(parts[0][n] + parts[1][n], total, 1000)
        assert_below(np.abs(system.field(at) - want).max(), 30 * scale, "field")
        # the short part is that of the pairs nearer than the cutoff
        rows = places if at is None else at
        r = np.linalg.norm(rows[:, None] - places, axis=2)
        near = (r > 0) & (r < system.cutoff)
        short = np.where(near, system._split.short(np.where(near, r, 1.0)), 0.0) @ charges
        assert_close(parts[1][0], short, 1e4, scale=1.0)
    assert_below(abs(system.energy() - value @ charges / 2), 30 * scale, "energy")


@pytest.mark.parametrize("places", [FEW, GRID], ids=["gas", "grid"])
def test_potentials_and_energies_do_not_pay_for_slopes(monkeypatch, places) -> None:
    system = Electrostatics(places, np.ones(len(places)), tol=1e-4)
    points = places + 0.07

    def refused(self, *_):
        raise AssertionError("a slope was asked for")

    monkeypatch.setattr(Separation, "short_slope", refused)
    monkeypatch.setattr("tenfac.core.modes.chebyshev.Chebyshev.diff", refused)
    system.potential(), system.potential(points), system.energy()
    for at in (None, points):
        with pytest.raises(AssertionError, match="a slope"):
            system.field(at)


def test_a_grid_is_used_unless_a_gradient_is_recorded() -> None:
    assert Electrostatics(GRID, GRID_CHARGES, tol=1e-3)._lattice is not None
    torch = pytest.importorskip("torch")
    places, charges = torch.from_numpy(GRID), torch.from_numpy(GRID_CHARGES)
    assert Electrostatics(places, charges, tol=1e-3)._lattice is not None
    for given in ((places.clone().requires_grad_(), charges), (places, charges.clone().requires_grad_())):
        made = Electrostatics(*given, tol=1e-3)
        assert made._lattice is None
        assert made.energy().requires_grad
        assert made.potential(GRID[:2] + 0.1, part="long").requires_grad


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS)
def test_results_have_the_units_of_the_positions(kernel, kappa) -> None:
    options = {"kernel": kernel, "tol": 1e-6}
    system = Electrostatics(FEW, FEW_CHARGES, kappa=0.02 * kappa, **options)
    for unit in (1e-10, 1e10):
        scaled = Electrostatics(unit * FEW, FEW_CHARGES, kappa=0.02 * kappa / unit, **options)
        height = 1.0 if kernel == "slater" else unit
        assert_equal(scaled.long_range.rank, system.long_range.rank)
        assert_close(scaled.cutoff / unit, system.cutoff, 1e6)
        assert_close(scaled.alpha * unit, system.alpha)
        assert_relative(scaled.potential() * height, system.potential(), 1e-8)
        assert_relative(scaled.forces() * height * unit, system.forces(), 1e-6)


def test_forces_of_a_slater_kernel_that_hardly_changes_lose_a_digit_and_no_more() -> None:
    positions, charges = gas(15, side=1.0)
    for kappa in (1e-3, 1.0, 30.0):
        system = Electrostatics(positions, charges, kernel="slater", kappa=kappa, tol=1e-5)
        field = direct(positions, positions, charges, kappa, slater=True)[1]
        assert_below(np.abs(system.field() - field).max() / np.abs(field).max(), 1e-4, "field")


def test_two_slater_charges_at_one_place_pull_at_each_other_not_at_all() -> None:
    torch = pytest.importorskip("torch")
    places = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    charges = torch.tensor([1.0, 3.0], dtype=torch.float64)
    system = Electrostatics(places, charges, kernel="slater", kappa=1.0, alpha=2.0, domain=[(-1, 1)] * 3)
    energy = system.energy()
    assert_below(abs(float(energy.detach()) - 3.0), 1e-5, "energy")
    energy.backward()
    assert_below(float(places.grad.abs().max()), 1e-4, "force")


def test_points_of_any_library_are_taken_and_torch_points_keep_their_gradient(make) -> None:
    torch = pytest.importorskip("torch")
    tol = 1e-6 if make.dtype == "float64" else 1e-4
    system = Electrostatics(make.asarray(FEW), make.asarray(FEW_CHARGES), tol=tol)
    points = FEW[:3] + 0.1
    want = np.asarray(direct(points, FEW, FEW_CHARGES)[0])
    for given in (points, points.tolist(), torch.from_numpy(points), torch.from_numpy(points).float()):
        got = np.asarray(system.potential(given))
        assert_below(np.abs(got - want).max() / np.abs(want).max(), 10 * tol, "potential")
    if make.library == "torch":
        at = make.asarray(points).requires_grad_()
        system.potential(at).sum().backward()
        assert_below(
            (at.grad + system.field(at.detach())).abs().max() / at.grad.abs().max(), 1e-3, "gradient"
        )


def test_the_point_at_a_charge_is_named_also_in_a_later_block(monkeypatch) -> None:
    monkeypatch.setattr("tenfac.functional.charges.neighbors._PAIRS", 1)
    system = Electrostatics(FEW, FEW_CHARGES, tol=1e-3)
    points = np.concatenate([FEW, FEW, FEW]) * 0.9 + 0.01
    points[29] = FEW[4]
    with pytest.raises(DataError) as error:
        system.potential(points)
    assert_says(error, "row 29")


def test_charges_of_zero_have_no_error_and_seconds_are_a_duration() -> None:
    none = Electrostatics(FEW, np.zeros(12), tol=1e-3)
    assert_equal((none.info.rel_error, none.info.converged, float(none.energy())), (0.0, True, 0.0))
    assert_below(abs(none.info.seconds - 30), 30, "seconds")


def test_atoms_that_say_nothing_of_periods_are_free_and_other_charges_may_be_given() -> None:
    atoms = SimpleNamespace(get_positions=lambda: FEW, get_initial_charges=lambda: FEW_CHARGES)
    assert_equal(Electrostatics(atoms, tol=1e-3).charges.tolist(), FEW_CHARGES.tolist())
    assert_equal(
        Electrostatics(atoms, 2 * FEW_CHARGES, tol=1e-3).charges.tolist(), (2 * FEW_CHARGES).tolist()
    )


def test_the_kernel_is_yukawas_where_it_is_screened_however_little() -> None:
    for kappa, kernel in ((0.0, "coulomb"), (1e-9, "yukawa"), (0.5, "yukawa")):
        assert_equal(Electrostatics(FEW, FEW_CHARGES, kappa=kappa, tol=1e-3).kernel, kernel)


def test_the_least_tolerance_of_float32_is_four_roundings() -> None:
    assert_equal(_checked_tol(4.8e-7, np.dtype("float32"), "here"), 4.8e-7)
    with pytest.raises(DataError):
        _checked_tol(4.7e-7, np.dtype("float32"), "here")


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_margin_and_alpha_of_thin_and_small_boxes_have_the_units_of_the_places(unit) -> None:
    places = unit * np.array([[0.1, 5.0, 5.0], [0.3, 5.0, 5.1]])
    margin = unit * np.array([[-0.01, 0.01]])
    assert_close(_bounds(places, None), np.stack([places[0], places[1]], axis=1) + margin, 1000)
    thin = np.array([10.0, 10.0, 0.0])
    for count in (1, 3, 10):
        alpha = _chosen(count, unit * thin, 1e-6, 0.0) * unit
        assert_close(alpha, _chosen(count, thin, 1e-6, 0.0))
        assert_above(alpha, _chosen(count, np.array([10.0, 10.0, 1.0]), 1e-6, 0.0), "alpha of a thinner box")
