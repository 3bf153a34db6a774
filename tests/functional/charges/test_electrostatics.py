"""Potentials, forces and energies against the direct double sum; symmetry, invariance, files, bad input."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special

from tenfac import DataError, Electrostatics, ShapeError, read_charges
from tenfac.functional.charges.electrostatics import _bounds, _chosen
from tenfac.functional.charges.lattice import find_lattice
from tenfac.functional.charges.separation import separate
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)


def gas(count: int, seed: int = 0, side: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-side / 2, side / 2, (count, 3)), rng.standard_normal(count)


def crystal(edge: int, spacing: float = 2.8) -> tuple[np.ndarray, np.ndarray]:
    """Rock salt, ``edge`` ions a side."""
    cells = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return spacing * cells, (-1.0) ** cells.sum(axis=1)


def chain(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A self-avoiding walk with partial charges of either sign."""
    rng, step = np.random.default_rng(3), 1.5
    places, made = np.zeros((count, 3)), 1
    while made < count:
        move = rng.standard_normal(3) - 0.03 * places[made - 1]
        new = places[made - 1] + step * move / np.linalg.norm(move)
        if np.min(np.sum((places[:made] - new) ** 2, axis=1)) > 1.2:
            places[made] = new
            made += 1
    return places, rng.uniform(-0.8, 0.8, count)


def direct(
    points, positions, charges, kappa: float = 0.0, *, slater: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Potential and field, pair by pair; a charge at the point itself is left out."""
    value, field = np.zeros(len(points)), np.zeros((len(points), 3))
    for n, point in enumerate(points):
        delta = point - positions
        r = np.linalg.norm(delta, axis=1)
        others = r > 0
        kernel = charges[others] * np.exp(-kappa * r[others])
        if not slater:
            kernel /= r[others]
        value[n] = kernel.sum()
        slope = kernel * kappa if slater else kernel * (1 / r[others] + kappa)
        field[n] = (slope / r[others]) @ delta[others]
    return value, field


SYSTEMS = {
    "gas": gas(700),
    "crystal": crystal(9),
    "chain": chain(900),
    "one sign": (gas(500)[0], np.ones(500)),
}


KERNELS = [("coulomb", 0.0), ("yukawa", 0.15), ("slater", 0.15), ("slater", 1e-3)]


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(("kernel", "kappa"), KERNELS)
def test_potential_forces_and_energy_are_those_of_the_direct_sum(name, kernel, kappa) -> None:
    positions, charges = SYSTEMS[name]
    system = Electrostatics(positions, charges, kernel=kernel, kappa=kappa, tol=1e-6)
    value, field = direct(positions, positions, charges, kappa, slater=kernel == "slater")
    assert system.info.converged
    assert_below(np.abs(system.potential() - value).max() / np.abs(value).max(), 1e-6, "potential")
    want = charges[:, None] * field
    assert_below(np.abs(system.forces() - want).max() / np.abs(want).max(), 1e-6, "forces")
    energy = value @ charges / 2
    assert_below(abs(system.energy() - energy) / abs(energy), 1e-6, "energy")


def test_potential_and_field_at_points() -> None:
    positions, charges = gas(300)
    points = gas(100, seed=5)[0] * 0.95
    system = Electrostatics(positions, charges, tol=1e-9)
    value, field = direct(points, positions, charges)
    scale = np.abs(direct(positions, positions, charges)[0]).max()
    assert_below(np.abs(system.potential(points) - value).max() / scale, 1e-9, "potential")
    assert_relative(system.field(points), field, 1e-8)
    parts = system.potential(points, part="long") + system.potential(points, part="short")
    assert_close(parts, system.potential(points))
    assert_close(system.long_range.at(*points.T), system.potential(points, part="long"), 1e4)
    assert_equal(system.potential(np.zeros((0, 3))).shape, (0,))


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS[:3])
def test_results_do_not_depend_on_alpha(kernel, kappa) -> None:
    positions, charges = gas(400)
    systems = [
        Electrostatics(positions, charges, alpha=a, kernel=kernel, kappa=kappa, tol=1e-9)
        for a in (0.1, 0.25, 0.5)
    ]
    ranks = [max(system.long_range.rank) for system in systems]
    assert ranks[0] < ranks[1] < ranks[2]
    for system in systems[1:]:
        assert_relative(system.potential(), systems[0].potential(), 2e-9)
        assert_relative(system.forces(), systems[0].forces(), 2e-8)
        assert_below(abs(system.energy() / systems[0].energy() - 1), 1e-8, "energy")


def test_forces_add_up_to_zero_and_units_scale() -> None:
    positions, charges = gas(300)
    system = Electrostatics(positions, charges, tol=1e-9)
    assert_below(np.abs(system.forces().sum(axis=0)).max() / np.abs(system.forces()).max(), 1e-8, "sum")
    larger = Electrostatics(1e10 * positions, 3 * charges, tol=1e-9)
    assert_relative(larger.potential() * (1e10 / 3), system.potential(), 1e-9)
    moved = Electrostatics(positions + np.array([100.0, 0.0, -7.0]), charges, tol=1e-9)
    assert_relative(moved.forces(), system.forces(), 1e-8)


def test_a_crystal_has_a_low_rank_whatever_its_size() -> None:
    ranks = [
        max(Electrostatics(*crystal(edge), alpha=0.28, tol=1e-6).long_range.rank) for edge in (8, 12, 16)
    ]
    assert_below(max(ranks), 8, f"ranks {ranks}")


def scattered(monkeypatch, *args, **options) -> Electrostatics:
    """The same charges taken pair by pair also where they lie on a grid."""
    monkeypatch.setattr("tenfac.functional.charges.electrostatics.find_lattice", lambda _: None)
    made = Electrostatics(*args, **options)
    monkeypatch.undo()
    return made


def test_charges_on_a_grid_have_the_results_of_charges_anywhere(monkeypatch, make) -> None:
    cells, charges = crystal(7, 1.0)
    some = np.random.default_rng(0).random(len(cells)) < 0.6  # vacancies, and rounding of 0.3 k
    one_plane = cells[:, 1] == 2
    tol = 1e-8 if make.dtype == "float64" else 1e-4
    for rows, kernel, kappa in ((some, "coulomb", 0.0), (one_plane, "slater", 0.4), (some, "yukawa", 1.0)):
        given = [make.asarray(x) for x in (cells[rows] * [0.3, 0.7, 0.5] + 1.0, charges[rows])]
        options = {"kernel": kernel, "kappa": kappa, "tol": tol}
        grid, plain = Electrostatics(*given, **options), scattered(monkeypatch, *given, **options)
        for name in ("potential", "forces", "energy"):
            got, want = getattr(grid, name)(), getattr(plain, name)()
            assert_same_kind(got, want)
            assert_close(got, want, 1e4)


def test_a_grid_is_found_to_rounding_only() -> None:
    cells = crystal(5, 1.0)[0]
    x = 0.1 * cells
    assert_equal(find_lattice(x).shape, (5, 5, 5))
    assert_equal(find_lattice(np.concatenate([cells, cells + 0.5])).shape, (10, 10, 10))
    for moved in (x + 1e-9 * (cells == 2), x + 1e-3 * gas(125)[0], cells**2.0, cells[[0, 1, 1]]):
        assert_equal(find_lattice(moved), None)
    eighths = np.arange(9.0)[:, None] * [1 / 8, 0.0, 0.0]
    for units, shape in ((7.5, (9, 1, 1)), (8.5, None)):  # of rounding at 1, by which one place is off
        off = eighths + units * 2.0**-52 * (eighths == 0.5)
        assert_equal(getattr(find_lattice(off), "shape", None), shape)
    sparse = np.concatenate([cells[:3], 40.0 + cells[:1]])
    assert_equal(find_lattice(sparse), None)


def test_slater_kernels_take_points_at_charges_and_charges_at_one_place() -> None:
    positions, charges = gas(50)
    twice = np.concatenate([positions, positions[:5]]), np.concatenate([charges, charges[:5]])
    system = Electrostatics(*twice, kernel="slater", kappa=0.2, tol=1e-8)
    distances = np.linalg.norm(twice[0][:, None] - twice[0], axis=2)
    want = np.exp(-0.2 * distances) @ twice[1]
    assert_below(np.abs(system.potential(twice[0]) - want).max() / np.abs(want).max(), 1e-8, "at charges")
    assert_below(np.abs(system.potential() - (want - twice[1])).max() / np.abs(want).max(), 1e-8, "of others")
    field = direct(*twice[:1], *twice, 0.2, slater=True)[1]
    assert_below(np.abs(system.field() - field).max() / np.abs(field).max(), 1e-8, "field")


def test_library_and_dtype_are_those_of_the_positions(make) -> None:
    positions, charges = gas(60)
    tol = 1e-6 if make.dtype == "float64" else 1e-4
    system = Electrostatics(make.asarray(positions), make.asarray(charges), tol=tol)
    value, field = direct(positions, positions, charges)
    for got, want in ((system.potential(), value), (system.field(), field)):
        assert_same_kind(got, make.asarray(positions))
        assert_below(np.abs(to_numpy(got) - want).max() / np.abs(want).max(), tol, "error")


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS[:3])
def test_torch_gradients_of_the_energy_are_forces_and_potentials(kernel, kappa) -> None:
    torch = pytest.importorskip("torch")
    positions, charges = (torch.from_numpy(v).requires_grad_() for v in gas(40))
    system = Electrostatics(positions, charges, kernel=kernel, kappa=kappa, tol=1e-9)
    by_place, by_charge = torch.autograd.grad(system.energy(), [positions, charges])
    assert_close(-by_place, system.forces().detach(), 1e6)
    assert_close(by_charge, system.potential().detach(), 1e6)


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS[:3:2])
def test_torch_gradients_of_potentials_by_everything(kernel, kappa) -> None:
    torch = pytest.importorskip("torch")
    positions, charges = (torch.from_numpy(v).requires_grad_() for v in gas(2, side=2.0))
    points = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    box = [(-1.5, 1.5)] * 3

    def potential(x, q, at):
        options = {"kernel": kernel, "kappa": kappa, "tol": 1e-6}
        return Electrostatics(x, q, domain=box, alpha=1.0, **options).potential(at)

    assert torch.autograd.gradcheck(potential, (positions, charges, points))


def test_blocks_of_pairs_and_points_are_joined(monkeypatch) -> None:
    positions, charges = gas(200)
    system = Electrostatics(positions, charges, tol=1e-6)
    value, forces, energy = system.potential(), system.forces(), system.energy()
    monkeypatch.setattr("tenfac.functional.charges.neighbors._PAIRS", 1)
    monkeypatch.setattr("tenfac.functional.charges.electrostatics._NUMBERS", 1)
    assert_close(system.potential(), value, 1e4)
    assert_close(system.forces(), forces, 1e4)
    assert_close(system.energy(), energy, 1e4)


def test_few_flat_and_zero_charges() -> None:
    one = Electrostatics([[1.0, 2.0, 3.0]], [2.0])
    assert_below(abs(float(one.energy())), 1e-6, "energy of one charge")
    pair = Electrostatics([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [1, 3], tol=1e-9)
    assert_below(abs(pair.energy() - 1.5), 1e-8, "energy of two")
    flat = gas(50)[0] * [1.0, 1.0, 0.0]
    plane = Electrostatics(flat, np.ones(50), tol=1e-8)
    assert_relative(plane.potential(), direct(flat, flat, np.ones(50))[0], 1e-8)
    none = Electrostatics(flat, np.zeros(50))
    assert_equal(none.potential(), np.zeros(50))


# --- the split --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.0, 1e-8, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.5, 4.0, 16.0])
@pytest.mark.parametrize("slater", [False, True])
def test_the_parts_add_up_to_the_kernel(alpha, kappa, slater) -> None:
    kappa = 1e-13 if slater and kappa == 0 else kappa
    split = separate(alpha, 3.5, 5e-13, kappa, slater=slater)
    r = np.geomspace(1e-3, 3.5, 200)
    long = np.exp(-np.multiply.outer(r**2, split.exponents)) @ split.weights
    power = 0 if slater else 1
    error = np.abs(long + split.short(r) - np.exp(-kappa * r) / r**power)
    assert_below((error * r**power).max(), 1e-11, "error of the kernel")
    step = 1e-5 * r
    slope = (split.short(r + step) - split.short(r - step)) / (2 * step)
    assert_below(np.abs((slope - split.short_slope(r)) * r ** (1 + power)).max(), 1e-8, "slope")
    scale = 1.0 if slater else 2 * alpha / np.pi**0.5
    if slater and scale * 1e-6 > split.short(np.array(0.0)):
        return  # all of it is long
    assert_below(split.short(np.array(split.cutoff(1e-6))), 1.001e-6 * scale, "beyond the cutoff")
    assert_above(split.short(np.array(0.9 * split.cutoff(1e-6))), 1e-6 * scale, "inside it")


def test_the_long_part_is_the_error_function() -> None:
    assert_equal(len(separate(1.0, 0.5, 1e-12).weights), 6)  # one panel where 1 / alpha is not reached
    for alpha, count in ((4.0, 50), (8.0, 60), (16.0, 70)):
        split = separate(alpha, 2 * 3**0.5, 5e-13)
        r = np.linspace(0.01, 2 * 3**0.5, 300)
        got = np.exp(-np.multiply.outer(r**2, split.exponents)) @ split.weights
        assert_below(np.abs(got - scipy.special.erf(alpha * r) / r).max() / split.at_zero, 1e-12, "error")
        assert_below(len(split.weights), count, "Gaussians")


# --- input ------------------------------------------------------------------------------------------------


def test_atoms_are_taken_and_periodic_ones_refused() -> None:
    positions, charges = gas(20)
    atoms = SimpleNamespace(
        get_positions=lambda: positions, get_initial_charges=lambda: charges, pbc=np.array([False] * 3)
    )
    assert_equal(Electrostatics(atoms).energy(), Electrostatics(positions, charges).energy())
    atoms.pbc = np.array([True, True, False])
    with pytest.raises(DataError) as raised:
        Electrostatics(atoms)
    assert_says(raised, "periodic", "atoms.pbc = False")


PQR = """REMARK made by hand
ATOM      1  N   MET A   1      27.340  24.430   2.614 -0.4157 1.8240
ATOM      2  CA  MET A   1      26.266  25.413   2.842  0.0337 1.9080
HETATM    3 NA    NA     2    -100.000-101.000-102.500  1.0000 1.8500
TER
END
"""


def test_files_are_read(tmp_path) -> None:
    (tmp_path / "a.pqr").write_text(PQR)
    positions, charges = read_charges(tmp_path / "a.pqr")
    assert_equal(charges, np.array([-0.4157, 0.0337, 1.0]))
    assert_equal(positions[2], np.array([-100.0, -101.0, -102.5]))
    (tmp_path / "b.xyzq").write_text("# x y z q\n0 0 1 -1\n\n1,2,3,0.5  # an ion\n")
    positions, charges = read_charges(str(tmp_path / "b.xyzq"))
    assert_equal(charges, np.array([-1.0, 0.5]))
    assert_equal(positions[1], np.array([1.0, 2.0, 3.0]))


def test_models_after_the_first_are_left_out(tmp_path) -> None:
    (tmp_path / "m.pqr").write_text("MODEL 1\n" + PQR.replace("END\n", "ENDMDL\nMODEL 2\n") + PQR)
    assert_equal(read_charges(tmp_path / "m.pqr")[1].shape, (3,))


ATOM = "ATOM  {0:5d}  CA  ALA A{0:4d}    {0:8.3f}  24.430   2.614  1.00 20.00"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["bad.txt", "0 lines", "atom"]),
        ("0 0 1\n", ["line 1", "x y z charge", "'0 0 1'"]),
        ("0 0 1 1\n0 0 x 1\n", ["line 2"]),
        ("0 0 1 nan\n", ["line 1", "nan"]),
        ("0 0 1 0\n", ["1 atoms of charge 0"]),
        (ATOM.format(1) + "           C", ["line 1", "pdb2pqr"]),
        ("\n".join(ATOM.format(n) for n in range(1, 9)), ["1.00 for all 8 atoms", "pdb2pqr"]),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, parts) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(DataError) as raised:
        read_charges(tmp_path / "bad.txt")
    assert_says(raised, *parts)


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"positions": [[0, 0, 0], [1, 1, 1], [1, 1, 1.0]]}, DataError, ["one place", "[1, 2]", "Join"]),
        ({"positions": [[0, 0, 0], [1, 1, 1], [1, 1, np.nan]]}, DataError, ["positions", "row 2", "nan"]),
        ({"positions": np.zeros((0, 3)), "charges": []}, ShapeError, ["positions", "got none"]),
        ({"positions": np.zeros((3, 2))}, ShapeError, ["(N, 3)", "(3, 2)"]),
        ({"charges": [1.0]}, ShapeError, ["charges", "3 positions"]),
        ({"charges": None}, ShapeError, ["charges"]),
        ({"charges": [1.0, np.nan, 1.0]}, DataError, ["charges", "nan at 1"]),
        ({"charges": [1.0, 1j, 1.0]}, DataError, ["real"]),
        ({"domain": [(0.0, 0.5)] * 3}, DataError, ["[1.0, 1.0, 1.0]", "row 1", "domain"]),
        ({"alpha": -1.0}, DataError, ["alpha", "-1.0"]),
        ({"alpha": "auto"}, DataError, ["alpha", "'auto'"]),
        ({"alpha": 1e6}, DataError, ["alpha", "smaller"]),
        ({"alpha": 0.1, "kappa": 2.0}, DataError, ["alpha", "kappa", "larger"]),
        ({"kappa": np.nan}, DataError, ["kappa", "nan"]),
        ({"kernel": "gauss"}, DataError, ["kernel", "'gauss'", "'slater'"]),
        ({"kernel": "slater"}, DataError, ["kappa", "above 0", "'slater'"]),
        ({"kernel": "coulomb", "kappa": 0.1}, DataError, ["kappa", "got 0.1", "'yukawa'"]),
        ({"tol": 0.0}, DataError, ["tol", "0.0"]),
    ],
)
def test_bad_input_is_refused(change, error, parts) -> None:
    given = {"positions": [[0, 0, 0], [1, 1, 1], [2, 1, 0.0]], "charges": [1.0, 1.0, -1.0]} | change
    with pytest.raises(error) as raised:
        Electrostatics(given.pop("positions"), given.pop("charges"), **given)
    assert_says(raised, *parts)


def test_another_library_is_refused() -> None:
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(TypeError) as raised:
        Electrostatics(jnp.ones((1, 3)), jnp.ones(1))
    assert_says(raised, "numpy or torch", "jax")


def test_bad_points_are_refused() -> None:
    system = Electrostatics(*gas(20))
    for points, error, parts in (
        (system.positions[7:9], DataError, ["row 0", "infinite", "without points"]),
        ([[1e3, 0.0, 0.0]], DataError, ["[1000.0, 0.0, 0.0]", "domain"]),
        ([0.0, 0.0, 0.0], ShapeError, ["(N, 3)", "(3,)"]),
        ([[np.nan, 0.0, 0.0]], DataError, ["nan", "row 0"]),
    ):
        with pytest.raises(error) as raised:
            system.potential(points)
        assert_says(raised, *parts)
    with pytest.raises(DataError) as raised:
        system.potential(part="middle")
    assert_says(raised, "'middle'")


def test_one_charge_has_no_potential_but_its_own_and_the_report_is_one_line() -> None:
    one = Electrostatics([[0.3, 0.2, 0.1]], [2.0], domain=[(-1, 1)] * 3, tol=1e-8)
    assert_close(one.potential(), np.zeros(1), scale=1e-7 / np.finfo(float).eps / 100)
    assert_close(float(one.potential([[0.3, 0.2, 0.6]])[0]), 4.0, 1e-7 / np.finfo(float).eps)
    assert_says(repr(one), "Electrostatics(1 charges, coulomb, alpha=", "rank=(", "converged")
    assert "\n" not in repr(one)


def test_a_tolerance_below_the_precision_of_the_positions_is_refused() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype("float32")
    with pytest.raises(DataError) as error:
        Electrostatics(x, np.ones(5, "float32"), tol=4.7e-7)
    assert_says(error, "4.8e-07 or more", "float32", "float64")


@pytest.mark.parametrize(("kernel", "kappa"), KERNELS[:3])
def test_the_reported_error_is_the_largest_at_32_charges(kernel, kappa) -> None:
    positions, charges = gas(200)
    made = Electrostatics(positions, charges, kernel=kernel, kappa=kappa, tol=1e-5)
    rows = [k * 199 // 31 for k in range(32)]
    want = direct(positions[rows], positions, charges, kappa, slater=kernel == "slater")[0]
    gaps = np.abs(made.potential()[rows] - want)
    self = float(np.abs(charges).max()) * made._split.at_zero
    assert_close(made.info.rel_error, float(gaps.max() / max(np.abs(want).max(), self)), 1e12)


def test_columns_of_a_pdb_line_are_read_where_fields_run_together(tmp_path) -> None:
    line = "ATOM  12345 HH31 ACE A1234    -123.456-234.567-345.678-10.51231.4870"
    file = tmp_path / "a.pqr"
    file.write_text(line + "\n")
    positions, charges = read_charges(file)
    assert_equal(positions.tolist(), [[-123.456, -234.567, -345.678]])
    assert_equal(charges.tolist(), [-10.5123])


def test_the_box_has_a_margin_of_five_percent_of_its_longest_side() -> None:
    places = np.array([[0.0, 1.0, -3.0], [2.0, 1.5, 1.0]])
    made = Electrostatics(places, [1.0, -1.0], tol=1e-3)
    assert_close(np.array(made.domain), np.array([[-0.2, 2.2], [0.8, 1.7], [-3.2, 1.2]]))
    for alpha, room in ((None, 0.2), (2.0, 0.025)):  # of one charge: its distance from 0, or 1 / alpha
        low, high = _bounds(np.array([[1.0, 0.0, -4.0]]), alpha).T
        assert_close(np.stack([low, high]), np.array([[1.0, 0, -4]]) + room * np.array([[-1], [1]]))
    assert_close(_bounds(np.full((1, 3), 0.5), None)[0], np.array([0.45, 0.55]))


def test_alpha_follows_the_density_between_a_least_and_a_largest_rank() -> None:
    sides = np.array([10.0, 10.0, 10.0])

    def alpha(count: int, scale: float = 1.0, kappa: float = 0.0) -> float:
        return _chosen(count, scale * sides, 1e-6, kappa)

    assert_close(alpha(8000) / alpha(1000), 2.0)
    assert_close(alpha(1000, 3.0), alpha(1000) / 3)
    assert_equal((alpha(1), alpha(10**9)), (1 / 5.0, 16 / 5.0))
    assert_equal(alpha(1000, 1.0, 100.0), 25.0)
    # erfc(alpha r) / r has fallen below the tolerance where some tens of charges are within
    split = separate(alpha(1000), 20.0, 1e-7)
    near = 4 / 3 * np.pi * split.cutoff(1e-6) ** 3
    assert_above(near, 30, "charges within the cutoff")
    assert_below(near, 50, "charges within the cutoff")
    flat = _chosen(1000, np.array([10.0, 10.0, 0.0]), 1e-6, 0.0)
    assert_equal(flat, _chosen(1000, np.array([10.0, 10.0, 0.01]), 1e-6, 0.0))


def test_the_cutoff_is_where_the_short_part_falls_below_the_tolerance() -> None:
    for kappa, slater in ((0.0, False), (0.7, False), (0.7, True)):
        split = separate(2.0, 8.0, 1e-10, kappa, slater=slater)
        for tol in (1e-2, 1e-8):
            r = split.cutoff(tol)
            assert_close(float(split.short(np.array(r))) / split.scale, tol, 1e9)


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan, True, "1"])
def test_alpha_is_a_finite_number_above_0_and_kappa_may_be_0(value) -> None:
    for name in ("alpha", "kappa"):
        if name == "kappa" and value == 0.0 and value is not True:
            continue
        with pytest.raises(DataError) as error:
            Electrostatics([[0.0, 0, 0], [1, 1, 1]], [1.0, 1.0], **{name: value})
        assert_says(error, name, repr(value), "above 0" if name == "alpha" else "0 or more")
