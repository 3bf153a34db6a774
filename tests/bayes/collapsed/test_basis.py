"""Mode priors, their Karhunen-Loève functions, and products of these."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.bayes.collapsed.basis import MAX_NODES, ModeBasis, ProductBasis, nodes_of
from tenfac.bayes.collapsed.mode_prior import ModePrior
from tests.bayes.toys import SMOOTHNESS
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative
from tests.oracles import DenseMode, bent_axis

PRIORS = {
    "levels": ModePrior(None, 0.7, 1.0, 1.0, 0.5),
    "alike levels": ModePrior(None, 0.7, 1.0, 1.0, 0.5, np.sin(np.arange(18.0)).reshape(9, 2)),
    "oscillator": ModePrior("oscillator", 0.3, 0.4, 0.6, 0.5),
    "matern12": ModePrior("matern12", 0.3, 0.4, 0.1, 0.5),
    "matern32, bent": ModePrior("matern32", 1.5, 0.2, 5.0, 0.1),
    "matern52, bent to the right": ModePrior("matern52", 0.05, 0.6, 12.0, 1.0),
}
every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())


def dense(prior: ModePrior) -> DenseMode:
    return DenseMode(
        SMOOTHNESS[prior.kernel],
        prior.constant,
        prior.lengthscale,
        prior.sharpness,
        prior.center,
        prior.loadings,
    )


def nodes_for(prior: ModePrior, size: int = 9) -> np.ndarray:
    return np.arange(size) * 1.0 if prior.kernel is None else np.linspace(0, 1, size) ** 1.5


# --- the prior of one mode --------------------------------------------------------------------------------


@every_prior
def test_covariance_of_a_mode_is_a_constant_plus_its_kernel(prior: ModePrior) -> None:
    x = nodes_for(prior)
    z = x[::2] if prior.kernel is None else np.array([-2.0, -0.1, 0.0, 0.33, 1.0, 1.4])
    assert_close(prior.covariance(x, z), dense(prior).covariance(x, z), factor=1e3)
    assert_close(np.diag(prior.covariance(x, x)), prior.variance(x))


@pytest.mark.parametrize("sharpness", [1e-3, 1.0, 8.0, 30.0])
@pytest.mark.parametrize("center", [0.0, 0.2, 1.0])
def test_the_bent_axis_is_the_integral_of_its_density_and_straight_outside(sharpness, center) -> None:
    prior = ModePrior("matern32", 1.0, 1.0, sharpness, center)
    x = np.array([-3.0, -0.01, 0.0, 0.1, 0.5, 0.93, 1.0, 1.2, 50.0])
    assert_close(prior.bend(x), bent_axis(x, sharpness, center), factor=1e4)
    ends = prior.bend(np.array([0.0, 1.0]))
    assert_close(ends, np.array([0.0, 1.0]))
    step = 1e-6
    inside = np.array([0.1, 0.5, 0.93])
    assert_relative(
        prior.slope(inside), (prior.bend(inside + step) - prior.bend(inside - step)) / (2 * step), 1e-8
    )


def test_the_axis_bends_fastest_at_its_center() -> None:
    prior = ModePrior("matern32", 1.0, 1.0, 10.0, 0.3)
    x = np.linspace(0, 1, 101)
    assert_equal(int(np.argmax(prior.slope(x))), 30)
    assert_above(np.diff(prior.bend(x)).min(), 1e-4, "step: the axis keeps its order")


# --- Karhunen-Loève functions of one mode -----------------------------------------------------------------


@every_prior
def test_all_functions_together_give_the_covariance_on_the_nodes(prior: ModePrior) -> None:
    nodes = nodes_for(prior)
    basis = ModeBasis.build(prior, nodes)
    assert_equal(basis.size, nodes.size)
    rows = basis.rows(nodes)
    assert_close(rows @ rows.T, dense(prior).covariance(nodes, nodes), factor=1e4)


@every_prior
def test_functions_are_orthogonal_on_the_nodes_and_the_eigenvalues_descend(prior: ModePrior) -> None:
    nodes = nodes_for(prior)
    basis = ModeBasis.build(prior, nodes)
    rows = basis.rows(nodes)
    assert_close(rows.T @ rows, np.diag(basis.eigenvalues), factor=1e4)
    assert_below(np.diff(basis.eigenvalues).max(), 0.0, "rise of an eigenvalue")


def test_between_the_nodes_the_functions_are_the_interpolation_of_the_dense_gaussian_process() -> None:
    prior = PRIORS["matern32, bent"]
    nodes, x = nodes_for(prior), np.array([-0.5, 0.07, 0.41, 0.99, 1.7])
    basis = ModeBasis.build(prior, nodes)
    weights = np.linalg.solve(dense(prior).covariance(nodes, nodes), dense(prior).covariance(nodes, x)).T
    assert_close(basis.rows(x), weights @ basis.rows(nodes), factor=1e5)


def test_truncation_keeps_the_leading_functions() -> None:
    prior = PRIORS["matern52, bent to the right"]
    basis = ModeBasis.build(prior, nodes_for(prior))
    x = np.linspace(-0.2, 1.3, 7)
    small = basis.truncate(3)
    assert_equal(small.size, 3)
    assert_equal(small.rows(x), np.ascontiguousarray(basis.rows(x)[:, :3]))
    assert_equal(small.eigenvalues, basis.eigenvalues[:3])


@every_prior
def test_coefficients_are_white_at_the_reference_and_carry_the_new_prior_elsewhere(prior: ModePrior) -> None:
    nodes = nodes_for(prior)
    basis = ModeBasis.build(prior, nodes)
    # whitening divides by the smallest eigenvalue, 1e-6 of the largest for the smoothest prior here
    assert_close(basis.coefficient_covariance(prior), np.eye(nodes.size), factor=1e7)
    other = ModePrior(prior.kernel, 0.2, 0.33, 3.0, 0.6)
    rows = basis.rows(nodes)
    moved = rows @ basis.coefficient_covariance(other) @ rows.T
    assert_close(moved, dense(other).covariance(nodes, nodes), factor=1e7)


def test_rows_of_levels_are_gathered_by_code() -> None:
    basis = ModeBasis.build(PRIORS["levels"], np.arange(4) * 1.0)
    codes = np.array([3.0, 0.0, 3.0, 1.0])
    assert_equal(basis.rows(codes), basis.rows(np.arange(4) * 1.0)[[3, 0, 3, 1]])


def test_nodes_are_all_values_while_they_are_few_and_quantiles_when_many() -> None:
    few = np.sort(np.random.default_rng(0).random(MAX_NODES))
    assert_equal(nodes_of(few), few)
    many = np.sort(np.random.default_rng(0).random(500))
    nodes = nodes_of(many)
    assert_equal(nodes.size, MAX_NODES)
    assert_equal(np.setdiff1d(nodes, many).size, 0)
    assert_equal((nodes[0], nodes[-1]), (many[0], many[-1]))


# --- products ---------------------------------------------------------------------------------------------


def product(most: int = 10_000, floor: float = 0.0) -> ProductBasis:
    bases = (
        ModeBasis.build(PRIORS["matern32, bent"], nodes_for(PRIORS["matern32, bent"], 6)),
        ModeBasis.build(PRIORS["levels"], np.arange(4) * 1.0),
        ModeBasis.build(PRIORS["matern12"], nodes_for(PRIORS["matern12"], 5)),
    )
    return ProductBasis.leading(bases, most, floor)


def variances(basis: ProductBasis) -> np.ndarray:
    """Prior variance of every possible product, descending."""
    a, b, c = (part.eigenvalues for part in basis.bases)
    return np.sort(np.einsum("i,j,k->ijk", a, b, c).ravel())[::-1]


def kept(basis: ProductBasis) -> np.ndarray:
    return np.prod([b.eigenvalues[i] for b, i in zip(basis.bases, basis.index.T, strict=True)], axis=0)


def values_at(basis: ProductBasis, points: list[np.ndarray]) -> np.ndarray:
    return basis.rows(points, points[0].size)


def grid_points(basis: ProductBasis) -> list[np.ndarray]:
    return [part.ravel() for part in np.meshgrid(*(b.nodes for b in basis.bases), indexing="ij")]


def test_all_products_together_give_the_product_covariance() -> None:
    basis = product()
    assert_equal(basis.size, 6 * 4 * 5)
    assert_equal(basis.rank, (6, 4, 5))
    points = grid_points(basis)
    want = np.prod(
        [dense(b.prior).covariance(x, x) for b, x in zip(basis.bases, points, strict=True)], axis=0
    )
    rows = values_at(basis, points)
    assert_close(rows @ rows.T, want, factor=1e4)


@pytest.mark.parametrize("most", [1, 2, 17, 119])
def test_the_products_kept_are_those_of_largest_variance(most: int) -> None:
    basis = product(most)
    assert_equal(basis.size, most)
    assert_close(kept(basis), variances(basis)[:most])
    assert_equal(len({tuple(row) for row in basis.index.tolist()}), most)
    assert_equal(basis.rank, tuple(int(n) + 1 for n in basis.index.max(axis=0)))


def test_products_below_the_floor_are_dropped_but_one_always_stays() -> None:
    every = variances(product())
    floor = float(np.sqrt(every[30] * every[31]))
    assert_equal(product(floor=floor).size, 31)
    assert_equal(product(most=12, floor=floor).size, 12)
    assert_equal(product(floor=1e9).size, 1)


def test_without_other_modes_there_is_one_constant_product() -> None:
    basis = ProductBasis.leading((), 5, 0.0)
    assert_equal(basis.size, 1)
    assert_equal(basis.rank, ())
    assert_equal(basis.rows([], 3), np.ones((3, 1)))


def missing(basis: ProductBasis, points: list[np.ndarray]) -> np.ndarray:
    """Prior variance that the products leave out at some points."""
    return basis.missing_variance(values_at(basis, points), basis.variance(points, points[0].size))


def test_missing_variance_is_zero_on_the_nodes_of_a_complete_basis_and_never_negative() -> None:
    basis = product()
    assert_equal(missing(basis, grid_points(basis)), np.zeros(120))
    rng = np.random.default_rng(0)
    points = [rng.uniform(-1, 2, 400), rng.integers(0, 4, 400) * 1.0, rng.uniform(-1, 2, 400)]
    for size in (1, 20, 120):
        assert_above(missing(product(size), points).min(), 0.0, "missing variance")


def test_missing_variance_is_the_dense_conditional_variance_between_the_nodes() -> None:
    basis = product()
    rng = np.random.default_rng(1)
    x = [rng.uniform(-0.5, 1.5, 30), rng.integers(0, 4, 30) * 1.0, rng.uniform(-0.5, 1.5, 30)]
    nodes = grid_points(basis)

    def cov(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
        return np.prod(
            [dense(p.prior).covariance(u, v) for p, u, v in zip(basis.bases, a, b, strict=True)], axis=0
        )

    want = np.diag(cov(x, x) - cov(x, nodes) @ np.linalg.solve(cov(nodes, nodes), cov(nodes, x)))
    assert_close(missing(basis, x), want, factor=1e5)


def test_missing_variance_of_a_truncated_basis_is_what_the_dropped_products_carried() -> None:
    basis, points = product(20), grid_points(product())
    everything = values_at(product(), points)
    want = np.square(everything[:, 20:]).sum(axis=1)
    assert_close(missing(basis, points), want, factor=1e5)
