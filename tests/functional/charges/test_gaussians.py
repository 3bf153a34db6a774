"""Sums of Gaussians: values against the plain double sum, the cost's independence of N, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, GaussianBasis, ShapeError, gaussian_sum
from tenfac.core.errors import ConvergenceWarning
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.functional.charges.separation import separate
from tests.checks import (
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.functional.charges.rhosvd import gaussian_rhosvd, sinc_terms

CUBE = [(-1.0, 1.0)] * 3
BRICK = [(0.0, 4.0), (-1.0, 1.0), (5.0, 8.0)]


def cloud(count: int, box: list[tuple[float, float]] = CUBE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low, high = np.array(box).T
    return rng.uniform(low, high, (count, len(box))), rng.standard_normal(count)


def summed(points, centers, amplitudes, exponents, weights) -> np.ndarray:
    """The double sum, term by term."""
    r2 = np.sum((points[:, None] - centers) ** 2, axis=2)
    return sum(w * np.exp(-t * r2) @ amplitudes for t, w in zip(exponents, weights, strict=True))


@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-12])
@pytest.mark.parametrize("box", [CUBE, BRICK], ids=["cube", "brick"])
def test_the_sum_is_the_double_sum_to_tol(box, tol) -> None:
    centers, amplitudes = cloud(60, box)
    points = np.concatenate([cloud(200, box, seed=1)[0], centers, [[b for _, b in box]]])
    exponents, weights = [0.0, 0.3, 2.0, 11.0], [0.1, 0.5, -0.7, 1.0]
    F = gaussian_sum(centers, amplitudes, exponents, weights, domain=box, tol=tol)
    want = summed(points, centers, amplitudes, exponents, weights)
    assert F.info.converged
    assert_below(np.abs(F.at(*points.T) - want).max() / np.abs(want).max(), tol, "error")
    assert_equal(F.modes, tuple(Chebyshev(f.shape[0], b) for f, b in zip(F.factors, box, strict=True)))


def test_one_to_four_variables() -> None:
    for d in (1, 2, 4):
        centers, amplitudes = cloud(20, CUBE[:1] * d)
        F = gaussian_sum(centers, amplitudes, [1.0, 4.0], domain=CUBE[:1] * d, tol=1e-9)
        want = summed(centers, centers, amplitudes, [1.0, 4.0], [1.0, 1.0])
        assert_below(np.abs(F.at(*centers.T) - want).max() / np.abs(want).max(), 1e-9, f"error for d={d}")


def test_library_and_dtype_are_those_of_the_centers(make) -> None:
    centers, amplitudes = cloud(40)
    tol = 1e-9 if make.dtype == "float64" else 1e-4
    F = gaussian_sum(make.asarray(centers), make.asarray(amplitudes), [1.0, 6.0], domain=CUBE, tol=tol)
    got = F.at(*make.asarray(centers.T))
    assert_same_kind(got, make.asarray(centers))
    want = summed(centers, centers, amplitudes, [1.0, 6.0], [1.0, 1.0])
    assert_below(np.abs(to_numpy(got) - want).max() / np.abs(want).max(), tol, "error")


def test_moments_are_linear_in_the_amplitudes_and_the_core_map_is_symmetric() -> None:
    basis = GaussianBasis([1.0, 5.0], domain=CUBE, tol=1e-8)
    (a, y), (b, z) = cloud(30), cloud(50, seed=3)
    joined = basis.moments(np.concatenate([a, b]), np.concatenate([y, -2 * z]))
    M, L = basis.moments(a, y), basis.moments(b, z)
    assert_close(joined, M - 2 * L)
    assert_close(np.sum(L * basis.core(M)), np.sum(M * basis.core(L)), 1000)
    inner = z @ summed(b, a, y, [1.0, 5.0], [1.0, 1.0])
    assert_below(abs(np.sum(L * basis.core(M)) - inner), 1e-7 * abs(z).sum(), "inner product")


def test_the_rank_does_not_depend_on_the_number_of_centers() -> None:
    split = separate(4.0, 2 * 3**0.5, 1e-10)
    basis = GaussianBasis(split.exponents, split.weights, domain=CUBE, tol=1e-6)
    ranks = [max(basis.sum(*cloud(count)).rank) for count in (100, 1000, 8000)]
    assert_below(max(ranks) - min(ranks), 3, f"spread of {ranks}")
    assert_below(max(ranks), 24, "rank")


def test_the_blocks_of_many_centers_are_joined(monkeypatch) -> None:
    centers, amplitudes = cloud(300)
    basis = GaussianBasis([2.0], domain=CUBE, tol=1e-8)
    whole = basis.moments(centers, amplitudes)
    monkeypatch.setattr("tenfac.functional.charges.gaussian_basis._NUMBERS", 1)
    assert_close(basis.moments(centers, amplitudes), whole)


def test_smooth_gaussians_use_the_first_functions_only() -> None:
    basis = GaussianBasis([0.1, 50.0], domain=CUBE, tol=1e-8)
    sizes = [sum(len(table) for table in tables) for tables in basis._axes[0].tables]
    assert_below(sizes[0], sizes[1] / 3, "functions of the smooth one")
    assert_equal(sizes[1], basis.rank[0])
    factor = basis._axes[0].factor
    assert_close(factor.T @ factor, np.eye(basis.rank[0]), scale=1.0)


def test_the_papers_way_gives_the_same_function() -> None:
    centers, amplitudes = cloud(25)
    exponents, weights = np.array([0.5, 3.0, 9.0]), np.array([1.0, 0.4, 2.0])
    theirs = gaussian_rhosvd(centers, amplitudes, exponents, weights, domain=CUBE, size=49, tol=1e-9)
    want = summed(centers, centers, amplitudes, exponents, weights)
    assert_relative(theirs.at(*centers.T), want, 1e-7)
    ours = gaussian_sum(centers, amplitudes, exponents, weights, domain=CUBE, tol=1e-9)
    assert_relative(ours.at(*centers.T), want, 1e-8)


def test_the_newton_kernels_long_part_has_the_published_ranks() -> None:
    # one center; of R terms of a sinc quadrature the R_l smoothest: n, R, R_l, rank
    published = ((256, 26, 10, 9), (512, 29, 12, 11), (1024, 31, 13, 12), (2048, 34, 14, 13))
    for n, terms, kept, rank in published:
        tau, w = (values[:kept] for values in sinc_terms(terms, n))
        F = gaussian_rhosvd(np.zeros((1, 3)), np.ones(1), tau, w, domain=CUBE, size=129, tol=1e-7)
        assert_equal(F.rank, (rank,) * 3)
        x = np.linspace(-1 + 1 / n, 1 - 1 / n, 64)
        want = np.exp(-np.multiply.outer(x**2 + 2 * n**-2.0, tau)) @ w
        near = np.full(64, 1 / n)
        assert_below(np.abs(F.at(x, near, near) - want).max() / want.max(), 1e-7, f"error for n={n}")


def test_amplitudes_of_zero_give_the_zero_function() -> None:
    centers, _ = cloud(5)
    F = gaussian_sum(centers, np.zeros(5), [1.0], domain=CUBE)
    assert_equal(F.rank, (1, 1, 1))
    assert_equal(F.at(*centers.T), np.zeros(5))


def test_a_tolerance_that_the_dtype_cannot_keep_is_said() -> None:
    centers, amplitudes = cloud(20)
    with pytest.warns(ConvergenceWarning, match="dtype is too narrow"):
        F = gaussian_sum(
            centers.astype(np.float32), amplitudes.astype(np.float32), [3.0], domain=CUBE, tol=1e-9
        )
    assert not F.info.converged


def test_torch_gradients_by_centers_and_amplitudes() -> None:
    torch = pytest.importorskip("torch")
    basis = GaussianBasis([1.0, 3.0], domain=CUBE, tol=1e-6)
    centers, amplitudes = (torch.from_numpy(v).requires_grad_() for v in cloud(4))

    def energy(x, z):
        moments = basis.moments(x, z)
        return torch.sum(moments * basis.core(moments))

    assert torch.autograd.gradcheck(energy, (centers, amplitudes))


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"centers": np.full((2, 3), 2.0)}, DataError, ["centers", "[2.0, 2.0, 2.0]", "row 0", "domain"]),
        ({"centers": np.array([[0, 0, 0], [0, np.nan, 0.0]])}, DataError, ["nan", "row 1"]),
        ({"centers": np.zeros((2, 2))}, ShapeError, ["(N, 3)", "(2, 2)"]),
        ({"centers": np.zeros((0, 3)), "amplitudes": np.zeros(0)}, ShapeError, ["a row or more"]),
        ({"amplitudes": np.ones(3)}, ShapeError, ["2 centers", "(3,)"]),
        ({"amplitudes": np.array([1.0, np.inf])}, DataError, ["inf at 1"]),
        ({"exponents": [-1.0]}, DataError, ["0 or more", "-1."]),
        ({"exponents": []}, ShapeError, ["K >= 1", "(0,)"]),
        ({"exponents": [1e9]}, DataError, ["narrowest", "alpha"]),
        ({"weights": [0.0]}, DataError, ["weight", "0"]),
        ({"weights": [1.0, 1.0]}, ShapeError, ["(1,) and (2,)"]),
        ({"tol": 1e-15}, DataError, ["1e-13", "1e-15"]),
        ({"domain": [(1.0, -1.0)] * 3}, DataError, ["a < b"]),
        ({"domain": 3.0}, ShapeError, ["interval", "3.0"]),
    ],
)
def test_bad_input_is_refused(change, error, parts) -> None:
    given = {
        "centers": np.zeros((2, 3)),
        "amplitudes": np.ones(2),
        "exponents": [1.0],
        "domain": CUBE,
    } | change
    with pytest.raises(error) as raised:
        gaussian_sum(given.pop("centers"), given.pop("amplitudes"), given.pop("exponents"), **given)
    assert_says(raised, *parts)


def test_a_gaussian_without_a_width_is_the_sum_of_the_amplitudes() -> None:
    centers, amplitudes = cloud(7)
    basis = GaussianBasis([0.0], [2.0], domain=CUBE)
    assert_equal(basis.rank, (1, 1, 1))
    for compressed in (True, False):
        F = basis.sum(centers, amplitudes, compressed=compressed)
        assert_close(F.at(0.3, -0.2, 0.9), float(2 * amplitudes.sum()), 1e3)


def test_amplitudes_set_the_library_of_centers_that_are_a_list_and_must_be_real() -> None:
    torch = pytest.importorskip("torch")
    basis = GaussianBasis([1.0], domain=CUBE[:1])
    want = basis.moments([[0.1], [-0.7]], [0.3, 0.6])
    for dtype in (torch.float64, torch.float32):
        like = torch.zeros(1, dtype=dtype)
        centers, amplitudes = (
            torch.tensor([[0.1], [-0.7]], dtype=dtype),
            torch.tensor([0.3, 0.6], dtype=dtype),
        )
        assert_close(basis.moments([[0.1], [-0.7]], amplitudes), want, like=like)  # 0.1 is not rounded
        assert_close(basis.moments(centers, [0.3, 0.6]), want, like=like)
    with pytest.raises(DataError) as error:
        basis.moments([[0.1]], [1j])
    assert_says(error, "GaussianBasis.moments", "`amplitudes` must be real")
    with pytest.raises(DataError) as error:
        basis.moments([[0.1], [np.nan]], [1.0, 1.0])
    assert_says(error, "`centers` must be finite", "row 1")
    with pytest.raises(DataError) as error:
        basis.moments([[0.1], [0.2]], [1.0, np.inf])
    assert_says(error, "`amplitudes` must be finite", "inf at 1")


def test_a_center_a_rounding_beyond_the_box_is_taken_and_one_of_more_is_not() -> None:
    basis = GaussianBasis([1.0], domain=[(-100.0, 1.0)])
    for x in (1 + 4e-14, -100 - 4e-14):
        basis.moments([[x]], [1.0])
    for x in (1 + 1e-12, -100 - 1e-12):
        with pytest.raises(DataError) as error:
            basis.moments([[0.0], [x]], [1.0, 1.0])
        assert_says(error, "must lie in the box [(-100.0, 1.0)]", "row 1", "larger `domain`")


@pytest.mark.parametrize("tol", [1e-13, 0.999])
def test_the_ends_of_the_range_of_tolerances_are_taken(tol) -> None:
    assert_equal(GaussianBasis([1.0], domain=CUBE[:1], tol=tol).tol, tol)
    for bad in (0.9e-13, 1.0, 1, True, "1e-3"):
        with pytest.raises(DataError) as error:
            GaussianBasis([1.0], domain=CUBE[:1], tol=bad)
        assert_says(error, "GaussianBasis", "1e-13", repr(bad))


def test_a_quadrature_of_too_few_nodes_is_refused_and_so_is_a_screening_without_a_long_part() -> None:
    with pytest.raises(DataError) as error:
        separate(1.0, 4.0, 1e-18)
    assert_says(error, "16 nodes", "tol=1e-18", "larger tol")
    separate(1.0, 4.0, 1e-6, 10.0)
    with pytest.raises(DataError) as error:
        separate(1.0, 4.0, 1e-6, 10.01)
    assert_says(error, "kappa / 10", "alpha=1 for kappa=10")
