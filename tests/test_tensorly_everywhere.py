"""TensorLy's tensors at every public door: where a format may stand they do, elsewhere what to give is said.

Every public name stands in one of three tables below. A new one is declared here by whoever adds it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorly.cp_tensor import CPTensor
from tensorly.tt_tensor import TTTensor
from tensorly.tucker_tensor import TuckerTensor

import tenfac
from tenfac.core.arrays import tensorly_backend
from tests.checks import assert_close, assert_equal, assert_says, to_numpy

SHAPE = (4, 5, 3)
POINTS = [np.linspace(0.0, 1.0, size) for size in SHAPE]
KINDS = ("TuckerTensor", "CPTensor", "TTTensor", "(core, factors)", "(weights, factors)", "(None, factors)")


def theirs(kind: str, array: Callable[[Any], Any]) -> Any:
    """One tensor as TensorLy holds it."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return array(rng.standard_normal(shape))

    with tensorly_backend(draw(1)):  # as a user of that backend made it; the calls below are made without it
        return _held(kind, draw)


def _held(kind: str, draw: Callable[..., Any]) -> Any:
    factors = [draw(size, 2) for size in SHAPE]
    if kind == "TTTensor":
        return TTTensor([draw(1, 4, 2), draw(2, 5, 2), draw(2, 3, 1)])
    if kind in ("TuckerTensor", "(core, factors)"):
        pair = (draw(2, 2, 2), factors)
        return TuckerTensor(pair) if kind == "TuckerTensor" else pair
    pair = (None if kind.startswith("(None") else draw(2) + 3, factors)
    return CPTensor(pair) if kind == "CPTensor" else pair


def dense_of(tensor: Any) -> np.ndarray:
    """The array it stands for, by einsum."""
    if isinstance(tensor, TTTensor):
        a, b, c = map(to_numpy, tensor)
        return np.einsum("aib,bjc,ckd->ijk", a, b, c)
    first, factors = tensor
    first = np.ones(2) if first is None else first
    letters = "a,ia,ja,ka->ijk" if first.ndim == 1 else "abc,ia,jb,kc->ijk"
    return np.einsum(letters, to_numpy(first), *map(to_numpy, factors))


@functools.cache
def _other() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPE)


def other(t: Any) -> tenfac.Tucker:
    """Another tensor, ours, of their library."""
    held = t[0] if isinstance(t, TTTensor) else t[1][0]
    array = _other() if isinstance(held, np.ndarray) else pytest.importorskip("torch").from_numpy(_other())
    return tenfac.tucker(array, rank=SHAPE)


def whole(t: Any) -> Any:
    return tenfac.from_tensorly(t).to_tensor()


def saved(t: Any, folder: Path) -> Any:
    tenfac.save(t, folder / "t.tenfac")
    return tenfac.load(folder / "t.tenfac").to_tensor()


def heights(ax: Any) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata()) for line in ax.lines]


def drawn(t: Any, fixed: dict[int, int]) -> np.ndarray:
    return heights(tenfac.plot.function_slice(t, fixed, Figure().subplots()))[0]


def unfolded_heights(X: np.ndarray) -> list[np.ndarray]:
    """Singular values of the unfoldings, over the largest."""
    found = [
        np.linalg.svd(np.moveaxis(X, n, 0).reshape(s, -1), compute_uv=False) for n, s in enumerate(SHAPE)
    ]
    largest = max(values[0] for values in found)
    return [values / largest for values in found]


def appended(t: Any) -> Any:
    new = whole(t)[:2]
    return tenfac.tucker_append(t, new, 0, tol=1e-12).to_tensor()


def continued(data: Any) -> np.ndarray:
    """A function through the values on a grid, at other places."""
    nodes = [tenfac.Chebyshev(size, (0.0, 1.0)).nodes() for size in SHAPE]
    with warnings.catch_warnings():  # the grid is too coarse to resolve random numbers
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        return tenfac.chebyshev_from_grid(data, nodes, 1e-12).on_grid(*POINTS)


# What takes a format: the door, the call, and the answer from the dense array.
FORMATS: dict[str, tuple[Callable[..., Any], Callable[[np.ndarray], Any]]] = {
    "from_tensorly": (lambda t: tenfac.from_tensorly(t).to_tensor(), lambda X: X),
    "Tucker: t + theirs": (lambda t: (other(t) + t).to_tensor(), lambda X: _other() + X),
    "Tucker: theirs + t": (lambda t: (t + other(t)).to_tensor(), lambda X: _other() + X),
    "Tucker: t - theirs": (lambda t: (other(t) - t).to_tensor(), lambda X: _other() - X),
    "Tucker: theirs - t": (lambda t: (t - other(t)).to_tensor(), lambda X: X - _other()),
    "Tucker: t * theirs": (lambda t: (other(t) * t).to_tensor(), lambda X: _other() * X),
    "Tucker: theirs * t": (lambda t: (t * other(t)).to_tensor(), lambda X: _other() * X),
    "Tucker: t.inner(theirs)": (lambda t: other(t).inner(t), lambda X: (_other() * X).sum()),
    "CP: t + theirs": (lambda t: (tenfac.cp(whole(t), 1) * 0 + t).to_tensor(), lambda X: X),
    "TuckerTrain: t + theirs": (lambda t: (other(t).to_train() + t).to_tensor(), lambda X: _other() + X),
    "numpy.add": (lambda t: np.add(other(t), t).to_tensor(), lambda X: _other() + X),
    "chebyshev_from_grid": (continued, continued),
    "plot.function_slice": (
        lambda t: heights(tenfac.plot.function_slice(t, {0: 0, 1: 1}))[0],
        lambda X: X[0, 1],
    ),
    "to_torch": (lambda t: tenfac.to_torch(t)(*np.ogrid[:4, :5, :3]), lambda X: X),
    "to_xarray": (lambda t: tenfac.to_xarray(t).values, lambda X: X),
    "tucker_append": (appended, lambda X: np.concatenate([X, X[:2]])),
    "tucker_cross": (lambda t: tenfac.tucker_cross(t, SHAPE, 1e-12).to_tensor(), lambda X: X),
}
SPECIAL = ("save", "plot.singular_values")  # tested below in their own way
OF_ONE_KIND = {
    "align": ("CP", lambda t: tenfac.align(t, t).to_tensor(), lambda X: X),
    "factor_match_score": ("CP", lambda t: tenfac.factor_match_score(t, t), lambda _: 1.0),
    "corcondia: cp": ("CP", lambda t: tenfac.corcondia(whole(t), t) / 100, lambda _: 1.0),
    "cp: init": ("CP", lambda t: tenfac.cp(whole(t), 2, init=t).to_tensor(), lambda X: X),
    "hooi: init": (
        "Tucker",
        lambda t: tenfac.hooi(whole(t), 2, init=t).to_tensor(),
        lambda X: X,
    ),
}
# What takes arrays, tables or points: it refuses, and says what to give.
MATRICES = [np.eye(size) for size in SHAPE]
SAYS = "to_tensor()"
ARRAYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "tucker": (lambda t: tenfac.tucker(t, 2), SAYS),
    "hooi": (lambda t: tenfac.hooi(t, 2), SAYS),
    "randomized_tucker": (lambda t: tenfac.randomized_tucker(t, 2), SAYS),
    "cp": (lambda t: tenfac.cp(t, 2), SAYS),
    "cp_scree": (lambda t: tenfac.cp_scree(t, [1]), SAYS),
    "corcondia": (lambda t: tenfac.corcondia(t, (None, [np.ones((size, 1)) for size in SHAPE])), SAYS),
    "cp_complete": (lambda t: tenfac.cp_complete(t, 2), SAYS),
    "tucker_complete": (lambda t: tenfac.tucker_complete(t, 2), SAYS),
    "tucker_nonnegative": (lambda t: tenfac.tucker_nonnegative(t, 2), SAYS),
    "tucker_append: X_new": (lambda t: tenfac.tucker_append(tenfac.tucker(_other(), 2), t, 0, rank=2), SAYS),
    "TuckerTransformer": (lambda t: tenfac.TuckerTransformer(2).fit(t), SAYS),
    "unfold": (lambda t: tenfac.unfold(t, 0), SAYS),
    "fold": (lambda t: tenfac.fold(t, 0, SHAPE), SAYS),
    "mode_product": (lambda t: tenfac.mode_product(t, MATRICES[0], 0), SAYS),
    "multi_mode_product": (lambda t: tenfac.multi_mode_product(t, MATRICES), SAYS),
    "khatri_rao": (tenfac.khatri_rao, "factors"),
    "kronecker": (tenfac.kronecker, "factors"),
    "nearest_kronecker": (lambda t: tenfac.nearest_kronecker(t, [(2, 2), (2, 2)]), SAYS),
    "KroneckerOperator": (tenfac.KroneckerOperator, "factors"),
    "KroneckerOperator: K @ t": (lambda t: tenfac.KroneckerOperator(*MATRICES) @ t, SAYS),
    "KroneckerSBL": (lambda t: tenfac.KroneckerSBL().fit(MATRICES, t), SAYS),
    "kron_omp": (lambda t: tenfac.kron_omp(MATRICES, t, noise=0.1), SAYS),
    "kronecker_log_evidence": (
        lambda t: tenfac.kronecker_log_evidence(MATRICES, t, [np.ones(size) for size in SHAPE], 1.0),
        SAYS,
    ),
    "FunctionalTucker": (lambda t: tenfac.FunctionalTucker().fit(t, np.ones(4)), SAYS),
    "FunctionalTucker: y": (lambda t: tenfac.FunctionalTucker().fit(np.ones((4, 2)), t), SAYS),
    "chebyshev_from_points": (lambda t: tenfac.chebyshev_from_points(t, np.ones(4)), SAYS),
    "from_xarray": (tenfac.from_xarray, "xarray.DataArray"),
    "compose": (lambda t: tenfac.compose(np.exp, t), SAYS),
    "split": (lambda t: tenfac.split(t, 2), "continuous mode"),
    "plot.coefficient_decay": (tenfac.plot.coefficient_decay, "Chebyshev"),
}
# What takes no tensor: classes of errors and modes, torch layers and models, files, functions, point charges.
NEITHER = (
    "CP Chebyshev ConvergenceWarning DataError Discrete Electrostatics GaussianBasis GP MissingExtraError "
    "Patches RankError Report ShapeError ShiftedKronecker SumOfKronecker Tucker TuckerTrain activate adapt "
    "adapter_report chebyshev_tucker compensate compress datasets detach disable export_lycoris export_peft "
    "gaussian_sum import_lycoris import_peft load load_adapter merge nuts plot.calibration "
    "plot.mode_function plot.mode_functions plot.report pyro_model read_charges save_adapter svi "
    "tucker_adapter unmerge"
)


def library_of(name: str) -> Callable[[Any], Any]:
    return np.asarray if name == "numpy" else pytest.importorskip("torch").from_numpy


@pytest.fixture(params=["numpy", "torch"])
def array(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Makes an array of a library; TensorLy's own default stays numpy."""
    return library_of(request.param)


@pytest.mark.parametrize("door", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_theirs_stands_where_a_format_may_and_gives_the_answer_of_the_dense_tensor(
    kind: str, door: str, array: Callable[[Any], Any]
) -> None:
    call, answer = FORMATS[door]
    t = theirs(kind, array)
    assert_close(to_numpy(call(t)), np.asarray(answer(dense_of(t))), 1e4)


@pytest.mark.parametrize("door", OF_ONE_KIND)
@pytest.mark.parametrize("kind", KINDS)
def test_what_needs_one_kind_takes_theirs_of_that_kind_and_names_it_otherwise(
    kind: str, door: str, array: Callable[[Any], Any]
) -> None:
    needed, call, answer = OF_ONE_KIND[door]
    t = theirs(kind, array)
    if isinstance(tenfac.from_tensorly(t), getattr(tenfac, needed)):
        assert_close(to_numpy(call(t)), np.asarray(answer(dense_of(t))), 1e4)
    else:
        with pytest.raises((TypeError, tenfac.ShapeError)) as error:
            call(t)
        assert_says(error, needed)


@pytest.mark.parametrize("door", ARRAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_where_theirs_cannot_stand_the_error_says_what_to_give(kind: str, door: str) -> None:
    call, said = ARRAYS[door]
    with pytest.raises((TypeError, ValueError)) as error:
        call(theirs(kind, np.asarray))
    assert_says(error, said)


@pytest.mark.parametrize("kind", KINDS)
def test_theirs_is_saved_and_drawn(kind: str, array: Callable[[Any], Any], tmp_path: Path) -> None:
    t = theirs(kind, array)
    assert_close(to_numpy(saved(t, tmp_path)), dense_of(t))
    for got, want in zip(
        heights(tenfac.plot.singular_values(t, Figure().subplots())),
        unfolded_heights(dense_of(t)),
        strict=True,
    ):
        assert_close(got, want[: len(got)], 1e3)


def test_every_public_name_says_whether_it_takes_tensors() -> None:
    doors = {*FORMATS, *SPECIAL, *OF_ONE_KIND, *ARRAYS}
    declared = {door.partition(":")[0] for door in doors} | set(NEITHER.split())
    public = set(tenfac.__all__) - {"plot"} | {f"plot.{name}" for name in tenfac.plot.__all__}
    assert_equal(sorted(declared - {"numpy.add"}), sorted(public))
