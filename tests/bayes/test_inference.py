"""The inferences of `FunctionalTucker` by name: what each answers, keeps, refuses."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from tenfac import ConvergenceWarning, DataError, FunctionalTucker, RankError, load, pyro_model, save
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

X, Y = smooth_table((4, 12, 3), (0,), 160)
TABLE = {"cell": np.array(["a", "b", "c", "d"])[X[:, 0].astype(int) - 10], "time": X[:, 1], "dose": X[:, 2]}
NOT_CONVERGED = "ignore::tenfac.ConvergenceWarning"
FORMS = ["full", "diagonal"]
full_is_quick = pytest.mark.parametrize("core", ["full", pytest.param("diagonal", marks=pytest.mark.slow)])
NO_STREAM = dict.fromkeys(
    ("check_fit_score_takes_y", "check_n_features_in_after_fitting"),
    "partial_fit is of inference='collapsed'",
)
ANYWHERE = {
    "cell": ["a", "b", "c", "d", "a"],
    "time": [-1e7, -31.0, 10.0, 60.0, 1e7],
    "dose": [-300.0, 100.0, 250.0, 1e8, 5e5],
}


def fitted(table: Any = TABLE, y: np.ndarray = Y, **settings: Any) -> FunctionalTucker:
    """A fit whether or not it converges."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return FunctionalTucker(**settings).fit(table, y)


@cache
def cep(core: str = "full", rank: Any = 1, max_iter: int = 8) -> FunctionalTucker:
    return fitted(inference="cep", core=core, rank=rank, max_iter=max_iter)


@cache
def drawn(inference: str) -> FunctionalTucker:
    """Draws of a tiny program; too few steps to converge."""
    pytest.importorskip("pyro")
    table = {"cell": list("aabbab"), "time": [1.0, 2.0, 1.0, 4.0, 5.0, 5.0]}
    y = np.array([0.1, 0.5, 1.2, 2.5, 1.0, 3.0])
    return fitted(table, y, inference=inference, max_iter=10 if inference == "svi" else 5)


def grid_of(model: FunctionalTucker, mode: int, x: Any) -> list[dict[str, Any]]:
    """Per index of one mode, a table of all observed indices of the others."""
    tables = []
    for value in x:
        axes = [np.array([value]) if n == mode else index for n, index in enumerate(model.indices_)]
        mesh = np.meshgrid(*axes, indexing="ij")
        tables.append(dict(zip(model.mode_names_, (part.ravel() for part in mesh), strict=True)))
    return tables


# --- cep --------------------------------------------------------------------------------------------------


# 2026-11: half of the rows keep the bound rising slowly; the predictions stand
@pytest.mark.filterwarnings(NOT_CONVERGED)
@full_is_quick
def test_cep_predicts_held_out_rows_nearly_to_the_noise(core: str) -> None:
    model = FunctionalTucker(inference="cep", core=core, rank=1, discrete=[0], max_iter=12)
    scores = cross_val_score(model, X, Y, cv=KFold(2), error_score="raise")
    assert_above(scores.min(), 0.8, "R2 on rows left out")


@pytest.mark.parametrize("core", FORMS)
def test_cep_at_any_index_is_finite_with_noise_on_top(core: str) -> None:
    model = cep(core)
    mean, std = model.predict(ANYWHERE, return_std=True)
    noisy_mean, noisy = model.predict(ANYWHERE, return_std=True, include_noise=True)
    assert_equal(noisy_mean, mean)
    assert_close(noisy**2 - std**2, np.full(5, model.noise_**2), factor=1e6)
    assert_above(std.min(), 0.0, "standard deviation")
    assert_above(float(np.isfinite(mean).all()), 0.5, "finite")
    assert_equal(model.predict(ANYWHERE), mean)


DEGENERATE = {
    "one row": ([[1.0, 2.0]], [3.0]),
    "one index of a mode": (np.column_stack([np.ones(9), np.arange(9.0)]), np.sin(np.arange(9.0))),
    "one value": (np.column_stack([np.arange(9) % 3, np.arange(9.0)]), np.full(9, 5.0)),
    "one mode": (np.arange(9.0)[:, None], np.sin(np.arange(9.0))),
    "labels only": ({"a": list("abcabcabc"), "b": list("xyzzyxxzy")}, np.sin(np.arange(9.0))),
}


@pytest.mark.parametrize("core", FORMS)
@pytest.mark.parametrize(("table", "y"), DEGENERATE.values(), ids=DEGENERATE.keys())
def test_little_to_learn_from_gives_finite_answers(table: Any, y: Any, core: str) -> None:
    model = fitted(table, np.array(y), inference="cep", core=core, max_iter=6)
    answers = [*model.predict(table, return_std=True), model.core_]
    for name in model.mode_names_:
        answers += [*model.mode_posterior(name)[1:], *model.factor_posterior(name)[1:]]
    assert_equal([bool(np.isfinite(answer).all()) for answer in answers], [True] * len(answers))
    assert_above(model.predict(table, return_std=True, include_noise=True)[1].min(), 0.0, "std")


@pytest.mark.parametrize("core", FORMS)
@pytest.mark.parametrize("mode", [0, 1])
def test_the_marginal_of_cep_is_the_average_over_the_grid(core: str, mode: int) -> None:
    model = cep(core, 2 if core == "diagonal" else (2, 2, 1))
    x = ["b", "d"] if mode == 0 else [-40.0, 3.0, 12.0]
    _, mean, std = model.mode_posterior(mode, x)
    want = [model.predict(table).mean() for table in grid_of(model, mode, x)]
    assert_relative(mean, np.array(want), 1e-9)
    single = np.array([model.predict(t, return_std=True)[1].max() for t in grid_of(model, mode, x)])
    assert_above((single / std).min(), 1.0, "largest std on the grid over that of the average")


@pytest.mark.parametrize("core", FORMS)
def test_functions_have_one_sign_scale_and_order(core: str) -> None:
    model = cep(core, 2 if core == "diagonal" else (2, 2, 1))
    for name, index, rank in zip(model.mode_names_, model.indices_, model.rank_, strict=True):
        x, mean, std = model.factor_posterior(name, index)
        assert_equal((mean.shape, std.shape, x.shape), ((index.size, rank), (index.size, rank), index.shape))
        assert_relative(np.mean(mean**2, axis=0), np.ones(rank), 1e-12)
        assert_above(mean[np.abs(mean).argmax(axis=0), np.arange(rank)].min(initial=1.0), 0.0, "peak")
    if core == "diagonal":
        sizes = np.abs(model.core_)
        assert_equal(sizes.tolist(), sorted(sizes, reverse=True))
    assert_equal(model.factor_posterior("time")[0].shape, (101,))


def test_the_core_and_the_functions_are_the_prediction() -> None:
    model = cep("full", (2, 2, 1), 2)
    assert_equal((model.rank_, model.core_.shape), ((2, 2, 1), (3, 3, 2)))
    rows = {name: column[:7] for name, column in TABLE.items()}
    factors = []
    for name, column in rows.items():
        mean = model.factor_posterior(name, column)[1]
        factors.append(np.column_stack([np.ones(7), mean]))
    assert_relative(np.einsum("abc,na,nb,nc->n", model.core_, *factors), model.predict(rows), 1e-10)


def test_cep_says_what_it_learned() -> None:
    model = cep()
    assert_equal((model.kinds_, model.rank_), (("discrete", "continuous", "continuous"), (1, 1, 1)))
    assert_equal(sorted(model.lengthscales_), ["dose", "time"])
    assert_above(min(model.lengthscales_.values()), 0.0, "lengthscales")
    assert_equal(model.bounds_, (-np.inf, np.inf))
    assert_equal(model.n_iter_, 8)
    jacobian = -Y.size * np.log(model._response.spread)
    assert_close(model.log_evidence_, model._prediction.bound + jacobian)
    assert_equal(hasattr(model, "exact_mode_"), False)


def test_the_unit_of_y_and_of_the_columns_passes_through() -> None:
    other = fitted(TABLE | {"time": 1000 * TABLE["time"]}, 4 * Y + 32, inference="cep", rank=1, max_iter=8)
    model = cep()
    later = ANYWHERE | {"time": 1000 * np.array(ANYWHERE["time"])}
    for got, want, shift in zip(
        other.predict(later, return_std=True), model.predict(ANYWHERE, return_std=True), (32, 0), strict=True
    ):
        assert_relative(got, 4 * want + shift, 1e-8)
    assert_relative(other.lengthscales_["time"], 1000 * model.lengthscales_["time"], 1e-8)
    assert_relative(other.core_.ravel()[1:], 4 * model.core_.ravel()[1:], 1e-8)


def test_weights_are_repeats_for_cep() -> None:
    weights = np.random.default_rng(1).integers(0, 3, Y.size)
    table = {name: np.repeat(column, weights) for name, column in TABLE.items()}
    repeated = fitted(table, np.repeat(Y, weights), inference="cep", rank=1, max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FunctionalTucker(inference="cep", rank=1, max_iter=5).fit(TABLE, Y, sample_weight=weights)
    assert_relative(model.predict(TABLE), repeated.predict(TABLE), 1e-8)


@full_is_quick
def test_rank_auto_finds_the_number_of_products(core: str) -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 16, 2000) / 15 for _ in range(2)])
    y = np.sin(6 * x[:, 0]) * np.cos(5 * x[:, 1]) + 0.05 * rng.normal(size=2000)
    model = FunctionalTucker(inference="cep", core=core).fit(x, y)
    assert_equal(model.rank_, (1, 1))
    assert_below(abs(model.noise_ / 0.05 - 1), 0.1, "relative error of the noise, 2000 rows")


def test_one_warning_in_the_users_line_says_that_cep_did_not_converge() -> None:
    with pytest.warns(ConvergenceWarning) as caught:
        FunctionalTucker(inference="cep", rank=1, max_iter=1).fit(TABLE, Y)
    assert_equal(len(caught), 1)
    assert_says(caught[0].message, "inference='cep'", "Raise max_iter above 1")
    assert_equal(caught[0].filename, __file__)


def test_the_bar_of_cep_is_named_after_what_the_user_called(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(inference="cep", rank=1, max_iter=1, verbose=1)
    said = capsys.readouterr().err
    assert_equal(("FunctionalTucker:" in said, "fit_cep" in said), (True, False))


def test_joint_questions_are_refused_in_words() -> None:
    fit = cep()._prediction
    for ask in (fit.cov, fit.sample, fit.derivative, fit.affine, lambda: fit.problem):
        with pytest.raises(DataError) as error:
            ask()
        assert_says(error, "inference='cep'", "Fit with inference='collapsed'")


# --- save, clone, fit again -------------------------------------------------------------------------------


@pytest.mark.parametrize("core", FORMS)
def test_a_cep_model_comes_back_with_the_same_bits(core: str, tmp_path: Path) -> None:
    model, path = cep(core), tmp_path / "model.tenfac"
    save(model, path)
    back = load(path)
    for got, want in zip(
        back.predict(ANYWHERE, return_std=True), model.predict(ANYWHERE, return_std=True), strict=True
    ):
        assert_equal(got, want)
    for mode in range(3):
        for call in ("mode_posterior", "factor_posterior"):
            for got, want in zip(getattr(back, call)(mode), getattr(model, call)(mode), strict=True):
                assert_equal(got, want)
    for name in ("rank_", "lengthscales_", "noise_", "log_evidence_", "n_iter_", "info_", "mode_names_"):
        assert_equal(getattr(back, name), getattr(model, name))
    assert_equal(back.core_, model.core_)
    assert_equal(back.get_params(), model.get_params())
    save(back, path)  # and once more
    assert_equal(load(path).predict(ANYWHERE), model.predict(ANYWHERE))


def test_a_clone_of_cep_learns_the_same_bits() -> None:
    again = clone(cep())
    assert_equal(again.get_params(), cep().get_params())
    with pytest.warns(ConvergenceWarning):
        again.fit(TABLE, Y)
    assert_equal(again.predict(ANYWHERE), cep().predict(ANYWHERE))


def test_another_inference_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    model = fitted(inference="cep", rank=1, max_iter=2)
    model.set_params(inference="collapsed", rank="auto", max_iter=0)
    save(model, tmp_path / "a")  # still the fit of before
    assert_equal(hasattr(load(tmp_path / "a"), "core_"), True)
    model.fit(TABLE, Y)
    plain = FunctionalTucker(max_iter=0).fit(TABLE, Y)
    assert_equal(sorted(vars(model)), sorted(vars(plain)))
    with pytest.raises(DataError) as error:
        model.factor_posterior(0)
    assert_says(error, "inference='cep' only", "'collapsed'", "mode_posterior")
    model.set_params(inference="cep", rank=1, max_iter=2)
    with pytest.warns(ConvergenceWarning):
        model.fit(TABLE, Y)
    assert_equal(hasattr(model, "exact_mode_"), False)


# --- settings ---------------------------------------------------------------------------------------------


def refused(error: type[Exception], **settings: Any) -> Any:
    with pytest.raises(error) as caught:
        FunctionalTucker(**settings).fit(TABLE, Y)
    return caught


def test_unknown_names_are_refused_and_a_near_one_suggested() -> None:
    assert_says(refused(DataError, inference="cpe"), "'collapsed', 'cep', 'svi', 'nuts'", "'cpe'", "'cep'?")
    assert_says(refused(DataError, inference="cep", core="diag"), "`core`", "Did you mean 'diagonal'?")
    assert_says(refused(DataError, inference=None), "`inference` must be one of", "None")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"core": "diagonal"}, "inference='cep'"),
        ({"core": "diagonal", "inference": "nuts"}, "inference='cep'"),
        ({"inference": "cep", "label_rank": 1}, "inference='collapsed' or inference='svi'"),
        ({"inference": "cep", "max_functions": 9}, "inference='collapsed'"),
        ({"inference": "cep", "response": "log"}, "inference='collapsed'"),
        ({"inference": "svi", "rank": [2, 2]}, "inference='collapsed' or inference='cep'"),
        ({"inference": "nuts", "tol": 1e-3}, "inference='collapsed' or inference='cep'"),
    ],
)
def test_a_setting_that_an_inference_does_not_know_is_refused(settings: dict, remedy: str) -> None:
    assert_says(refused(DataError, **settings), "must have", "Leave `", remedy)


def test_a_rank_that_is_no_rank_is_refused() -> None:
    for rank in (None, "atuo"):
        assert_says(refused(RankError, rank=rank), "'auto'", f"got {rank!r}", "Leave it out")
    assert_says(refused(RankError, inference="cep", rank=[2, 2]), "one for every mode", "cell, time, dose")
    error = refused(RankError, inference="cep", core="diagonal", rank=[1, 2, 1])
    assert_says(error, "the same for every mode", "[1, 2, 1]")
    assert_says(refused(RankError, inference="cep", rank=[5, 1, 1]), "'cell'", "from 1 to 4", "got 5")
    assert_says(refused(RankError, inference="cep", rank=13), "'time'", "from 1 to 12")


def test_a_full_core_of_too_many_terms_is_refused() -> None:
    with pytest.raises(RankError) as error:
        FunctionalTucker(inference="cep").fit(np.random.default_rng(0).random((20, 10)), np.arange(20.0))
    assert_says(error, "512 terms", "got 1024", "core='diagonal'")


def test_counts_below_what_an_inference_needs_are_refused() -> None:
    for inference, least in (("cep", 1), ("svi", 10), ("nuts", 4)):
        error = refused(DataError, inference=inference, max_iter=least - 1)
        assert_says(error, f"`max_iter` must be an integer from {least} up")


# --- kernels of GPyTorch ----------------------------------------------------------------------------------


def test_a_gpytorch_kernel_gives_its_order_and_the_lengthscale_that_was_set(tmp_path: Path) -> None:
    kernels = pytest.importorskip("gpytorch").kernels
    plain = kernels.MaternKernel(nu=0.5)
    long = kernels.MaternKernel(nu=2.5)
    long.lengthscale = 50.0
    model = FunctionalTucker(kernel={"time": plain, 2: kernels.ScaleKernel(long)}, max_iter=0).fit(TABLE, Y)
    named = FunctionalTucker(kernel={"time": "matern12", "dose": "matern52"}, max_iter=0).fit(TABLE, Y)
    span = np.ptp(TABLE["dose"])
    want = named._learned.hyper.moved(2, 1, np.log(50 / span) - named._learned.hyper.modes[2, 1])
    assert_relative(model._learned.hyper.modes, want.modes, 1e-6)  # the kernel holds float32
    assert_equal(model._kernels, named._kernels)
    save(model, tmp_path / "a")
    back = load(tmp_path / "a")
    assert_equal(back.kernel, {"time": "matern12", 2: "matern52"})
    assert_equal(back.predict(TABLE), model.predict(TABLE))
    assert_equal(clone(model).fit(TABLE, Y).predict(TABLE), model.predict(TABLE))


def test_cep_starts_at_the_lengthscale_of_a_gpytorch_kernel() -> None:
    long = pytest.importorskip("gpytorch").kernels.MaternKernel(nu=1.5)
    long.lengthscale = 30 * np.ptp(TABLE["time"])
    model = fitted(inference="cep", kernel={"time": long}, rank=1, max_iter=1)
    assert_above(model.lengthscales_["time"] / cep(max_iter=1).lengthscales_["time"], 10.0, "lengthscales")


def test_other_gpytorch_kernels_are_refused_and_it_is_said_where_they_work() -> None:
    kernels = pytest.importorskip("gpytorch").kernels
    for kernel in (kernels.RBFKernel(), kernels.ScaleKernel(kernels.PeriodicKernel())):
        error = refused(DataError, kernel={"time": kernel})
        assert_says(error, "'time'", "MaternKernel", "filter_smooth", "pyro_model")


# --- svi and nuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", [pytest.param("svi", marks=pytest.mark.slow), "nuts"])
def test_the_estimator_predicts_what_its_draws_do(inference: str) -> None:
    model = drawn(inference)
    new = {"cell": ["a", "b", "a", "b"], "time": [0.0, 2.5, 5.0, 1e6]}
    for noise in (False, True):
        got = model.predict(new, return_std=True, include_noise=noise)
        want = model._prediction.posterior.predict(new, return_std=True, include_noise=noise)
        for one, other in zip(got, want, strict=True):
            assert_relative(one, other, 1e-9)


def test_the_marginal_of_the_draws_is_the_average_over_the_grid() -> None:
    model = drawn("nuts")
    posterior = model._prediction.posterior
    for mode, x in ((0, ["a", "b"]), (1, [0.0, 2.5, 9.0])):
        _, mean, std = model.mode_posterior(mode, x)
        tables = grid_of(model, mode, x)
        assert_relative(mean, np.array([model.predict(table).mean() for table in tables]), 1e-9)
        want = []
        for table in tables:
            points = np.column_stack(posterior.to_columns(table))
            pairs = [posterior._given(hyper, points, None) for hyper, _ in posterior._draws()]
            means = np.array([float(m.mean()) for m, _ in pairs])
            want.append(np.sqrt(means.var() + np.mean([float(cov.mean()) for _, cov in pairs])))
        assert_relative(std, np.array(want) * model._response.spread, 1e-8)


def test_joint_draws_have_the_moments_of_the_prediction() -> None:
    model = drawn("nuts")
    new = {"cell": ["a", "b", "b"], "time": [0.5, 2.5, 1e6]}
    positions = [i.positions(c) for i, c in zip(model._modes, model._read_columns(new), strict=True)]
    for noise in (False, True):
        draws = model._prediction.sample(positions, 1000, np.random.default_rng(0), noise)
        draws = model._response.observed(draws)
        mean, std = model.predict(new, return_std=True, include_noise=noise)
        assert_below(np.abs((draws.mean(axis=0) - mean) / std).max(), 4 / 1000**0.5, "4 standard errors")
        kurtosis = np.mean((draws - mean) ** 4, axis=0) / std**4
        doubt = np.sqrt((kurtosis - 1) / 1000)
        assert_below(np.abs((draws.var(axis=0) / std**2 - 1) / doubt).max(), 4, "difference of variances")


@pytest.mark.parametrize("inference", [pytest.param("svi", marks=pytest.mark.slow), "nuts"])
def test_draws_are_described_like_any_fit(inference: str) -> None:
    model = drawn(inference)
    values = model._prediction.posterior.hyperparameters
    assert_equal(model.noise_, float(np.median(values["noise"])))
    assert_equal(model.lengthscales_, {"time": float(np.median(values["lengthscale"]))})
    described = list(model.constants_), model.rank_, model.n_iter_
    assert_equal(described, (["cell", "time"], (2, 4), model.max_iter))
    assert_equal(model.log_evidence_ is None, inference == "nuts")
    assert_equal("f" in model._prediction.posterior.to_datatree()["posterior"], True)


def test_draws_are_not_saved_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        save(drawn("nuts"), tmp_path / "a")
    assert_says(error, "inference='nuts'", "model.posterior_.to_netcdf(path)", "inference='collapsed'")
    with pytest.raises(DataError) as error:
        save(drawn("nuts")._prediction.posterior, tmp_path / "a")
    assert_says(error, "PyroPosterior", "to_datatree().to_netcdf(path)")


def test_too_many_points_for_a_program_are_refused() -> None:
    pytest.importorskip("pyro")
    with pytest.raises(DataError) as error:
        FunctionalTucker(inference="nuts").fit(np.linspace(0, 1, 1001)[:, None], np.arange(1001.0))
    assert_says(error, "at most 1000 distinct points", "got 1001")


def test_a_program_of_a_model_by_cep_has_its_own_hyperparameters() -> None:
    pytest.importorskip("pyro")
    with pytest.raises(DataError) as error:
        pyro_model(cep(), TABLE, Y, fixed=True)
    assert_says(error, "inference='collapsed'", "'cep'", "leave `fixed` out")
    assert_equal(pyro_model(cep(), TABLE, Y).points.shape[1], 3)


# --- minutes ----------------------------------------------------------------------------------------------


# 2026-11: three sweeps do not converge and say so; that is not what these checks are about
@pytest.mark.slow
@pytest.mark.filterwarnings(NOT_CONVERGED)
@parametrize_with_checks(
    [FunctionalTucker(inference="cep", core="diagonal", max_iter=3)],
    expected_failed_checks=lambda _: NO_STREAM,
)
def test_the_checks_of_scikit_learn_pass_for_cep(estimator, check) -> None:
    before = estimator.get_params()
    check(estimator)
    assert_equal(estimator.get_params(), before)


@pytest.mark.slow
def test_svi_and_nuts_agree_with_one_another_and_with_the_learned_hyperparameters() -> None:
    pytest.importorskip("pyro")
    x, y = smooth_table((3, 10), (0,), 40)
    exact = FunctionalTucker(discrete=[0]).fit(x, y).predict(x, return_std=True)
    sampled = fitted(x, y, discrete=[0], inference="nuts", max_iter=400)
    guided = fitted(x, y, discrete=[0], inference="svi", max_iter=2000)
    nuts = sampled.predict(x, return_std=True)
    svi = guided.predict(x, return_std=True)
    assert_below(np.abs((svi[0] - nuts[0]) / nuts[1]).max(), 0.25, "difference of means in std")
    ratio = svi[1] / nuts[1]
    assert_above(ratio.min(), 0.9, "ratio of std, svi to nuts")
    assert_below(ratio.max(), 1.1, "ratio of std, svi to nuts")
    assert_below(np.abs((exact[0] - nuts[0]) / nuts[1]).max(), 1.0, "difference of means in std")
