"""The Pyro program with terms beside the product and scales of slices: the same model as the engine's."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import tenfac
from tenfac import FunctionalTucker, nuts, pyro_model
from tenfac.bayes.collapsed.basis import ModeBasis
from tenfac.bayes.collapsed.hyper import Hyper, log_prior
from tenfac.bayes.collapsed.prediction import Prediction
from tenfac.bayes.collapsed.terms import Main, Product
from tests.checks import assert_above, assert_below, assert_equal, assert_relative, assert_says

torch = pytest.importorskip("torch")
pytest.importorskip("pyro")

TERMS = ("mains", "residual", "cells")
# labels and places inside and outside; the first two times were observed, the others were not
NEW = {
    "kind": ["b", "a", "c", "b", "c"],
    "place": [0.5, 33.0, -4.0, 12.0, 33.0],
    "height": [7.0, 1.0, 0.0, 12.0, 2.0],
    "time": [4.0, 9.0, 3.3, -5.0, 30.0],
}


def places() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Seven places of three kinds at 13 times, 60 rows, some twice."""
    rng = np.random.default_rng(2)
    place, time = rng.integers(0, 7, 60), np.concatenate([np.arange(13), rng.integers(0, 13, 47)])
    table = {
        "kind": np.array(list("abcabba"))[place],
        "place": np.array([0.0, 2, 3, 11, 20, 31, 40])[place],
        "height": np.array([5.0, 1, 9, 2, 7, 3, 0])[place],
        "time": time.astype(float),
    }
    y = np.sin(time / 3 + table["place"] / 20) + 0.4 * rng.normal(size=(7, 13))[place, time]
    return table, 10 + 3 * (y + 0.2 * rng.normal(size=60))


@cache
def model_with(terms: tuple[str, ...], scaled: bool = False) -> FunctionalTucker:
    """A few steps of learning; then every function is kept, so that nothing but rounding differs."""
    table, y = places()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tenfac.ConvergenceWarning)
        model = FunctionalTucker(terms=terms, noise="constant", max_iter=3).fit(table, y)
    hyper, task = model._learned.hyper, model._task
    if scaled:
        rng = np.random.default_rng(4)
        task = replace(task, scales=rng.uniform(0.3, 3, task.grids[task.exact].size), slice_dof=5.0)
        sizes = [
            grid.size if kernel is None else 0 for grid, kernel in zip(task.grids, task.kernels, strict=True)
        ]
        hyper = replace(hyper, loadings=hyper.with_loadings(tuple(sizes), 1).loadings)
    problem = task.problem(hyper)
    mains = tuple(
        replace(term, basis=ModeBasis.build(hyper.main(term.mode, term.kernel), term.basis.nodes))
        if isinstance(term, Main)
        else term
        for term in problem.mains
    )
    product = Product(task.kernels, task.exact, problem.basis, problem.basis.size)
    model._task = task
    model._set_posterior(Prediction.build(task.on(product, mains, hyper), hyper))
    return model


def posterior(model: FunctionalTucker, **options: Any) -> Any:
    """One draw, at the model's hyperparameters."""
    from tenfac.bayes.pyro.posterior import PyroPosterior

    program = replace(pyro_model(model, *places(), **options), fixed=True)
    theta = program.reference.pack()[None, None]
    latent = np.linspace(-1, 1, program.points.shape[0])[None, None]
    flags = np.zeros((1, 1), dtype=bool)
    return PyroPosterior(program, theta, latent, flags, {}, model.info_, model._read_positions)


CASES = [((name,), False) for name in TERMS] + [(("residual",), True), (TERMS, True)]


@pytest.mark.parametrize(("terms", "scaled"), CASES, ids=str)
def test_the_log_density_with_terms_is_the_evidence_of_the_engine(
    terms: tuple[str, ...], scaled: bool
) -> None:
    model = model_with(terms, scaled)
    program = pyro_model(model, *places())
    assert_equal(len(program.points) < 60, True)  # some rows are repeats
    assert_relative(program.log_density(), model._prediction.log_evidence, 1e-8)


@pytest.mark.parametrize(("terms", "scaled"), CASES, ids=str)
def test_given_the_hyperparameters_predictions_with_terms_are_those_of_the_engine(
    terms: tuple[str, ...], scaled: bool
) -> None:
    model, (table, _) = model_with(terms, scaled), places()
    post = posterior(model)
    for include_noise in (False, True):
        for rows, known in ((NEW, slice(2 * scaled, None)), (table, slice(60 * scaled, None))):
            mean, std = post.predict(rows, return_std=True, include_noise=include_noise)
            want = model.predict(rows, return_std=True, include_noise=include_noise)
            assert_relative(mean, want[0], 1e-7)
            # where a slice has a scale, the model widens its std by what is not known of the scale
            assert_relative(std[known], want[1][known], 1e-7)


def test_what_a_draw_tells_of_a_row_knows_the_scale_of_its_slice() -> None:
    model, (table, y) = model_with(("residual",), True), places()
    post = posterior(model)
    scale = model._task.scales[table["time"].astype(int)]
    want = norm.logpdf(y, post.f[0, 0], model.noise_ * np.sqrt(scale))
    assert_relative(post.to_datatree()["log_likelihood"]["y"].values[0, 0], want, 1e-10)
    loadings = model._prediction.hyper.loadings[0]
    own = np.eye(3) + model.constants_["kind"]
    got = post.hyperparameters["label_covariance_kind"][0, 0]
    assert_relative(got, own + loadings @ loadings.T, 1e-12)


def test_hyperparameters_of_terms_have_their_hyperprior_and_each_moves_the_density() -> None:
    program = pyro_model(model_with(TERMS, True), *places())
    count, heights = int(program.free.sum()), []
    # four modes, a label first; the lengthscales of time are not used within slices and cells
    assert_equal(count, 2 + (1 + 3 * 4) + (1 + 3 * 2) + 4 + 4 + 3)
    for white in torch.as_tensor(np.random.default_rng(0).normal(size=(3, count))):
        slope = torch.autograd.functional.jacobian(lambda w: program.theta(w)[program.free], white)
        density = torch.distributions.Normal(0, 1).log_prob(white).sum() - slope.diagonal().log().sum()
        heights.append(float(density) - log_prior(program.reference.unpack(program.theta(white).numpy()))[0])
    assert_below(np.ptp(heights), 1e-9, "log density minus hyperprior, from draw to draw")
    white = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    hyper = program.hyper_of(program.theta(white))
    value = program.prior.log_density(hyper, program._means, program.noise_of_means(hyper))
    (gradient,) = torch.autograd.grad(value, white)
    # constants, scale, noise, terms: all but the three loadings, at zero: their saddle
    assert_above(gradient[:-3].abs().min(), 1e-8, "smallest derivative")


def test_variances_of_terms_are_among_the_hyperparameters() -> None:
    model = model_with(TERMS, True)
    tree, hyper = posterior(model).to_datatree()["constant_data"], model._prediction.hyper
    assert_relative(tree["main_variance"].values, np.exp(hyper.mains[:, 0]), 1e-12)
    assert_equal(tree["main_variance"].dims, ("mode",))
    assert_relative(tree["residual_variance"].item(), np.exp(hyper.residual[0]), 1e-12)
    assert_relative(tree["cell_variance"].item(), np.exp(hyper.cells[0]), 1e-12)


def test_the_variance_is_the_diagonal_of_the_covariance() -> None:
    model = model_with(TERMS, True)
    program, x = pyro_model(model, *places()), torch.as_tensor(np.column_stack(model._read_positions(NEW)))
    hyper = program.hyper_of(program.reference.pack())
    own = program.dense.covariance(hyper, x, x).diagonal()
    assert_relative(program.dense.variance(hyper, x).numpy(), own.numpy(), 1e-12)


def test_an_estimator_that_is_not_fitted_has_the_terms_it_names_and_no_others() -> None:
    table, y = places()
    for terms, sizes in (("auto", (0, 0, 0)), (("residual", "cells"), (0, 5, 5)), ("mains", (8, 0, 0))):
        start = pyro_model(FunctionalTucker(terms=terms), table, y).reference
        assert_equal(tuple(getattr(start, name).size for name in TERMS), sizes)
    named = pyro_model(FunctionalTucker(terms="residual"), table, y)
    hyper = Hyper.start(4).with_terms(residual=True)
    gap = np.abs(named.points[:, None] - named.points[None])
    gap[..., 0] = gap[..., 0] != 0
    own = (gap[..., 3] == 0) * np.exp(hyper.residual[0] - gap[..., :3] @ np.exp(-hyper.residual[1:4]))
    bare = pyro_model(FunctionalTucker(), table, y)
    points = bare.dense.points
    with_residual, without = (
        p.dense.covariance(p.hyper_of(p.reference.pack()), points, points).numpy() for p in (named, bare)
    )
    assert_relative(with_residual - without, own, 1e-9)


def test_terms_that_a_program_cannot_have_are_refused() -> None:
    line, labels = {"time": [0.0, 1.0, 2.0]}, {"a": list("xyzw"), "time": [0.0, 1.0, 0.0, 1.0]}
    for model, rows, options, words in (
        (model_with(("residual",)), places(), {"prior": "sde"}, ("['residual']", "prior='gp'", "terms=()")),
        (FunctionalTucker(terms="mains"), (line, [1.0, 0.0, 2.0]), {}, ("two modes", "one mode")),
        (
            FunctionalTucker(terms="residual"),
            (labels, [1.0, 0, 2, 1]),
            {},
            ("discrete longest mode", "Leave"),
        ),
    ):
        with pytest.raises(tenfac.DataError) as error:
            pyro_model(model, *rows, **options)
        assert_says(error, *words)


@pytest.mark.slow
def test_nuts_with_a_residual_is_the_posterior_of_the_engine() -> None:
    model, (table, y) = model_with(("residual",)), places()
    post = nuts(model, table, y, fixed=True, num_samples=1000, warmup=200)
    assert post.info.converged, repr(post.info)
    mean, std = model.predict(table, return_std=True)
    off = np.abs((post.f.mean((0, 1)) - mean) / std).max()
    assert_below(off, 4 / post.diagnostics["ess"] ** 0.5, "difference of means, Monte-Carlo error times 4")
    ratio = post.f.std((0, 1)) / std
    assert_above(ratio.min(), 0.9, "least ratio of std")
    assert_below(ratio.max(), 1.1, "largest ratio of std")
