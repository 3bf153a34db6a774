"""The inferences of ``FunctionalTucker`` by name: how each fits, and how its fit is written to a file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes import stored
from tenfac.bayes.likelihoods.named import NoiseShape, likelihood_of
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.settings import first_lengthscales, limits_of
from tenfac.core.errors import ConvergenceWarning, DataError, warn_user

Array = NDArray[Any]
Columns = list[NDArray[Any]]
Arrays = dict[str, NDArray[Any]]
Fitter = Callable[[Columns, Array, Array, float, Any], None]
# what some inferences set and others do not: a fit by another one takes them away
_SOME_SET = (
    "exact_mode_",
    "constants_",
    "qualities_",
    "label_covariances_",
    "core_",
    "_task",
    "_learned",
    "kernels_",
    "terms_",
    "dof_",
    "slice_dof_",
    "slice_scales_",
    "_likelihood",
    "_slice_mode",
    "_stream",
    "_noise_shape",
    "_counted",
    "_tree",
)


def fitter_of(model: Any) -> Fitter:
    """What fits by the inference that ``model.inference`` names: sets ``_prediction`` and what is public."""
    for name in _SOME_SET:
        vars(model).pop(name, None)
    model._fitted_by = model.inference
    if model.inference == "collapsed":
        return model._search
    return partial(_without_journal, model, _FITS[model.inference])


def state_of(model: Any) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a fitted model."""
    if model._fitted_by == "collapsed":
        return stored.state_of(model)
    if model._fitted_by == "cep":
        from tenfac.bayes.cep.stored import state_of

        own, arrays = state_of(model._prediction)
        header = {**stored.header_of(model), "cep": own}
        return header, {**stored.indices_of(model), **arrays}
    raise DataError(
        f"save: a model fitted with inference={model._fitted_by!r} holds draws of a Pyro program, which have "
        "no file of tenfac. Keep the draws by model.posterior_.to_netcdf(path), or save a fit by "
        "inference='collapsed'."
    )


def restored(cls: Any, header: dict[str, Any], arrays: Arrays) -> Any:
    """Inverse of ``state_of``."""
    if header["inference"] == "collapsed":
        return stored.restore(cls, header, arrays)
    from tenfac.bayes.cep.stored import restore

    model = stored.bare(cls, header, arrays)
    _describe_cep(model, restore(header["cep"], arrays))
    model.info_ = stored.report_of(header)
    return model


def _without_journal(
    model: Any,
    fit: Callable[..., None],
    columns: Columns,
    y: Array,
    weights: Array,
    started: float,
    journal: Any,
) -> None:
    if journal is not None:
        raise DataError(
            f"FunctionalTucker.fit: `checkpoint` needs inference='collapsed'; got "
            f"{model.inference!r}. Leave it out."
        )
    fit(model, columns, y, weights, started)


# --- cep: learned functions by conditional moments --------------------------------------------------------


def _fit_cep(model: Any, columns: Columns, y: Array, weights: Array, started: float) -> None:
    from tenfac.bayes.cep import fit_cep

    positions = [index.positions(column) for index, column in zip(model._modes, columns, strict=True)]
    diagonal = model.core == "diagonal"
    max_iter, tol = limits_of(model)
    latent = _scaled(model, y, weights)
    with _unwarned():
        fit = fit_cep(
            positions, latent, weights=weights, kernels=model._kernels,
            rank=model._rank[0] if diagonal else model._rank, form="cp" if diagonal else "tucker",
            max_iter=max_iter, tol=tol, prune=isinstance(model.rank, str),
            lengthscales=first_lengthscales(model.kernel, model._modes),
            random_state=model.random_state, verbose=int(model.verbose),
        )  # fmt: skip
    _describe_cep(model, fit)
    model.info_ = replace(fit.info, seconds=time.perf_counter() - started)
    _say_unfinished(model, max_iter)


def _describe_cep(model: Any, fit: Any) -> None:
    """Set what is public from a fit."""
    from tenfac.bayes.cep.canonical import Canonical

    model._prediction, response = fit, model._response
    canonical = Canonical.of(fit)
    model.rank_ = fit.rank
    model.core_ = canonical.core_in(response.offset, response.spread)
    model.lengthscales_ = {
        index.name: canonical.lengthscale(n) * index.span
        for n, index in enumerate(model._modes)
        if not index.discrete
    }
    model.noise_ = fit.noise * response.unit
    _describe(model, fit.info.n_iter)


# --- svi and nuts: the program of pyro_model --------------------------------------------------------------


def _fit_pyro(model: Any, columns: Columns, y: Array, weights: Array, started: float) -> None:
    from tenfac.bayes.pyro import model as pyro_model

    run: Any = {"svi": pyro_model.svi, "nuts": pyro_model.nuts}[model.inference]
    pyro_model.require(f"FunctionalTucker(inference={model.inference!r})")
    from tenfac.bayes.pyro.function import PyroFunction

    steps, _ = limits_of(model)
    names = ("max_iter",) if model.inference == "svi" else ("num_samples", "warmup")
    options = dict.fromkeys(names, steps)
    discrete = [n for n, index in enumerate(model._modes) if index.discrete]
    source = type(model)(discrete=discrete, kernel=model.kernel, label_rank=model.label_rank)
    table = dict(zip([index.name for index in model._modes], columns, strict=True))
    with _unwarned():
        posterior = run(
            source, table, y, weights, random_state=model.random_state, verbose=int(model.verbose), **options
        )
    model._response = posterior.model.response
    model._beyond = float(weights @ model._response.log_slope(y))
    info = replace(posterior.info, seconds=time.perf_counter() - started)
    posterior = replace(posterior, info=info, to_columns=model._read_positions)
    model._prediction = PyroFunction(posterior, model.inference)
    values = {name: np.median(draws, axis=(0, 1)) for name, draws in posterior.hyperparameters.items()}
    model.rank_ = tuple(index.size for index in model._modes)
    lines = [index.name for index in model._modes if not index.discrete]
    model.lengthscales_ = dict(zip(lines, values["lengthscale"].tolist(), strict=True))
    model.constants_ = dict(zip(model.mode_names_, values["constant"].tolist(), strict=True))
    covariances = (name for name in values if name.startswith("label_covariance_"))
    model.label_covariances_ = {name.removeprefix("label_covariance_"): values[name] for name in covariances}
    model.noise_ = float(values["noise"])
    model.info_ = info
    _describe(model, info.n_iter)
    _say_unfinished(model, steps)


# --- what these share -------------------------------------------------------------------------------------


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without the ConvergenceWarning of the function called, which the estimator says in its own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _say_unfinished(model: Any, max_iter: int) -> None:
    if not model.info_.converged:
        warn_user(
            f"FunctionalTucker: inference={model.inference!r} did not converge: {model.info_.reason}. Raise "
            f"max_iter above {max_iter}."
        )


def _scaled(model: Any, y: Array, weights: Array) -> Array:
    """Values of mean zero and variance one; keeps the way back."""
    model._response = Response.start(model.response, y, weights)
    model._beyond = float(weights @ model._response.log_slope(y))
    return model._response.latent(y)


def _describe(model: Any, n_iter: int) -> None:
    evidence = model._prediction.log_evidence
    model.n_iter_ = n_iter
    model.bounds_ = model._response.bounds
    model._slice_mode, variance = None, (model.noise_ / model._response.unit) ** 2
    model._likelihood = likelihood_of(model.likelihood, model._response, variance, NoiseShape())
    model.log_evidence_ = None if evidence is None else evidence + model._beyond
    model.dof_, model.slice_dof_, model.slice_scales_ = np.inf, np.inf, {}


_FITS: dict[str, Callable[..., None]] = {
    "cep": _fit_cep,
    "svi": _fit_pyro,
    "nuts": _fit_pyro,
}
