"""Sparse coefficients as a format; of Chebyshev dictionaries they are a function."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import CP, Chebyshev, KroneckerSBL, ShapeError, Tucker, kron_omp, load, save
from tests.checks import assert_below, assert_close, assert_equal, assert_says, to_numpy

MODES = (Chebyshev(30, (0.0, 2.0)), Chebyshev(26, (-1.0, 1.0)))


def f(x: Any, y: Any) -> Any:
    """Polynomials 0 and 12 of the first variable, 1 and 7 of the second."""
    return (1 + np.cos(12 * np.arccos(x - 1))) * (2 * y + np.cos(7 * np.arccos(y)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_sparse_coefficients_of_scattered_places_are_a_function(library: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    points = [np.sort(rng.uniform(*mode.domain, 18)) for mode in MODES]  # fewer than columns
    dictionaries = [mode.rows(np.eye(mode.size), x) for mode, x in zip(MODES, points, strict=True)]
    Y = f(points[0][:, None], points[1]) + 0.02 * rng.standard_normal((18, 18))
    if library == "torch":
        dictionaries, Y = [torch.from_numpy(a) for a in dictionaries], torch.from_numpy(Y)
    model = KroneckerSBL().fit(dictionaries, Y)
    assert_equal([to_numpy(s).tolist() for s in model.support_], [[0, 12], [1, 7]])
    F = model.coef_format(MODES)
    assert_equal((type(F), F.rank, F.modes), (Tucker, (2, 2), MODES))
    x, y = np.linspace(0, 2, 60), np.linspace(-1, 1, 61)
    assert_below(np.abs(to_numpy(F.on_grid(x, y)) - f(x[:, None], y)).max(), 0.05, "error anywhere")
    back = to_numpy(F.on_grid(points[0], points[1]))
    assert_close(back, to_numpy(model.predict()), 1e3)
    slope = 3 * 12 * np.sin(12 * np.arccos(-0.7)) / np.sqrt(1 - 0.7**2)
    assert_below(abs(float(F.diff(0).at(0.3, 1.0)) - slope), 0.02 * abs(slope), "error of the derivative")


def fitted(snapshots: bool, *, complex_values: bool = False, **settings: Any) -> KroneckerSBL:
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((9, 11)), rng.standard_normal((8, 10))
    X = np.zeros((11, 10, 3), dtype=complex if complex_values else float)
    X[np.ix_([2, 7], [0, 4])] = 3 + rng.standard_normal((2, 2, 3)) + (1j if complex_values else 0)
    Y = np.einsum("ma,nb,abt->mnt", A, B, X) + 1e-2 * rng.standard_normal((9, 8, 3))
    return KroneckerSBL(**settings).fit([A, B], Y if snapshots else Y[..., 0], snapshots=snapshots)


@pytest.mark.parametrize("settings", [{}, {"prior": "unstructured"}, {"values": "rank1"}], ids=str)
@pytest.mark.parametrize("snapshots", [False, True])
def test_the_format_of_the_coefficients_is_their_dense_tensor(
    snapshots: bool, settings: dict[str, str]
) -> None:
    model = fitted(snapshots, **settings)
    t = model.coef_format()
    assert_equal(type(t), CP if "prior" in settings else Tucker)
    assert_equal(t.to_tensor(), model.coef_tensor())
    assert_equal(t.info, model.info_)


def test_complex_coefficients_and_an_empty_support_are_formats_too(tmp_path: Path) -> None:
    model = fitted(snapshots=True, complex_values=True)
    save(model.coef_format(), tmp_path / "t.tenfac")
    assert_equal(load(tmp_path / "t.tenfac").to_tensor(), model.coef_tensor())
    for snapshots, prior in itertools.product((False, True), ("kronecker", "unstructured")):
        Y = np.zeros((3, 4, 2))
        empty = KroneckerSBL(prior=prior).fit(
            [np.eye(3), np.eye(4)], Y if snapshots else Y[..., 0], snapshots=snapshots
        )
        assert_equal(empty.coef_format().to_tensor(), Y if snapshots else Y[..., 0])


@pytest.mark.parametrize(
    "modes", [[Chebyshev(11)], Chebyshev(11), [Chebyshev(11), Chebyshev(9)], [None] * 3, ["a", "b"]], ids=str
)
def test_modes_of_other_sizes_are_refused(modes: Any) -> None:
    model = fitted(snapshots=False)
    with pytest.raises(ShapeError) as error:
        model.coef_format(modes)
    assert_says(error, "coef_format", "(11, 10)", "dictionaries")


def test_one_continuous_mode_beside_row_numbers_is_integrated() -> None:
    model = fitted(snapshots=True)
    F = model.coef_format([Chebyshev(11, (0.0, 2.0)), None])
    assert_equal(F.shape, (None, 10, 3))
    even = np.array(
        [2 / (1 - k**2) if k % 2 == 0 else 0.0 for k in range(11)]
    )  # integrals of T_k over (-1, 1)
    want = np.einsum("k,kbt->bt", even, model.coef_tensor())
    assert_close(F.integrate([0]).to_tensor(), want, 1e3)


@pytest.mark.parametrize("snapshots", [False, True])
def test_the_coefficients_of_matching_pursuit_are_a_format_too(snapshots: bool) -> None:
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((9, 11)), rng.standard_normal((8, 10))
    Y = np.einsum("m,n,t->mnt", A[:, 3], B[:, 5], [1.0, 2.0])
    found = kron_omp([A, B], Y if snapshots else Y[..., 0], tol=1e-6, snapshots=snapshots)
    assert_equal(found.coef_format().to_tensor(), found.coef_tensor())
    assert_equal(found.coef_format([Chebyshev(11), None]).modes[0], Chebyshev(11))
