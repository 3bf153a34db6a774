"""The Pyro program: the same densities as dense matrices, the same posterior as the message passing."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import tenfac
from tenfac import FunctionalTucker, nuts, pyro_model, svi
from tenfac.bayes.collapsed.hyper import Hyper, log_prior
from tests.bayes.toys import dense_gp, loadings_of, smooth_table
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")

from tenfac.bayes.pyro.posterior import PyroPosterior  # noqa: E402 (after importorskip)
from tenfac.core.report import Report  # noqa: E402

NOT_CONVERGED = "ignore::tenfac.ConvergenceWarning"
CASES = [("matern12", 0), ("matern32", 0), ("matern52", 0), ("matern32", 1)]


@cache
def small(kernel: str = "matern32", label_rank: int = 0) -> tuple[FunctionalTucker, Any, np.ndarray]:
    """A label, a long and a short continuous mode; 40 rows, some cells twice; not learned."""
    X, y = smooth_table((3, 8, 3), (0,), 40)
    table = {"cell": X[:, 0].astype(int).astype(str), "time": X[:, 1], "dose": X[:, 2]}
    return FunctionalTucker(kernel=kernel, max_iter=0, label_rank=label_rank).fit(table, y), table, y


def tiny() -> tuple[FunctionalTucker, Any, np.ndarray]:
    table = {"cell": list("aabbab"), "time": [1.0, 2.0, 1.0, 4.0, 5.0, 5.0]}
    y = np.array([0.1, 0.5, 1.2, 2.5, 1.0, 3.0])
    return FunctionalTucker(max_iter=0).fit(table, y), table, y


def somewhere(label_rank: int = 0) -> Hyper:
    """Hyperparameters where everything matters."""
    rng = np.random.default_rng(3)
    hyper = replace(Hyper.start(3), scale=0.3, noise=-1.0)
    modes = hyper.modes + rng.normal(size=(3, 4)) * [0.5, 0.3, 0.7, 0.2]
    loadings = loadings_of([3, 0, 0], rng) if label_rank else hyper.loadings
    return replace(hyper, modes=modes, loadings=loadings)


def repeated(program: Any, weights: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Scaled points and latent values, every row as often as its weight says."""
    seen = program.observations
    rows = np.repeat(np.arange(seen.y.size), weights.astype(int))
    return list(seen.points[seen.codes][rows].T), seen.latent[rows]


# --- densities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["gp", "sde"])
@pytest.mark.parametrize(("kernel", "label_rank"), CASES)
def test_the_log_density_is_that_of_the_dense_gaussian(prior: str, kernel: str, label_rank: int) -> None:
    model, table, y = small(kernel)
    weights = np.random.default_rng(0).integers(1, 4, y.size).astype(float)
    hyper = somewhere(label_rank)
    program = replace(pyro_model(model, table, y, weights, prior=prior), reference=hyper)
    points, latent = repeated(program, weights)
    want = dense_gp((None, kernel, kernel), hyper).log_evidence(points, latent)
    assert_below(abs(program.log_density() - want), 1e-8, "difference of log densities")


@pytest.mark.parametrize("prior", ["gp", "sde"])
def test_at_the_learned_values_it_is_the_evidence_of_the_message_passing(prior: str) -> None:
    model, table, y = small()
    program = pyro_model(model, table, y, prior=prior)
    assert_below(abs(program.log_density() - model._prediction.log_evidence), 1e-8, "difference")


@pytest.mark.parametrize("prior", ["gp", "sde"])
@pytest.mark.parametrize(("kernel", "label_rank"), CASES)
def test_white_numbers_make_a_function_of_the_prior_covariance(
    prior: str, kernel: str, label_rank: int
) -> None:
    model, table, y = small(kernel)
    hyper = somewhere(label_rank)
    program = replace(pyro_model(model, table, y, prior=prior, collapsed=False), reference=hyper)
    at = program.hyper_of(hyper.pack())
    rows = program.function(at, torch.eye(program.prior.size, dtype=torch.float64)).numpy()
    points = list(program.points.T)
    assert_relative(rows.T @ rows, dense_gp((None, kernel, kernel), hyper).covariance(points, points), 1e-9)


@pytest.mark.parametrize("collapsed", [True, False])
def test_the_joint_density_of_the_program_is_prior_times_likelihood(collapsed: bool) -> None:
    model, table, y = small()
    weights = np.random.default_rng(0).integers(1, 3, y.size).astype(float)
    program = pyro_model(model, table, y, weights, collapsed=collapsed)
    values = {"hyper": torch.linspace(-1, 1, int(program.free.sum()), dtype=torch.float64)}
    if not collapsed:
        values["white"] = torch.linspace(-2, 2, program.prior.size, dtype=torch.float64)
    trace = pyro.poutine.trace(pyro.poutine.condition(program, data=values)).get_trace()
    theta = program.theta(values["hyper"]).numpy()
    normal = sum(float(torch.distributions.Normal(0, 1).log_prob(v).sum()) for v in values.values())
    if collapsed:
        data = program.log_density(theta)
    else:
        hyper = program.hyper_of(theta)
        f = program.function(hyper, values["white"]).numpy()[program.observations.codes]
        noise = float(hyper.noise)
        z2 = (program.observations.latent - f) ** 2 * np.exp(-noise)
        data = float(np.sum(weights * -0.5 * (z2 + noise + np.log(2 * np.pi))))
    assert_below(abs(float(trace.log_prob_sum()) - normal - data), 1e-8, "difference of log densities")


def test_hyperparameters_have_the_hyperprior_of_the_evidence() -> None:
    model, table, y = small(label_rank=1)
    program = pyro_model(model, table, y)
    program = replace(program, reference=somewhere(1))
    heights = []
    for white in np.random.default_rng(0).normal(size=(4, int(program.free.sum()))):
        white = torch.as_tensor(white)
        slope = torch.autograd.functional.jacobian(lambda w: program.theta(w)[program.free], white)
        density = torch.distributions.Normal(0, 1).log_prob(white).sum() - slope.diagonal().log().sum()
        heights.append(float(density) - log_prior(program.reference.unpack(program.theta(white).numpy()))[0])
    assert_below(np.ptp(heights), 1e-9, "log density minus hyperprior, from draw to draw")


def test_every_hyperparameter_receives_the_gradient_of_finite_differences() -> None:
    model, table, y = tiny()
    for prior in ("gp", "sde"):
        program = pyro_model(model, table, y, prior=prior)
        white = torch.zeros(int(program.free.sum()), dtype=torch.float64, requires_grad=True)

        def value(white: Any, program: Any = program) -> Any:
            hyper = program.hyper_of(program.theta(white))
            return program.prior.log_density(hyper, program._means, hyper.noise.exp() / program._counts)

        assert torch.autograd.gradcheck(value, (white,), rtol=1e-4, fast_mode=True)
        (gradient,) = torch.autograd.grad(value(white), white)
        assert_above(gradient.abs().min(), 1e-8, "smallest derivative")


# --- posteriors -------------------------------------------------------------------------------------------


def exact(model: FunctionalTucker, table: Any, y: np.ndarray, latent: np.ndarray | None = None) -> Any:
    """A posterior without sampling: one draw, at the model's hyperparameters."""
    program = pyro_model(model, table, y, fixed=True, collapsed=latent is None)
    theta = np.broadcast_to(program.reference.pack(), (1, 1, program.free.size))
    latent = np.zeros((1, 1, program.points.shape[0])) if latent is None else latent
    if latent.shape[1] != 1:
        theta = np.broadcast_to(theta, (1, latent.shape[1], theta.shape[-1]))

    def reader(table: Any) -> list[np.ndarray]:
        return [i.positions(c) for i, c in zip(model._modes, model._read_columns(table), strict=True)]

    flags = np.zeros(latent.shape[:2], dtype=bool)
    return PyroPosterior(program, theta, latent, flags, {}, Report(True, "exact"), reader)


ELSEWHERE = {"cell": ["10", "12", "11"], "time": [3.0, -500.0, 2000.0], "dose": [100.0, 4000.0, -700.0]}


@pytest.mark.parametrize("include_noise", [False, True])
def test_given_the_hyperparameters_predictions_are_those_of_the_message_passing(include_noise: bool) -> None:
    model, table, y = small()
    got = exact(model, table, y).predict(ELSEWHERE, return_std=True, include_noise=include_noise)
    want = model.predict(ELSEWHERE, return_std=True, include_noise=include_noise)
    for g, w in zip(got, want, strict=True):
        assert_relative(g, w, 1e-8)


def test_samples_elsewhere_have_the_moments_of_predictions_and_pass_through_the_draws() -> None:
    model, table, y = small()
    program = pyro_model(model, table, y, fixed=True)
    rng = np.random.default_rng(0)
    rows = program.function(
        program.hyper_of(program.reference.pack()), torch.eye(program.prior.size, dtype=torch.float64)
    ).numpy()
    post = exact(model, table, y, (rng.normal(size=(1, 4000, rows.shape[0])) @ rows))
    draws, (mean, std) = post.sample(ELSEWHERE, random_state=1), post.predict(ELSEWHERE, return_std=True)
    assert_equal(draws.shape, (1, 4000, 3))
    assert_below(np.abs(draws.mean((0, 1)) - mean).max(), 5 * std.max() / 4000**0.5, "mean")
    assert_below(np.abs(draws.std((0, 1)) / std - 1).max(), 5 / 8000**0.5, "std ratio minus 1")
    assert_equal(post.sample(ELSEWHERE, random_state=1), draws)
    assert_relative(post.sample(table), post.f, 1e-3)


@pytest.mark.parametrize("response", ["identity", "log"])
def test_draws_are_in_the_unit_of_y(response: str) -> None:
    X, y = smooth_table((8,), (), 8)
    y = 1e3 + 50 * y
    model = FunctionalTucker(max_iter=0, response=response).fit(X, y)
    post = exact(model, X, y, model._task.y[None, None, np.argsort(model._task.positions[0])])
    assert_relative(post.f[0, 0], y, 1e-12)
    hyper = post.hyperparameters
    assert_relative(hyper["noise"][0], np.array([model.noise_]), 1e-12)
    assert_relative(hyper["lengthscale"][0, 0], np.array([*model.lengthscales_.values()]), 1e-12)
    assert_relative(hyper["constant"][0, 0], np.array([*model.constants_.values()]), 1e-12)


def quick_svi(seed: Any = 0, **options: Any) -> Any:
    model, table, y = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        return svi(model, table, y, max_iter=12, num_samples=12, random_state=seed, **options)


def quick_nuts(seed: Any = 0, **options: Any) -> Any:
    model, table, y = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        return nuts(model, table, y, num_samples=8, warmup=10, chains=2, random_state=seed, **options)


@pytest.mark.parametrize("run", [quick_nuts, quick_svi])
def test_the_seed_alone_decides_and_no_generator_nor_parameter_is_touched(run: Any) -> None:
    pyro.get_param_store().setdefault("mine", torch.ones(1))
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    settings = torch.get_num_threads(), pyro.settings.get("validate_poutine")
    first, again, other = (run(seed, fixed=True) for seed in (0, 0, np.random.default_rng(1)))
    assert_equal(first.f, again.f)
    assert_equal(first.theta, again.theta)
    assert not np.array_equal(first.f, other.f)
    assert_equal(torch.get_rng_state(), before[0])
    assert_equal(np.random.get_state()[1], before[1])  # noqa: NPY002 (the global state is what is looked at)
    assert_equal(random.getstate(), before[2])
    assert_equal((torch.get_num_threads(), pyro.settings.get("validate_poutine")), settings)
    assert_equal(list(pyro.get_param_store().keys()), ["mine"])
    pyro.clear_param_store()
    assert_equal((first.info.random_state, other.info.random_state), (0, None))


@pytest.mark.parametrize(
    "options",
    [
        {"guide": "diagonal"},
        {"guide": "lowrank"},
        {"guide": "structured", "collapsed": False},
        {"prior": "sde"},
    ],
    ids=str,
)
def test_every_guide_and_prior_gives_finite_draws(options: dict[str, Any]) -> None:
    post = quick_svi(**options)
    assert_equal(post.f.shape, (1, 12, 6))
    assert np.isfinite(post.f).all()
    assert np.isfinite(post.theta).all()


@pytest.mark.parametrize("num_samples", [1, 6])
def test_a_run_that_is_too_short_says_so_once(num_samples: int) -> None:
    model, table, y = tiny()
    with pytest.warns(tenfac.ConvergenceWarning) as caught:
        post = nuts(model, table, y, fixed=True, num_samples=num_samples, warmup=2, chains=1)
    assert_equal(len(caught), 1)
    assert_says(caught[0].message, "nuts", "effective draws", "Raise num_samples")
    assert_equal(caught[0].filename, __file__)
    assert not post.info.converged


# --- the tree ---------------------------------------------------------------------------------------------


def test_the_tree_has_chains_and_draws_first_and_the_names_of_the_modes() -> None:
    _, table, y = tiny()
    post = quick_svi()
    tree = post.to_datatree()
    assert_equal(tree["posterior"]["f"].dims, ("chain", "draw", "observation"))
    assert_equal(tree["posterior"]["constant"].dims, ("chain", "draw", "mode"))
    assert_equal(tree["posterior"]["mode"].values.tolist(), ["cell", "time"])
    assert_equal(tree["posterior"]["continuous_mode"].values.tolist(), ["time"])
    for name, column in table.items():
        assert_equal(tree["posterior"].coords[name].values.tolist(), list(column))
    assert_equal(tree["observed_data"]["y"].values, y)
    assert_equal(tree["sample_stats"]["diverging"].shape, (1, 12))
    z2 = ((y - post.f) / post.hyperparameters["noise"][..., None]) ** 2
    scale = np.log(post.hyperparameters["noise"])[..., None]
    want = -0.5 * z2 - scale - 0.5 * np.log(2 * np.pi)
    assert_relative(tree["log_likelihood"]["y"].values, want, 1e-10)


def test_fixed_hyperparameters_are_constant_data_in_the_tree() -> None:
    model, _, _ = tiny()
    tree = quick_svi(fixed=True).to_datatree()
    assert_equal(list(tree["posterior"].data_vars), ["f"])
    got = tree["constant_data"]["constant"].sel(mode="time").item()
    assert_close(np.array(got), np.array(model.constants_["time"]))


# 2026-11: ArviZ announces its next version when imported
@pytest.mark.filterwarnings("ignore:\\s*ArviZ is undergoing:FutureWarning")
def test_arviz_reads_the_tree() -> None:
    arviz = pytest.importorskip("arviz")
    data = arviz.from_datatree(quick_svi().to_datatree())
    table = arviz.summary(data, var_names=["noise", "constant"])
    assert_equal(list(table.index), ["noise", "constant[cell]", "constant[time]"])


def test_a_mode_called_like_a_part_of_the_tree_is_refused() -> None:
    post = exact(
        FunctionalTucker(max_iter=0).fit({"draw": [0.0, 1.0]}, [0.0, 1.0]), {"draw": [0.0, 1.0]}, [0.0, 1.0]
    )
    with pytest.raises(tenfac.DataError) as error:
        post.to_datatree()
    assert_says(error, "'draw'", "Rename the column")


# --- kernels of GPyTorch ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 2026-07: gpytorch's own import, torch.jit
def test_a_kernel_of_gpytorch_stands_in_for_a_matern() -> None:
    kernels = pytest.importorskip("gpytorch.kernels")
    model, table, y = small()
    same = kernels.MaternKernel(nu=1.5)
    same.lengthscale = 1.0
    plain = pyro_model(model, table, y)
    # gpytorch centers its inputs, which rounds their distances
    given = pyro_model(model, table, y, kernels={"time": same})
    assert_below(abs(given.log_density() - plain.log_density()), 1e-5, "difference of log densities")
    smooth = kernels.RBFKernel()
    smooth.lengthscale = 1.0
    other = pyro_model(model, table, y, kernels={1: smooth}, prior="sde")
    assert_equal(other.prior.mode, 2)  # states need a Matérn
    dense = pyro_model(model, table, y, kernels={1: smooth})
    assert_below(abs(other.log_density() - dense.log_density()), 1e-6, "difference of log densities")
    assert_above(abs(dense.log_density() - plain.log_density()), 1e-2, "change by the kernel")
    assert all(parameter.requires_grad for parameter in smooth.parameters())  # the user's own is left alone


# --- refusals ---------------------------------------------------------------------------------------------

LINE = ([[0.0], [0.5], [1.0]], [0.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "matern"}, ("'gp' or 'sde'", "'matern'")),
        ({"fixed": True}, ("fit the model first",)),
        ({"kernels": {0: 3.0}}, ("GPyTorch kernel", "float")),
        ({"kernels": {1: abs}}, ("no mode 1",)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(tenfac.DataError) as error:
        pyro_model(FunctionalTucker(), *LINE, **options)
    assert_says(error, *words)


def test_runs_that_cannot_be_are_refused() -> None:
    model = FunctionalTucker(max_iter=0).fit(*LINE)
    for run, options, word in (
        (svi, {"guide": "mean field"}, "'mean field'"),
        (svi, {"max_iter": 2}, "max_iter"),
        (svi, {"learning_rate": -1.0}, "learning_rate"),
        (svi, {"learning_rate": "fast"}, "svi: `learning_rate` must be a finite number above 0; got 'fast'"),
        (svi, {"learning_rate": np.inf}, "got inf"),
        (svi, {"verbose": "yes"}, "svi: `verbose` must be 0"),
        (nuts, {"verbose": 3}, "nuts: `verbose` must be 0"),
        (svi, {"kernels": "rbf"}, "svi: `kernels` must be a dict"),
        (nuts, {"prior": "GP"}, "nuts: `prior` must be 'gp' or 'sde'"),
        (svi, {"sample_weight": [1, 2]}, "svi: `sample_weight` must hold one finite number per row"),
        (nuts, {"chains": 0}, "chains"),
        (nuts, {"num_samples": 2.5}, "num_samples"),
        (nuts, {"fixed": True, "collapsed": True}, "nothing is left to sample"),
    ):
        with pytest.raises(tenfac.DataError) as error:
            run(model, *LINE, **options)
        assert_says(error, word)


def test_a_number_of_draws_is_not_taken_for_a_seed() -> None:
    model = FunctionalTucker(max_iter=0).fit(*LINE)
    post = svi(model, *LINE, fixed=True, max_iter=10, num_samples=3)
    with pytest.raises(TypeError) as error:
        post.sample([[0.2]], 5)  # of FunctionalTucker.sample the number of draws
    assert_says(error, "PyroPosterior.sample", "random_state=")


def test_data_that_cannot_be_are_refused() -> None:
    model = FunctionalTucker(max_iter=0, response="logit").fit(*LINE)
    labels = {"a": ["x", "y"]}
    big = np.linspace(0, 1, 1200)[:, None]
    scattered = np.random.default_rng(0).random((200, 3))
    for call, words in (
        (lambda: pyro_model(model, [[0.5]], [7.0]), ("takes y between", "7")),
        (lambda: pyro_model(model, [[0.5]], [np.nan]), ("one finite value per row",)),
        (lambda: svi(model, [[0.5]], ["half"]), ("svi: `y` must hold real numbers", "'half'")),
        (lambda: pyro_model(FunctionalTucker(), big, big[:, 0]), ("at most 1000", "1200")),
        (
            lambda: pyro_model(FunctionalTucker(), labels, [0.0, 1.0], prior="sde"),
            ("continuous Matérn mode",),
        ),
        (
            lambda: pyro_model(FunctionalTucker(), scattered, big[:200, 0], prior="sde"),
            ("no grid", "prior='gp'"),
        ),
        (lambda: pyro_model(3, *LINE), ("FunctionalTucker", "int")),
        (lambda: pyro_model(FunctionalTucker(likelihood="poisson"), *LINE), ("'gaussian'", "'poisson'")),
        (lambda: pyro_model(FunctionalTucker(noise="slice"), *LINE), ("noise='constant'", "'slice'")),
    ):
        with pytest.raises(tenfac.DataError) as error:
            call()
        assert_says(error, *words)
