"""What a newcomer's slip is told, the same way at every door: names, orders of arguments, wrong kinds."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import tenfac
from tests.checks import assert_equal, assert_relative, assert_says, quietly

X = np.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("tuker", "tucker"),
        ("KroneckerSbl", "KroneckerSBL"),
        ("functional_tucker", "FunctionalTucker"),
        ("Tuker", "Tucker"),
    ],
)
def test_a_misspelled_name_of_the_package_is_told_the_nearest(slip: str, meant: str) -> None:
    with pytest.raises(AttributeError) as error:
        getattr(tenfac, slip)
    assert_says(error, slip, f"Did you mean {meant!r}?")


def test_a_name_like_no_other_is_told_nothing_more() -> None:
    with pytest.raises(AttributeError) as error:
        tenfac.zzz  # noqa: B018
    assert_equal(str(error.value), "module 'tenfac' has no attribute 'zzz'.")


@pytest.mark.parametrize(
    "call",
    [
        lambda: tenfac.cp(X, 1, verbose=7),
        lambda: tenfac.FunctionalTucker(verbose=7).fit([[0.0], [1.0]], [0.0, 1.0]),
        lambda: tenfac.KroneckerSBL(verbose=7).fit([np.eye(2), np.eye(3)], np.ones((2, 3))),
    ],
    ids=["cp", "FunctionalTucker", "KroneckerSBL"],
)
def test_verbose_is_refused_in_the_same_words_at_every_door(call: Callable[[], Any]) -> None:
    with pytest.raises(tenfac.DataError) as error:
        call()
    assert_says(error, "`verbose` must be 0 (silence), 1 (a progress bar) or 2 (a line per stage); got 7.")


def test_a_rank_that_is_text_is_not_read_letter_by_letter() -> None:
    with pytest.raises(tenfac.RankError) as error:
        tenfac.tucker(X, rank="234")
    assert_says(error, "one int per mode; got str")


@pytest.mark.parametrize(
    ("f", "kind", "parts"),
    [
        (X, TypeError, ("must be a function of 3 variables", "got ndarray", "chebyshev_from_grid")),
        (lambda x, y: x * y, tenfac.ShapeError, ("one argument per interval", "3", "(x, y)")),
    ],
    ids=["array", "two arguments"],
)
def test_what_cannot_be_called_on_the_domain_is_refused(f: Any, kind: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        tenfac.chebyshev_tucker(f, [(0, 1)] * 3)
    assert_says(error, *parts)


def test_save_tells_the_order_of_its_arguments_and_who_saves_what_it_does_not(tmp_path: Path) -> None:
    t = tenfac.tucker(X, rank=1)
    for wrong, path, part in ((str(tmp_path / "t"), t, "save(obj, path)"), (X, tmp_path / "t", "numpy.save")):
        with pytest.raises(tenfac.DataError) as error:
            tenfac.save(wrong, path)
        assert_says(error, part)
    with pytest.raises(FileNotFoundError) as missing:
        tenfac.save(t, tmp_path / "none" / "t")
    assert_says(missing, "no folder", str(tmp_path / "none"), "Make it first")


def test_adapters_are_sent_to_their_own_save_and_load(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer, path = tenfac.tucker_adapter(torch.nn.Linear(8, 8), rank=1), tmp_path / "a.safetensors"
    with pytest.raises(tenfac.DataError) as error:
        tenfac.save(layer, path)
    assert_says(error, "tenfac.save_adapter")
    tenfac.save_adapter(layer, path)
    with pytest.raises(tenfac.DataError) as error:
        tenfac.load(path)
    assert_says(error, "load_adapter(model, path)")
    with pytest.raises(tenfac.DataError) as error:
        tenfac.load_adapter(path, layer)
    assert_says(error, "load_adapter: `model` must be", "The model comes first")
    for model, file, name in ((path, layer, "model"), (layer, layer, "path")):
        said = refusal(lambda model=model, file=file: tenfac.save_adapter(model, file), tenfac.DataError)
        assert_says(said, f"save_adapter: `{name}` must", "The model comes first")


def test_a_column_that_is_not_there_is_told_in_whole_sentences() -> None:
    model = tenfac.FunctionalTucker(max_iter=0).fit({"time": [0.0, 1.0, 2.0]}, [0.0, 1.0, 0.5])
    with pytest.raises(tenfac.DataError) as error:
        model.predict({"tim": [0.5]})
    assert_says(error, "no column 'time'. Did you mean tim? Its columns are tim.")


# --- one wording at every door ----------------------------------------------------------------------------


def refusal(call: Callable[[], Any], kind: type[Exception]) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


K = tenfac.KroneckerOperator(np.array([[1.0, 0.5], [0.0, 1.0]]), np.eye(2))
F = tenfac.chebyshev_tucker(lambda x, y: np.exp(-x * y), [(0, 1), (0, 1)], tol=1e-6)
DOORS = [name for name in tenfac.__all__ if inspect.isfunction(getattr(tenfac, name))]


@pytest.mark.parametrize("name", DOORS)
def test_a_misspelled_argument_of_every_function_is_told_the_nearest(name: str) -> None:
    function = getattr(tenfac, name)
    parameters = list(inspect.signature(function).parameters.values())
    known = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    longest = max(known, key=len)
    given = [None] * sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    said = refusal(lambda: function(*given, **{longest + "z": 1}), TypeError)
    assert_says(said, f"{name}: unknown argument `{longest}z`. Did you mean", repr(longest))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tenfac.Tucker(X, [], inf=1), ("Tucker: unknown argument `inf`.", "'info'")),
        (lambda: tenfac.tucker(X, 1).round(tool=1), ("Tucker.round: unknown argument `tool`.", "'tol'")),
        (lambda: F.integrate(mode=1), ("Tucker.integrate: unknown argument `mode`.", "'modes'")),
        (lambda: K.solve(z=1), ("KroneckerOperator.solve: unknown argument `z`. Its arguments are y.",)),
        (lambda: tenfac.tucker(X, 1).at(1, 2, 3, check=1), ("Tucker.at: unknown", "It takes none by name.")),
        (lambda: tenfac.cp(), ("cp: needs `X`, `rank`. Its arguments are X, rank, ",)),
        (lambda: tenfac.tucker(X, X=X), ("tucker: `X` was given twice", "Leave one of them out.")),
        (lambda: tenfac.tucker(X, 1, 0.1), ("tucker: takes 2 by position (X, rank); got 3.", "tol=")),
        (lambda: tenfac.tucker(X.tolist(), 1), ("tucker: expected an array", "numpy.asarray(x)")),
        (lambda: tenfac.cp("X.npy", 1), ("cp: expected an array", "numpy.load")),
        (lambda: K.solve([1.0] * 4), ("KroneckerOperator.solve: expected an array", "got list")),
        (lambda: tenfac.cp(X, 1, random_state="a"), ("cp: `random_state` must be an int",)),
        (lambda: tenfac.cp(X, 1, init="svd"), ("cp: `init` must be a CP tensor", "got svd", "n_init")),
        (lambda: tenfac.from_tensorly(3), ("needs a TuckerTensor", "got int")),
    ],
)
def test_a_call_that_does_not_fit_is_told_by_the_name_that_was_called(
    call: Callable[[], Any], parts: tuple[str, ...]
) -> None:
    assert_says(refusal(call, TypeError), *parts)


def test_what_is_public_is_pickled_by_the_name_it_is_called_by() -> None:
    for public in (tenfac.FunctionalTucker.predict, tenfac.Tucker.round, tenfac.tucker):
        assert_equal(pickle.loads(pickle.dumps(public)) is public, True)  # noqa: S301


def test_a_type_error_of_the_user_s_own_function_stays_as_it_is() -> None:
    said = refusal(lambda: tenfac.chebyshev_tucker(lambda x: dict(a=1, **{"a": x}), [(0, 1)]), TypeError)
    assert_says(said, "multiple values for keyword argument 'a'")


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: F + np.nan, ("must be finite and no larger than floats; got nan",)),
        (lambda: np.inf * F, ("must be finite and no larger than floats; got inf",)),
        (lambda: K * np.nan, ("must be finite and no larger than floats; got nan",)),
        (lambda: K.shifted(-1), ("KroneckerOperator.shifted: every factor must equal", "factors[0]")),
        (
            lambda: tenfac.compose(lambda x: x * np.nan, F),
            ("compose: the function of the formats must be finite",),
        ),
        (
            lambda: tenfac.compose(lambda x, y: x * y, F),
            ("compose: `function` must take one array per format, 1; got one with the arguments (x, y)",),
        ),
        (lambda: tenfac.compose(3, F), ("must take one array per format, 1; got int. The function",)),
        (lambda: tenfac.chebyshev_from_points(X[0][:0], X[0, 0][:0]), ("`X` must have rows",)),
        (
            lambda: tenfac.Electrostatics(np.eye(3), [1.0, -1.0, 1.0], kernel="yukwa"),
            ("Did you mean 'yukawa'?",),
        ),
        (lambda: tenfac.datasets.make_kronecker_sparse(values="rank"), ("Did you mean 'rank1'?",)),
        (lambda: tenfac.datasets.load_sample_image("chino"), ("Did you mean 'china'?",)),
    ],
)
def test_a_value_that_cannot_be_is_an_error_of_the_package(
    call: Callable[[], Any], parts: tuple[str, ...]
) -> None:
    said = refusal(call, (tenfac.DataError, tenfac.ShapeError))
    assert_says(said, *parts)


@pytest.mark.parametrize(
    "call",
    [
        lambda: (F - 0.9) ** -1,
        lambda: 1 / (F - 0.9),
        lambda: tenfac.cp(X, 2, max_iter=1, n_init=1),
        lambda: tenfac.chebyshev_from_grid(np.eye(5), [np.arange(5.0)] * 2),
    ],
    ids=["power", "division", "cp", "grid"],
)
def test_a_warning_points_at_the_line_of_the_user(call: Callable[[], Any]) -> None:
    with pytest.warns(tenfac.ConvergenceWarning) as said:
        call()
    assert_equal([one.filename for one in said], [__file__])


MADE = tenfac.datasets.make_kronecker_sparse((6, 6), 8, 2)
POINTS = np.random.default_rng(0).random((40, 2))


def few_iterations(likelihood: str, verbose: int) -> Any:
    model = tenfac.FunctionalTucker(max_iter=1, terms=(), likelihood=likelihood, verbose=verbose)
    return quietly(model.fit, POINTS[:12], POINTS[:12, 0])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("chebyshev_tucker", lambda v: tenfac.chebyshev_tucker(np.exp, [(0, 1)], verbose=v)),
        ("compose", lambda v: tenfac.compose(np.sqrt, F, tol=1e-4, verbose=v)),
        ("chebyshev_from_points", lambda v: tenfac.chebyshev_from_points(POINTS, POINTS[:, 0], verbose=v)),
        ("nearest_kronecker", lambda v: tenfac.nearest_kronecker(np.eye(8), [(2, 2)] * 3, verbose=v)),
        ("kron_omp", lambda v: tenfac.kron_omp(MADE.factors, MADE.y, noise=MADE.noise, verbose=v)),
        ("cp_scree", lambda v: tenfac.cp_scree(X, [1], verbose=v)),
        ("FunctionalTucker", lambda v: few_iterations("gaussian", v)),
        ("FunctionalTucker", lambda v: few_iterations("student_t", v)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_takes_its_time_shows_its_progress_the_same_way(
    name: str, call: Callable[[int], Any], caplog: Any, capsys: Any
) -> None:
    with caplog.at_level("INFO", logger="tenfac"):
        call(0)
        assert_equal((caplog.text, capsys.readouterr().err), ("", ""))
        call(1)
        assert_equal(caplog.text, "")
        assert_says(capsys.readouterr().err, f"{name}:")
        call(2)
        assert_says(caplog.text, f"{name}: ")
    assert_says(refusal(lambda: call(3), tenfac.DataError), f"{name}: `verbose` must be 0")


def test_a_fitted_estimator_shows_what_it_learned_and_its_clone_does_not() -> None:
    model = tenfac.KroneckerSBL(n_hops=0).fit(MADE.factors, MADE.y)
    assert_says(repr(model), "KroneckerSBL(fitted: columns 2 x 2 of 8 x 8, noise 0.", "converged after")
    assert_equal(repr(clone(model)), "KroneckerSBL()")
    short = tenfac.FunctionalTucker(max_iter=0).fit({"time": POINTS[:, 0]}, POINTS[:, 0])
    assert_says(repr(short), "FunctionalTucker(max_iter=0; fitted: modes time, noise ")
    assert_says(repr(tenfac.TuckerTransformer(rank=1).fit(X)), "(rank=1; fitted: rank (1, 1) of (3, 4), ")


def test_noise_is_a_standard_deviation_and_sample_one_word_in_both_estimators() -> None:
    sparse = tenfac.KroneckerSBL().fit(MADE.factors, MADE.y)
    louder = tenfac.KroneckerSBL().fit(MADE.factors, 10 * MADE.y)
    assert_relative(louder.noise_, 10 * sparse.noise_, 1e-6)
    dense = tenfac.FunctionalTucker(discrete="label", max_iter=0)
    dense.fit({"time": POINTS[:, 0], "label": np.arange(40) % 2}, POINTS[:, 0])
    assert_equal(dense.kinds_, ("continuous", "discrete"))
    at = {"time": [0.5], "label": [1]}
    for n in (0, 3):
        assert_equal((len(sparse.sample(n)), len(dense.sample(at, n))), (n, n))
    for call, where in [
        (lambda: sparse.sample(-1), "KroneckerSBL"),
        (lambda: dense.sample(at, -1), "FunctionalTucker"),
    ]:
        said = refusal(call, tenfac.DataError)
        assert_equal(said, f"{where}.sample: `n` must be an integer from 0 up; got -1.")


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: tenfac.FunctionalTucker(kernal="se"), "FunctionalTucker: unknown argument `kernal`."),
        (
            lambda: tenfac.FunctionalTucker().predict(X, std=True),
            "FunctionalTucker.predict: unknown argument",
        ),
        (lambda: tenfac.FunctionalTucker().sample(n=1), "FunctionalTucker.sample: needs `X`. Its arguments"),
        (lambda: tenfac.KroneckerSBL(n_start=1), "Did you mean 'n_starts'?"),
        (lambda: tenfac.KroneckerSBL().fit([np.eye(2)], [1.0, 2.0]), "Convert it with numpy.asarray(x)"),
    ],
)
def test_a_slip_with_an_estimator_is_told_by_its_own_name(call: Callable[[], Any], part: str) -> None:
    assert_says(refusal(call, TypeError), part)


def test_a_problem_is_the_same_every_time_unless_told_otherwise() -> None:
    make = tenfac.datasets.make_kronecker_sparse
    assert_equal(make().y, make(random_state=0).y)


def test_a_torch_module_of_one_variable_takes_points_as_rows_as_those_of_several_do() -> None:
    torch = pytest.importorskip("torch")
    module = tenfac.to_torch(tenfac.chebyshev_tucker(np.exp, [(0, 1)], tol=1e-6))
    points = torch.rand(5, 1, dtype=torch.float64)
    assert_equal(module(points), module(points[:, 0]))
    assert_equal(tuple(module(torch.rand(2, 3)).shape), (2, 3))
    said = refusal(lambda: tenfac.to_torch(F, dtype="float33"), tenfac.DataError)
    assert_says(said, "to_torch: `dtype` must be torch.float32", "'float33'")


def test_words_and_states_of_adapters_are_errors_of_the_package() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 4))
    for call, part in [
        (lambda: tenfac.adapt(net, "all", rank=1, init="weigth"), "Did you mean 'weight'?"),
        (lambda: tenfac.adapt(net, "all", rank=1, path="factord"), "Did you mean 'factored'?"),
        (lambda: tenfac.adapt(net, "all", rank=1, structure="tuker"), "Did you mean 'tucker'?"),
        (
            lambda: tenfac.adapt(net, "all", rank=1, init="gradient", data=lambda x, y: x + y),
            "function without arguments that returns the loss; got one with the arguments (x, y)",
        ),
        (lambda: tenfac.compress(net[0], rank=1, metric="fishr"), "Did you mean 'fisher'?"),
        (lambda: tenfac.merge(net), "the model must have adapters"),
    ]:
        assert_says(refusal(call, tenfac.DataError), part)


def test_wrong_kinds_of_options_are_told_what_to_write() -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("xarray")
    cube, wave = [(0.0, 1.0)] * 2, tenfac.chebyshev_tucker(lambda x, y: x * y, [(0, 1)] * 2, tol=1e-6)
    for call, kind, parts in [
        (lambda: tenfac.chebyshev_tucker(np.hypot, cube, executor=4), TypeError, ["`executor`", "got int"]),
        (lambda: tenfac.chebyshev_tucker(np.hypot, cube, hints="ab"), tenfac.DataError, ["`hints`", "'ab'"]),
        (lambda: tenfac.gaussian_sum([[0.0]], [1.0], "ab", domain=[(0, 1)]), tenfac.DataError, ["exponents"]),
        (lambda: tenfac.to_xarray(wave, ("x", "y"), [1, 2]), TypeError, ["`coords`", "got list"]),
        (lambda: tenfac.plot.function_slice(wave, [0.5]), TypeError, ["`fixed`", "got list", "dict"]),
        (lambda: tenfac.plot.calibration("ab", "ab", "ab"), tenfac.DataError, ["calibration", "got str"]),
        (lambda: tenfac.plot.mode_function(tenfac.FunctionalTucker(), 0), TypeError, ["fitted model"]),
        (lambda: tenfac.plot.mode_functions(wave), TypeError, ["fitted model", "got Tucker"]),
        (lambda: tenfac.cp_complete(X, 10**9), tenfac.RankError, ["observed entries, 24", "1000000000"]),
    ]:
        assert_says(refusal(call, kind), *parts)
