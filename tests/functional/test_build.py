"""``chebyshev_tucker``: errors delivered, evaluations used, and what is refused."""

from __future__ import annotations

import math
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenfac import ConvergenceWarning, DataError, ShapeError, Tucker, TuckerTrain, chebyshev_tucker
from tenfac.functional import build
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says, quietly
from tests.functional.battery import CUBE, EIGHT, FORTY, UNIT, points_of


def error_of(F: Any, f: Any, domain: Any, peak: Any = None) -> float:
    """Largest error at random points, ends and around a peak, relative to the largest value there."""
    points = points_of(domain, peak)
    true = f(*points)
    return float(np.abs(F.at(*points) - true).max() / np.abs(true).max())


def integral(F: Any) -> float:
    total = F.core
    for mode, factor in zip(F.modes, F.factors, strict=True):
        total = np.tensordot(mode.integral(factor) @ factor, total, axes=1)
    return float(total)


def cosine(x: Any, y: Any, z: Any) -> Any:
    return np.cos(x + y * z)


def one_cosine(x: float, y: float, z: float) -> float:
    return math.cos(x + y * z)


# --- errors and evaluations -------------------------------------------------------------------------------


@pytest.mark.parametrize("tol", [1e-6, 1e-10, 1e-13])
@pytest.mark.parametrize("name", EIGHT)
def test_eight_functions_keep_the_tolerance_and_the_number_of_evaluations(name: str, tol: float) -> None:
    f, domain, allowed, peak = EIGHT[name]
    F = quietly(chebyshev_tucker, f, domain, tol)
    assert F.info.converged
    assert_below(F.info.rel_error, tol, "residual")
    assert_below(error_of(F, f, domain, peak), 2 * tol, "error")
    assert_below(F.info.n_evals, allowed, "evaluations")
    numbers = np.prod(F.rank) + sum(k * r for k, r in zip(F.coef_shape, F.rank, strict=True))
    assert_below(F.info.n_evals, 1000 + 4 * numbers, "evaluations by the numbers of the result")


@pytest.mark.parametrize("seed", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_rounding_errors_as_large_as_the_tolerance_are_not_multiplied_by_the_rows_of_the_core(
    seed: int,
) -> None:
    f, domain, allowed, peak = EIGHT["tanh5"]  # rows of former rounds alone left 24 tolerances with seed 2
    F = quietly(chebyshev_tucker, f, domain, 1e-13, random_state=seed)
    assert F.info.converged
    assert_below(error_of(F, f, domain, peak), 1e-13, "error")
    assert_below(F.info.n_evals, allowed, "evaluations")


def test_rounding_errors_above_the_tolerance_are_no_kink() -> None:
    f, domain, _, peak = EIGHT["tanh5"]
    F = quietly(chebyshev_tucker, f, domain, 1e-15)
    assert F.info.converged is False
    assert "rounding errors" in F.info.reason
    assert_below(error_of(F, f, domain, peak), 1e-13, "error")


@pytest.mark.slow
def test_forty_functions_have_their_integrals_to_1e_12_from_100_000_evaluations() -> None:
    spent = 0
    for name, (f, exact) in FORTY.items():
        F = chebyshev_tucker(f, UNIT, 1e-13)
        assert F.info.converged, name
        largest = float(np.abs(f(*points_of(UNIT, count=1000))).max())
        assert_below(abs(integral(F) - exact), 1e-12 * largest, f"integral of {name}")
        assert_below(error_of(F, f, UNIT), 1e-12, f"error of {name}")
        spent += F.info.n_evals
    assert_equal(len(FORTY), 40)
    assert_below(spent, 100_000, "evaluations")


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 6])
def test_functions_of_one_to_six_variables(d: int) -> None:
    def f(*x: Any) -> Any:
        return 1 / (2 + sum(x))

    F = chebyshev_tucker(f, [(0, 1)] * d, 1e-6)
    assert F.info.converged
    assert_equal(F.ndim, d)
    assert_below(error_of(F, f, [(0, 1)] * d), 2e-6, "error")


@pytest.mark.parametrize(
    ("f", "want"),
    [
        (lambda *_: 3.0, (1, 1, 1)),
        (lambda x, *_: np.exp(x), (1, 1, 1)),
        (lambda *x: np.sin(x[1] * x[2]), (1, 5, 5)),
    ],
)
def test_few_variables_are_seen_as_such(f: Any, want: tuple[int, ...]) -> None:
    F = chebyshev_tucker(f, CUBE, 1e-10)
    assert_equal(F.rank, want)
    if want == (1, 1, 1):
        assert_below(F.info.n_evals, 499, "evaluations")


def test_zero_is_zero() -> None:
    F = chebyshev_tucker(lambda *x: 0 * x[0], CUBE[:2])
    assert F.info.converged
    assert_equal(F.at([0.1, 0.5], [0.2, -0.3]), np.zeros(2))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_the_function_does_not_matter(scale: float) -> None:
    plain = chebyshev_tucker(cosine, CUBE)
    F = chebyshev_tucker(lambda *x: scale * cosine(*x), CUBE)
    assert_equal((F.rank, F.coef_shape, F.info.n_evals), (plain.rank, plain.coef_shape, plain.info.n_evals))
    points = points_of(CUBE, count=500)
    assert_below(np.abs(F.at(*points) / scale - plain.at(*points)).max(), 1e-12, "difference")


@pytest.mark.parametrize("width", [1e-12, 1e12])
def test_the_scale_of_the_domain_does_not_matter(width: float) -> None:
    F = chebyshev_tucker(lambda x, y, z: cosine(x / width, y / width, z / width), [(0, width)] * 3)
    plain = chebyshev_tucker(cosine, UNIT)
    points = points_of(UNIT, count=500)
    assert_below(np.abs(F.at(*(width * points)) - plain.at(*points)).max(), 1e-10, "difference")


def test_the_same_seed_gives_the_same_object() -> None:
    a, b, c = (chebyshev_tucker(cosine, CUBE, random_state=seed) for seed in (3, 3, 4))
    for got, want in zip([a.core, *a.factors], [b.core, *b.factors], strict=True):
        assert_equal(got, want)
    assert_above(np.abs(c.at(0.3, 0.2, 0.1) - a.at(0.3, 0.2, 0.1)), 1e-18, "difference of two seeds")
    assert_equal(a.info.random_state, 3)


def test_factors_are_orthonormal() -> None:
    F = chebyshev_tucker(cosine, CUBE)
    for factor in F.factors:
        assert_below(np.abs(factor.T @ factor - np.eye(factor.shape[1])).max(), 1e-14, "distance from I")


# --- what it cannot do ------------------------------------------------------------------------------------


def peak(x: Any, y: Any, z: Any) -> Any:
    return 1e5 / (1 + 1e5 * ((x - 0.31) ** 2 + (y + 0.42) ** 2 + (z - 0.53) ** 2))


def cusp(x: Any, y: Any, z: Any) -> Any:
    return np.exp(-np.sqrt(x * x + y * y + z * z))


REFUSED = {
    "cusp": cusp,
    "cusp off the middle": lambda x, y, z: cusp(x - 0.3, y + 0.21, z - 0.77),
    "|x - y|": lambda x, y, _: np.abs(x - y),
    "pole": lambda x, y, z: 1 / (x + y + 0.123 + z * z),
    "step": lambda x, y, z: (x + y * z > 0.1) * 1.0,
    "peak": peak,
    "peak on a smooth ground": lambda x, y, z: np.cos(x + y + z) + 1e-5 * peak(x, y, z),
    "noise": lambda x, y, z: np.cos(x) + 1e-9 * np.sin(1e8 * x * (y + 2) * (z + 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_smooth_never_counts_as_converged(name: str) -> None:
    for seed in (0, 1) if name in ("step", "pole") else (0,):
        with pytest.warns(ConvergenceWarning) as caught:
            F = chebyshev_tucker(REFUSED[name], CUBE, 1e-10, max_evals=200_000, random_state=seed)
        assert not F.info.converged
        assert_below(F.info.n_evals, 200_000, "evaluations")
        assert_above(F.info.rel_error, 1e-10, "residual")
        assert_says(caught[0].message, "mode", "Split the domain", "raise tol")


def test_a_kink_is_named_with_its_mode_and_place() -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        F = chebyshev_tucker(lambda x, y: np.abs(y - 2.5) * np.exp(x), [(0, 1), (2, 4)])
    assert_says(caught[0].message, "mode 1 needs a degree above 2048 (near 2.5")
    assert_equal(F.info.warnings, (str(caught[0].message),))
    assert "mode 0" not in F.info.reason


def test_a_kink_of_little_height_is_approximated() -> None:
    F = chebyshev_tucker(cusp, CUBE, 2e-2)
    assert F.info.converged
    assert_below(error_of(F, cusp, CUBE), 4e-2, "error")


def test_a_hint_finds_a_peak_that_would_be_missed() -> None:
    def f(x: Any, y: Any, z: Any) -> Any:
        return x + 2 * np.exp(-2e4 * ((x - 0.437) ** 2 + (y + 0.211) ** 2 + (z - 0.618) ** 2))

    blind = quietly(chebyshev_tucker, f, CUBE, 1e-6)
    F = chebyshev_tucker(f, CUBE, 1e-6, hints=[[0.437, -0.211, 0.618]])
    assert F.info.converged
    assert_below(error_of(F, f, CUBE, (0.437, -0.211, 0.618)), 2e-6, "error with the hint")
    assert_above(error_of(blind, f, CUBE, (0.437, -0.211, 0.618)), 0.1, "error without")


@pytest.mark.parametrize("max_evals", [1, 50, 3000])
def test_the_limit_of_evaluations_is_kept(max_evals: int) -> None:
    with pytest.warns(ConvergenceWarning, match=f"max_evals={max_evals} reached"):
        F = chebyshev_tucker(EIGHT["cosh3"][0], CUBE, max_evals=max_evals)
    assert_below(F.info.n_evals, max_evals, "evaluations")
    assert np.isfinite(F.at(0.1, 0.2, 0.3))


def test_a_small_limit_of_the_degree_is_kept() -> None:
    with pytest.warns(ConvergenceWarning, match="mode 0 needs a degree above 16"):
        F = chebyshev_tucker(lambda x: np.sin(50 * x), [(0, 1)], max_degree=20)
    assert_below(F.coef_shape[0], 17, "coefficients")


# --- functions as users write them ------------------------------------------------------------------------


def test_scalar_functions_pools_and_integers_give_the_same_as_arrays() -> None:
    want = chebyshev_tucker(cosine, CUBE)
    scalar = chebyshev_tucker(lambda x, y, z: float(np.cos(x + y * z)), CUBE, vectorized=False)
    with ThreadPoolExecutor(2) as pool:
        parallel = chebyshev_tucker(cosine, CUBE, executor=pool)
    for F in (scalar, parallel):
        assert_equal(F.info.n_evals, want.info.n_evals)
        assert_below(np.abs(F.core - want.core).max(), 1e-13, "difference")
    whole = chebyshev_tucker(lambda x, _: np.full(x.shape, 7), CUBE[:2])
    assert_below(abs(whole.at(0.3, 0.1) - 7), 1e-13, "difference")


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_object() -> None:
    want = chebyshev_tucker(cosine, CUBE, tol=1e-8)
    context = multiprocessing.get_context("spawn")  # threads of linear algebra do not survive a fork
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for f, vectorized in ((cosine, True), (one_cosine, False)):
            F = chebyshev_tucker(f, CUBE, tol=1e-8, vectorized=vectorized, executor=pool)
            assert_equal((F.rank, F.modes, F.info.n_evals), (want.rank, want.modes, want.info.n_evals))
            for got, same in zip((F.core, *F.factors), (want.core, *want.factors), strict=True):
                assert_close(got, same, 1 if vectorized else 1e4)


CORNERS = [
    (lambda x, y, z: np.maximum(x - 0.5 * y + 0.8 * z, 0) ** 4, 3, 1e-5),
    (lambda a, b, c, d: 1 / (2 + a * b * c * d + 0.99 * b), 4, 1e-4),
]


@pytest.mark.parametrize(("f", "d", "tol"), CORNERS)
def test_errors_at_corners_and_faces_are_found_before_a_result_counts(f: Any, d: int, tol: float) -> None:
    F = chebyshev_tucker(f, [(-1, 1)] * d, tol, random_state=2)  # was 9 and 7 times tol, of converged ones
    points = np.random.default_rng(1).uniform(-1, 1, (16_000, d))
    ends = points[:8000]
    ends[np.random.default_rng(2).random(ends.shape) < 0.5] = 1.0
    ends *= np.random.default_rng(3).choice([-1.0, 1.0], ends.shape)
    true = f(*points.T)
    assert_equal(F.info.converged, True)
    assert_below(np.abs(F.at(*points.T) - true).max() / np.abs(true).max(), 2 * tol, "error")


@pytest.mark.parametrize(("scale", "part"), [(1e-200, "must reach 1e-120"), (1e200, "must be below 1e+140")])
@pytest.mark.parametrize("d", [1, 3, 5])
def test_functions_whose_squares_are_no_numbers_are_refused(scale: float, part: str, d: int) -> None:
    with pytest.raises(DataError) as caught:  # 1e-200 was returned as zero, converged
        chebyshev_tucker(lambda *x: scale * np.exp(sum(x)), [(0, 1)] * d)
    assert_says(caught, part, "Divide f by")


def test_without_an_evaluation_the_error_is_not_known() -> None:
    F = quietly(chebyshev_tucker, cosine, CUBE, max_evals=1)
    assert_equal((F.info.converged, F.info.n_evals, F.info.rel_error), (False, 0, math.inf))


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_function_of_single_numbers_is_told_of_vectorized(kind: Any) -> None:
    f = (lambda x, y: math.sin(x) * y) if kind is TypeError else (lambda x, y: x if x > y else y)
    with pytest.raises(kind) as caught:
        chebyshev_tucker(f, CUBE[:2])
    assert_says(" ".join(caught.value.__notes__), "2 arrays of shape (", "vectorized=False")


BAD_F = [
    (lambda x, y: np.sum(x * y), ShapeError, ("one number per point", "for others")),
    (lambda x, y: np.ma.masked_where(x > 0.5, x * y), DataError, ("finite", "nan at (")),
    (lambda x, _: np.ones((len(x), 2)), ShapeError, ("shape (", "vectorized=False")),
    (lambda x, _: x + 1j, DataError, ("real numbers", "complex")),
    (lambda x, _: np.array(["a"] * len(x)), DataError, ("real numbers", "dtype")),
    (lambda x, _: np.where(x > 0.9, np.nan, x), DataError, ("finite", "nan at (0.9")),
    (lambda x, y: np.where(y > 0.9, np.inf, x), DataError, ("finite", "inf at (")),
]


@pytest.mark.parametrize(("f", "error", "parts"), BAD_F)
def test_values_that_are_no_finite_numbers_are_refused(f: Any, error: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(error) as caught:
        chebyshev_tucker(f, CUBE[:2])
    assert_says(caught, "chebyshev_tucker", *parts)


BAD = [
    ({"domain": (-1, 1)}, ShapeError, "`domain` must be a sequence of intervals"),
    ({"domain": []}, ShapeError, "`domain`"),
    ({"domain": [(1, 1)]}, DataError, "a < b"),
    ({"domain": [(2, 1)]}, DataError, "a < b"),
    ({"domain": [(0, np.inf)]}, DataError, "finite"),
    ({"tol": 1e-17}, DataError, "float64"),
    ({"tol": 2}, DataError, "tol"),
    ({"max_evals": 0}, DataError, "max_evals"),
    ({"max_degree": 3.5}, DataError, "max_degree"),
    ({"hints": [[0, 0]]}, ShapeError, "(N, 1)"),
    ({"hints": [[3]]}, DataError, "must lie in the domain"),
]


@pytest.mark.parametrize(("changed", "error", "part"), BAD)
def test_bad_arguments_are_refused_before_the_function_is_called(changed: Any, error: Any, part: str) -> None:
    def never(x: Any) -> Any:
        raise AssertionError("called")

    with pytest.raises(error) as caught:
        chebyshev_tucker(never, **{"domain": [(0, 1)], **changed})
    assert_says(caught, "chebyshev_tucker", part)


def test_no_warning_of_numpy_is_left_when_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chebyshev_tucker(cosine, CUBE).info.converged


def test_hints_are_carried_from_the_domain_to_the_cube() -> None:
    evaluator = SimpleNamespace(low=np.array([0.0, 1.0]), high=np.array([2.0, 5.0]))
    points = build._hints([[0.5, 4.0], [0.0, 5.0]], evaluator)
    assert_close(points, np.array([[-0.5, 0.5], [-1.0, 1.0]]))
    assert_equal(build._hints(None, evaluator).shape, (0, 2))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_last_cut_spends_what_the_residual_leaves(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    spent, tol = [], 1e-4
    monkeypatch.setattr(
        build, "shortened", lambda core, made, budget, _: (spent.append(budget), (core, made, 0.0))[1]
    )
    for share in (0.0, 0.5, 0.8, 0.95, 2.0):
        cross = SimpleNamespace(
            tol=tol, residual=share * tol * scale, scale=scale, axes=[SimpleNamespace(factor=np.ones((2, 1)))]
        )
        cross.core = SimpleNamespace(shape=(1,), entries=np.ones(1))
        cross.evaluate = SimpleNamespace(place=np.zeros(1))
        build._finished(cross, [(0.0, 1.0)])
        assert_below(spent[-1], 1.001 * max(1 - share, 0.1) * tol * scale, "budget")
        assert_below(spent[-1], 0.5 * tol * scale, "budget, of which the core needs the other half")
        assert_above(spent[-1], 0.99 * max(min(1 - share, 0.2), 0.1) * tol * scale, "budget")


def test_the_hardest_mode_is_named_with_its_degree() -> None:
    axes = [SimpleNamespace(level=level, size=size) for level, size in ((3, 9), (5, 33), (4, 17))]
    assert_says(build._stalled(SimpleNamespace(ndim=3, axes=axes)), "mode 1 is the hardest, degree 32")


def test_of_five_variables_the_smaller_format_is_returned() -> None:
    few = chebyshev_tucker(lambda *x: np.exp(x[0] * x[4]) * x[2], [(0, 1)] * 5, 1e-4)
    many = chebyshev_tucker(lambda *x: 1 / (1 + sum(k * v for k, v in enumerate(x))), [(0, 1)] * 5, 1e-4)
    assert isinstance(few, Tucker)
    assert isinstance(many, TuckerTrain)
    assert_below(many.n_params, many.to_tucker().n_params, "numbers of the train")
    assert_below(few.core.size, 30, "numbers of the core")
    for F in (few, many):
        assert_equal(F.info.converged, True)


def test_what_the_last_cut_loses_is_part_of_the_reported_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build._finished
    monkeypatch.setattr(build, "_finished", lambda cross, box: (plain(cross, box)[0], 0.25 * cross.scale))
    info = quietly(chebyshev_tucker, cosine, UNIT).info
    assert_above(info.rel_error, 0.25, "reported error")
    assert_equal(info.converged, False)


def test_what_cannot_be_called_with_one_argument_per_interval_is_refused() -> None:
    box = [(1.0, 2.0)] * 2
    with pytest.raises(TypeError) as error:
        chebyshev_tucker(np.ones((3, 3)), box)
    assert_says(error, "function of 2 variables", "ndarray", "chebyshev_from_grid")
    for f in (lambda x: x, lambda x, y, z: x + y + z, lambda x, y, *, z: x + y + z):
        with pytest.raises(ShapeError) as error:
            chebyshev_tucker(f, box)
        assert_says(error, "one argument per interval", "2", "one interval per variable")
    F = chebyshev_tucker(np.hypot, box, 1e-8)  # has no signature
    assert_below(abs(F.at(1.2, 1.7) - np.hypot(1.2, 1.7)), 1e-7, "error")


def test_the_smallest_options_and_hints_on_the_edge_are_taken() -> None:
    box = [(0.0, 2.0), (-1.0, 1.0)]
    F = quietly(chebyshev_tucker, lambda x, y: x + y, box, 1e-15, hints=[0.0, 1.0], max_degree=16)
    assert_close(F.at(0.7, -0.2), 0.5, 1e3)
    for changed in (
        {"tol": 0.99e-15},
        {"tol": 1.0},
        {"max_degree": 15},
        {"max_evals": 0},
        {"max_evals": True},
    ):
        with pytest.raises(DataError):
            chebyshev_tucker(lambda x, y: x + y, box, **changed)
    for hints in ([[-1e-9, 0.0]], [[2.1, 0.0]], [[0.1, 0.2], [1.0, 1.5]]):
        with pytest.raises(DataError) as error:
            chebyshev_tucker(lambda x, y: x + y, box, hints=hints)
        assert_says(error, "hints", str(hints[-1]))


@pytest.mark.parametrize("largest", [1.1e-120, 0.9e-120])
def test_the_smallest_values_whose_squares_are_numbers(largest: float) -> None:
    if largest > 1e-120:
        F = chebyshev_tucker(lambda x: largest * x, [(-1, 1)])
        assert_close(F.at(0.5) / largest, 0.5, 1e3)
    else:
        with pytest.raises(DataError, match="must reach 1e-120"):
            chebyshev_tucker(lambda x: largest * x, [(-1, 1)])
