"""NUTS and stochastic variational inference of the Pyro program, leaving no trace in Pyro or torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO, autoguide
from pyro.infer.mcmc.adaptation import BlockMassMatrix
from pyro.ops.stats import effective_sample_size, fit_generalized_pareto, split_gelman_rubin

from tenfac.bayes.pyro.posterior import PyroPosterior, conditional
from tenfac.bayes.pyro.prior import one_thread, tensor
from tenfac.bayes.pyro.program import PyroModel
from tenfac.core.errors import DataError, warn_user
from tenfac.core.progress import Progress
from tenfac.core.report import Report

Array = NDArray[Any]
Reader = Callable[[Any], list[Array]]
GUIDES = ("structured", "multivariate", "lowrank", "diagonal")
_R_HAT, _ESS = 1.05, 100.0
_PARETO_K = 0.7
_LAST_STEP = 0.01  # of the learning rate
_PARTS = 50  # of the steps of SVI, for the history


@contextmanager
def _isolated(rng: np.random.Generator) -> Iterator[None]:
    """A parameter store of one's own, and torch's generator seeded from ``rng`` and then put back.

    One thread meanwhile. Pyro's checks of every distribution are off: shapes and signs hold by construction.
    """
    with (
        one_thread(),
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
    ):
        torch.default_generator.manual_seed(int(rng.integers(2**62)))
        yield


def run_nuts(
    model: PyroModel, reader: Reader, num_samples: int, warmup: int, chains: int,
    rng: np.random.Generator, seed: int | None, verbose: int,
) -> PyroPosterior:  # fmt: skip
    """Chains one after another, each with a seed of its own."""
    started = time.perf_counter()
    samples, diverging = [], np.zeros((chains, num_samples), dtype=bool)
    for chain in range(chains):
        with _isolated(rng):
            marks: list[int] = []

            def watch(kernel: NUTS, _: Any, stage: str, __: int, marks: list[int] = marks) -> None:
                if stage.startswith("Sample"):
                    marks[:] = kernel.diagnostics()["divergences"]

            mcmc = MCMC(_kernel(model), num_samples, warmup, hook_fn=watch, disable_progbar=verbose < 1)
            mcmc.run()
            samples.append(mcmc.get_samples())
            diverging[chain, marks] = True
    sites = {name: torch.stack([part[name] for part in samples]) for name in samples[0]}
    theta, latent = _draws(model, sites, rng)
    diagnostics = _diagnostics(model, theta, latent)
    diagnostics["divergences"] = float(diverging.sum())
    info = _report(diagnostics, num_samples, time.perf_counter() - started, seed)
    if not info.converged:
        _warn("nuts", f"{info.reason}. Raise num_samples and warmup")
    return PyroPosterior(model, theta, latent, diverging, diagnostics, info, reader)


def run_svi(
    model: PyroModel, reader: Reader, steps: int, guide: str | Callable[..., Any], learning_rate: float,
    num_samples: int, rng: np.random.Generator, seed: int | None, verbose: int,
) -> PyroPosterior:  # fmt: skip
    """Maximise the ELBO by Adam with a falling step, then draw from the guide."""
    started = time.perf_counter()
    with _isolated(rng):
        made = _guide(model, guide)
        adam = pyro.optim.ClippedAdam({"lr": learning_rate, "lrd": _LAST_STEP ** (1 / steps)})
        svi = SVI(model, made, adam, Trace_ELBO())
        with Progress("svi", steps, verbose, unit="step") as progress:
            losses = [_stepped(svi, progress) for _ in range(steps)]
        sites, log_weights = _guide_draws(model, made, num_samples)
    theta, latent = _draws(model, sites, rng)
    pareto = _pareto_k(log_weights)
    history, rise, doubt = _settled(-np.array(losses))
    converged = bool(rise <= 0.5 + 3 * doubt)
    notes: tuple[str, ...] = ()
    if pareto > _PARETO_K:
        notes = (
            f"Pareto k = {pareto:.2f} is above {_PARETO_K}: the guide does not cover the posterior's tails. "
            "Means may still be good; check with nuts, or take guide='multivariate' and a larger max_iter.",
        )
    reason = "the ELBO stopped rising" if converged else f"the ELBO rose by {rise:.2g} over the last fifth"
    info = Report(
        converged=converged, reason=reason, n_iter=steps, n_evals=steps, history=history,
        seconds=time.perf_counter() - started, random_state=seed, warnings=notes,
    )  # fmt: skip
    if not converged:
        _warn("svi", f"{reason}. Raise max_iter or learning_rate")
    diverging = np.zeros((1, num_samples), dtype=bool)
    return PyroPosterior(model, theta, latent, diverging, {"pareto_k": pareto}, info, reader)


def _stepped(svi: SVI, progress: Progress) -> float:
    progress.move()
    return svi.step()


class _Scales(BlockMassMatrix):
    """A mass matrix that starts at the posterior variances expected at the reference hyperparameters."""

    def __init__(self, variances: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self._variances = variances

    def configure(self, mass_matrix_shape: Any, adapt_mass_matrix: bool = True, options: Any = None) -> None:
        super().configure(mass_matrix_shape, adapt_mass_matrix, options or {})
        scales = {names: torch.cat([self._variances[name] for name in names]) for names in mass_matrix_shape}
        self.inverse_mass_matrix = {
            names: torch.diag(scale) if len(mass_matrix_shape[names]) == 2 else scale
            for names, scale in scales.items()
        }


def _kernel(model: PyroModel) -> NUTS:
    """NUTS, with a full mass matrix for the hyperparameters."""
    variances = {"hyper": torch.full((int(model.free.sum()),), 0.3, dtype=torch.float64)}
    if not model.collapsed:
        variances["white"] = model.expected_variances()
    start = autoguide.initialization.init_to_uniform(radius=1.0)
    kernel = NUTS(model, init_strategy=start, full_mass=[] if model.fixed else [("hyper",)])
    kernel.mass_matrix_adapter = _Scales(variances)
    return kernel


def _guide(model: PyroModel, guide: str | Callable[..., Any]) -> Callable[..., Any]:
    """A guide by name: ``structured`` has normal hyperparameters, and a normal f that moves with them."""
    if callable(guide):
        return guide(model) if isinstance(guide, type) else guide
    if guide == "structured":
        sites = [*([] if model.fixed else ["hyper"]), *([] if model.collapsed else ["white"])]
        depends = {}
        if len(sites) == 2:  # Pyro's own "linear" is in torch's default precision
            move = torch.nn.Linear(int(model.free.sum()), model.prior.size, bias=False).double()
            torch.nn.init.zeros_(move.weight)
            depends = {"white": {"hyper": move}}
        return autoguide.AutoStructured(
            model, conditionals=dict.fromkeys(sites, "mvn"), dependencies=depends,
            init_loc_fn=autoguide.initialization.init_to_median,
        )  # fmt: skip
    makers = {
        "multivariate": autoguide.AutoMultivariateNormal,
        "lowrank": autoguide.AutoLowRankMultivariateNormal,
        "diagonal": autoguide.AutoNormal,
    }
    return makers[guide](model, init_loc_fn=autoguide.initialization.init_to_median)


def _guide_draws(
    model: PyroModel, guide: Callable[..., Any], count: int
) -> tuple[dict[str, torch.Tensor], Array]:
    """Draws from the guide, (1, count, ...) per site, and their log importance weights."""
    draws, weights = [], []
    with torch.no_grad():
        for _ in range(count):
            trace = pyro.poutine.trace(guide).get_trace()
            replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=trace)).get_trace()
            weights.append(float(replayed.log_prob_sum() - trace.log_prob_sum()))
            sites = [name for name in ("hyper", "white") if name in replayed.nodes]
            draws.append({name: replayed.nodes[name]["value"] for name in sites})
    return {name: torch.stack([d[name] for d in draws])[None] for name in draws[0]}, np.array(weights)


def _draws(model: PyroModel, sites: dict[str, torch.Tensor], rng: np.random.Generator) -> tuple[Array, Array]:
    """Hyperparameters and f from the sampled sites; f is drawn given y where it was integrated out."""
    lead = next(iter(sites.values())).shape[:2]
    reference = tensor(model.reference.pack())
    with torch.no_grad(), one_thread():
        theta = reference.expand(*lead, -1) if model.fixed else model.theta(sites["hyper"])
        if model.fixed:
            return theta.numpy().copy(), model.function(model.hyper_of(reference), sites["white"]).numpy()
        latent = torch.empty(*lead, model.points.shape[0], dtype=torch.float64)
        for at in np.ndindex(*lead):
            hyper = model.hyper_of(theta[at])
            if not model.collapsed:
                latent[at] = model.function(hyper, sites["white"][at])
                continue
            mean, cov = conditional(model, hyper, tensor(model.points), None)
            values, vectors = torch.linalg.eigh(cov)
            white = tensor(rng.normal(size=mean.shape[0]))
            latent[at] = mean + vectors @ (values.clamp(min=0.0).sqrt() * white)
    return theta.numpy(), latent.numpy()


def _diagnostics(model: PyroModel, theta: Array, latent: Array) -> dict[str, float]:
    """Worst r_hat and effective sample size over f and the free hyperparameters (loadings have no sign)."""
    if not model.fixed:
        free = model.free.copy()
        free[free.size - model.reference.n_loadings :] = False
        latent = np.concatenate([theta[..., free], latent], axis=-1)
    draws = tensor(latent)
    if draws.shape[1] < 4:
        return {"r_hat": float("nan"), "ess": float("nan")}
    r_hat = split_gelman_rubin(draws, chain_dim=0, sample_dim=1)
    ess = effective_sample_size(draws, chain_dim=0, sample_dim=1)
    return {"r_hat": float(r_hat.max()), "ess": float(ess.min())}


def _report(diagnostics: dict[str, float], num_samples: int, seconds: float, seed: int | None) -> Report:
    r_hat, ess, divergences = (diagnostics[name] for name in ("r_hat", "ess", "divergences"))
    notes = (f"{divergences:.0f} divergent transitions: draws may miss a part",) if divergences else ()
    reason = f"r_hat {r_hat:.3f}, {ess:.0f} effective draws, {divergences:.0f} divergences"
    converged = bool(r_hat <= _R_HAT and ess >= _ESS and not divergences)
    return Report(
        converged=converged, reason=reason, n_iter=num_samples, seconds=seconds, random_state=seed,
        warnings=notes,
    )  # fmt: skip


def _settled(elbo: Array) -> tuple[tuple[float, ...], float, float]:
    """Averages over parts of the steps; the rise from the last but one fifth to the last; its error."""
    history = tuple(float(part.mean()) for part in np.array_split(elbo, min(_PARTS, elbo.size)))
    fifth = max(1, elbo.size // 5)
    before, after = elbo[-2 * fifth : -fifth], elbo[-fifth:]
    if not before.size:
        return history, np.inf, 0.0
    doubt = float(np.sqrt((before.var() + after.var()) / fifth))
    return history, float(after.mean() - before.mean()), doubt


def _pareto_k(log_weights: Array) -> float:
    """Tail index of the importance weights.

    References
    ----------
    .. [1] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, Yes, but Did It Work?: Evaluating Variational
       Inference, ICML 2018, algorithm 1.
    """
    ordered = np.sort(np.exp(log_weights - log_weights.max()))
    tail = int(np.ceil(min(0.2 * ordered.size, 3 * np.sqrt(ordered.size))))
    if tail < 10:
        return float("nan")
    above = ordered[-tail:] - ordered[-tail - 1]
    return float(fit_generalized_pareto(tensor(above[above > 0]))[0]) if (above > 0).sum() >= 10 else -np.inf


def _warn(where: str, what: str) -> None:
    warn_user(f"{where}: not converged: {what}.")


def check_guide(guide: str | Callable[..., Any]) -> None:
    """Refuse an unknown name."""
    if not callable(guide) and guide not in GUIDES:
        raise DataError(f"svi: `guide` must be one of {GUIDES}, or a Pyro guide; got {guide!r}.")
