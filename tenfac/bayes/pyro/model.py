"""``FunctionalTucker`` as a Pyro program, for NUTS and stochastic variational inference on small data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from tenfac.bayes.collapsed.choose import choose_exact
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.columns import numbers_of, weights_of
from tenfac.bayes.functional_tucker import FunctionalTucker
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.settings import TERMS, check_numbers, check_response, mode_number, terms_of
from tenfac.core.arrays import generator
from tenfac.core.door import door
from tenfac.core.errors import DataError, MissingExtraError, check_verbose

if TYPE_CHECKING:
    from tenfac.bayes.collapsed.evidence import Problem
    from tenfac.bayes.pyro.posterior import PyroPosterior
    from tenfac.bayes.pyro.prior import DensePrior, StatePrior
    from tenfac.bayes.pyro.program import Observations, PyroModel

Array = NDArray[Any]
_MOST_POINTS = 1000
_MOST_WHITE = 3000  # numbers that make f in the state-space form
_MOST_STATE = 600


@door
def pyro_model(
    model: FunctionalTucker,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    prior: str = "gp",
    fixed: bool = False,
    collapsed: bool | None = None,
    kernels: Mapping[str | int, Callable[..., Any]] | None = None,
) -> PyroModel:
    """The generative model of ``FunctionalTucker`` as a Pyro program.

    ``f ~ GP(0, s prod_n (c_n + k_n))`` and ``y ~ N(f, noise)``, with the same weak hyperpriors on the
    logarithms of s, the noise, and every mode's constant, lengthscale and bend: a Tucker core of
    independent Gaussian entries on the modes' Karhunen-Loève functions [1]_. Terms beside the product (main
    effects, the residual within slices, effects of cells) are part of f. The program keeps all functions;
    hyperparameters are sampled, not maximised.

    Parameters
    ----------
    model : FunctionalTucker
        Fitted: its modes, its terms and scales of slices, its response and, if ``fixed``, its hyperparameters
        are those of the program, and X and y may be other rows (a thinned set). Not fitted: its settings, and
        the modes of X; no terms but those that ``terms`` names, and equal noise.
    X : array of shape (N, D), DataFrame, or dict of columns
    y : array, shape (N,)
    sample_weight : array, shape (N,), optional
        Numbers of repeats.
    prior : {"gp", "sde"}
        "gp" takes the covariance between the distinct points. "sde" writes the longest continuous mode as a
        state-space model: the same f, by a Markov chain along that mode. It knows the product only, no terms.
    fixed : bool
        Keep the hyperparameters of the fitted ``model``: then the posterior is that of ``model.predict``.
    collapsed : bool, optional
        Integrate f out, so that only hyperparameters are sampled and f is drawn given them. By default if
        they are sampled.
    kernels : dict, optional
        From mode to a GPyTorch kernel of variance one that stands in for its Matérn. It is called on the
        mode's bent axis in units of the lengthscale, so leave its own lengthscale at 1; its parameters are
        held as they are.

    Returns
    -------
    PyroModel
        A callable without arguments, for ``pyro.infer``; ``nuts`` and ``svi`` run it for you.

    Raises
    ------
    MissingExtraError
        If torch or Pyro is not installed.
    DataError
        For more than 1000 distinct points, ``fixed`` without a fitted model, "sde" without a continuous
        mode or with terms, and what ``FunctionalTucker.fit`` refuses.

    Notes
    -----
    Cost per evaluation: ``O(U^3)`` for U distinct points with "gp"; with "sde", ``T P^2`` for T indices of
    the long mode and P distinct points of the others if f is sampled, ``T P^3`` if it is integrated out.

    With a ``response`` other than the identity, its floor and ceiling are held. So are scales of slices:
    the model's own predictions widen slices with such a scale by what is not known of it.

    References
    ----------
    .. [1] S. Fang et al., Functional Bayesian Tucker Decomposition for Continuous-indexed Tensor Data, ICLR
       2024, arXiv:2311.04829, equations 4-8.

    Examples
    --------
    >>> program = pyro_model(FunctionalTucker(), [[0.0], [0.5], [1.0]], [1.0, 3.0, 2.0])
    >>> program
    PyroModel(3 points, dense prior, sites: hyper)
    """
    require("pyro_model")
    return _build(model, X, y, sample_weight, prior, fixed, collapsed, kernels)[0]


@door
def nuts(
    model: FunctionalTucker,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    num_samples: int = 500,
    warmup: int = 500,
    chains: int = 2,
    prior: str = "gp",
    fixed: bool = False,
    collapsed: bool | None = None,
    kernels: Mapping[str | int, Callable[..., Any]] | None = None,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> PyroPosterior:
    """Sample function and hyperparameters by NUTS.

    Parameters
    ----------
    model, X, y, sample_weight, prior, fixed, collapsed, kernels :
        As in ``pyro_model``.
    num_samples, warmup : int
        Draws kept, and steps of adaptation before them, per chain.
    chains : int
        Run one after another.
    random_state : int, numpy Generator or None
    verbose : {0, 1, 2}
        From 1 on a progress bar; there are no stages to log.

    Returns
    -------
    PyroPosterior
        ``.info.converged`` if r_hat is at most 1.05, there are 100 effective draws of every quantity, and no
        divergent transition; else one ConvergenceWarning.

    References
    ----------
    .. [1] M. D. Hoffman and A. Gelman, The No-U-Turn Sampler, JMLR 15 (2014), algorithm 6.

    Examples
    --------
    >>> X, y = [[0.0], [1.0]], [1.0, 3.0]
    >>> model = FunctionalTucker(max_iter=0).fit(X, y)
    >>> post = nuts(model, X, y, fixed=True, num_samples=250, warmup=30, chains=1)
    >>> post.f.shape
    (1, 250, 2)
    """
    require("nuts")
    for name, value, least in (("num_samples", num_samples, 1), ("warmup", warmup, 1), ("chains", chains, 1)):
        _check_count("nuts", name, value, least)
    check_verbose(verbose, "nuts")
    from tenfac.bayes.pyro.inference import run_nuts

    program, reader = _build(model, X, y, sample_weight, prior, fixed, collapsed, kernels)
    _check_sites(program)
    rng, seed = generator(random_state), _seed(random_state)
    return run_nuts(program, reader, int(num_samples), int(warmup), int(chains), rng, seed, int(verbose))


@door
def svi(
    model: FunctionalTucker,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    max_iter: int = 3000,
    guide: str | Callable[..., Any] = "structured",
    learning_rate: float = 0.03,
    num_samples: int = 1000,
    prior: str = "gp",
    fixed: bool = False,
    collapsed: bool | None = None,
    kernels: Mapping[str | int, Callable[..., Any]] | None = None,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> PyroPosterior:
    """Approximate the posterior by a guide, maximising the evidence lower bound.

    Parameters
    ----------
    model, X, y, sample_weight, prior, fixed, collapsed, kernels :
        As in ``pyro_model``.
    max_iter : int
        Of Adam, whose step falls to a hundredth of ``learning_rate``.
    guide : {"structured", "multivariate", "lowrank", "diagonal"}, class or callable
        "structured": a normal distribution of the hyperparameters and one of f whose mean moves with them.
        With ``collapsed``, f given the hyperparameters is exact whatever the guide. A class of
        ``pyro.infer.autoguide`` is made for the program; any other callable is a Pyro guide of its sites.
    learning_rate : float
    num_samples : int
        Draws from the guide.
    random_state : int, numpy Generator or None
    verbose : {0, 1, 2}
        From 1 on a progress bar; there are no stages to log.

    Returns
    -------
    PyroPosterior
        One chain. ``.info.converged`` if the bound rose by less than half a nat (and its noise) over the last
        fifth of the steps; ``.info.warnings`` tells when the guide does not cover the posterior, by the tail
        index of its importance weights.

    References
    ----------
    .. [1] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, Yes, but Did It Work?: Evaluating Variational
       Inference, ICML 2018, algorithm 1.

    Examples
    --------
    >>> X, y = [[0.0], [0.5], [1.0]], [1.0, 2.0, 3.0]
    >>> model = FunctionalTucker(max_iter=0).fit(X, y)
    >>> svi(model, X, y, fixed=True, max_iter=100, learning_rate=0.1, num_samples=200).info.converged
    True
    """
    require("svi")
    _check_count("svi", "max_iter", max_iter, 10)
    _check_count("svi", "num_samples", num_samples, 1)
    real = isinstance(learning_rate, Real) and not isinstance(learning_rate, bool)
    if not real or not 0 < learning_rate < np.inf:
        raise DataError(
            f"svi: `learning_rate` must be a finite number above 0; got {learning_rate!r}. Leave it out for "
            "0.03."
        )
    check_verbose(verbose, "svi")
    from tenfac.bayes.pyro.inference import check_guide, run_svi

    check_guide(guide)
    program, reader = _build(model, X, y, sample_weight, prior, fixed, collapsed, kernels)
    _check_sites(program)
    rng, seed = generator(random_state), _seed(random_state)
    return run_svi(
        program, reader, int(max_iter), guide, float(learning_rate), int(num_samples), rng, seed, int(verbose)
    )


def require(where: str) -> None:
    """Refuse to go on without torch and Pyro."""
    try:
        import pyro  # noqa: F401 (whether it is installed is what is asked)
    except ImportError as error:
        raise MissingExtraError(
            f"`{where}` needs torch and Pyro. Install them with: pip install 'tenfac[bayes]' (CPU: see "
            "README, Install)."
        ) from error


def _check_count(where: str, name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise DataError(f"{where}: `{name}` must be an integer from {least} up; got {value!r}.")


def _seed(random_state: Any) -> int | None:
    return int(random_state) if isinstance(random_state, int | np.integer) else None


def _check_sites(program: PyroModel) -> None:
    if program.fixed and program.collapsed:
        raise DataError(
            "arrays: with `fixed` and `collapsed` nothing is left to sample. Leave `collapsed` out, or "
            "take `program.log_density`."
        )


def _build(
    model: FunctionalTucker, X: Any, y: Any, sample_weight: Any, prior: str, fixed: bool,
    collapsed: bool | None, kernels: Mapping[str | int, Callable[..., Any]] | None,
) -> tuple[PyroModel, Callable[[Any], list[Array]]]:  # fmt: skip
    """The program, and a reader of tables to predict."""
    from tenfac.bayes.pyro.program import PyroModel

    if not isinstance(model, FunctionalTucker):
        raise DataError(f"arrays: `model` must be a FunctionalTucker; got {type(model).__name__}.")
    if prior not in ("gp", "sde"):
        raise DataError(f"arrays: `prior` must be 'gp' or 'sde'; got {prior!r}.")
    fitted = hasattr(model, "info_")
    if fixed and not fitted:
        raise DataError("arrays: `fixed` keeps learned hyperparameters; fit the model first.")
    if fixed and model._fitted_by != "collapsed":
        raise DataError(
            "arrays: `fixed` keeps the hyperparameters that inference='collapsed' learns; got a model "
            f"fitted with inference={model._fitted_by!r}. Fit it with 'collapsed', or leave `fixed` out."
        )
    source = model if fitted else clone(model)
    observations, response = _observe(source, X, y, sample_weight, fitted)
    problem = source._prediction.problem if fitted and source._fitted_by == "collapsed" else None
    exact = _exact_mode(source, observations) if problem is None else problem.exact
    reference = _start(source, exact) if problem is None else source._prediction.hyper
    dense = _dense(source, observations.points, kernels, exact, problem)
    program = PyroModel(
        modes=source._modes,
        observations=observations,
        response=response,
        prior=dense if prior == "gp" else _state(dense, reference),
        reference=reference,
        fixed=bool(fixed),
        collapsed=not fixed if collapsed is None else bool(collapsed),
    )

    def reader(table: Any) -> list[Array]:
        columns = source._read_columns(table)
        return [index.positions(column) for index, column in zip(source._modes, columns, strict=True)]

    return program, reader


def _observe(
    source: FunctionalTucker, X: Any, y: Any, sample_weight: Any, fitted: bool
) -> tuple[Observations, Response]:
    """The rows on the scale of the source; one that is not fitted learns its modes from them."""
    from tenfac.bayes.pyro.program import Observations

    if source.likelihood != "gaussian" or source.noise not in ("auto", "constant"):
        raise DataError(
            "arrays: the estimator must have likelihood='gaussian' and noise='auto' or noise='constant'; "
            f"got likelihood={source.likelihood!r}, noise={source.noise!r}. Make one without them."
        )
    if fitted:
        columns, y = source._read_columns(X), np.asarray(numbers_of(y, "arrays"), dtype=float)
        if y.shape != columns[0].shape or not np.isfinite(y).all() or y.size == 0:
            raise DataError(
                f"arrays: y must have one finite value per row; got shape {y.shape} for "
                f"{columns[0].size} rows, {int((~np.isfinite(y)).sum())} of them not finite. Drop these rows."
            )
    else:
        check_numbers(source.max_iter, source.max_functions, source.label_rank, source.tol)
        check_response(source.response)
        columns, names, y = source._read(X, y)
    weights = weights_of(sample_weight, y, "arrays")
    keep = weights > 0
    if not keep.any():
        raise DataError("arrays: every sample_weight is zero; at least one row must count.")
    columns, y, weights = [column[keep] for column in columns], y[keep], weights[keep]
    if not fitted:
        columns = source._learn_modes(columns, names)
    response = source._response if fitted else Response.start(source.response, y, weights)
    low, high = response.bounds
    if (y <= low).any() or (y >= high).any():
        raise DataError(
            f"arrays: the fitted response takes y between {low:.6g} and {high:.6g}; got {y.min():.6g} to "
            f"{y.max():.6g}. Fit the model on rows that span it."
        )
    positions = np.column_stack(
        [index.positions(column) for index, column in zip(source._modes, columns, strict=True)]
    )
    points, codes = np.unique(positions, axis=0, return_inverse=True)
    if points.shape[0] > _MOST_POINTS:
        raise DataError(
            f"arrays: at most {_MOST_POINTS} distinct points; got {points.shape[0]}. Thin the rows: "
            "FunctionalTucker itself takes them all."
        )
    seen = Observations(tuple(columns), y, response.latent(y), weights, points, codes.reshape(-1))
    return seen, response


def _exact_mode(source: FunctionalTucker, observations: Observations) -> int:
    """The mode whose slices a model that is not fitted would have."""
    task = source._make_task(tuple(observations.points.T), observations.means, observations.counts, 0)
    return choose_exact(task, 0, 0.0).exact


def _start(source: FunctionalTucker, exact: int) -> Hyper:
    sizes = tuple(index.size if index.discrete else 0 for index in source._modes)
    hyper, terms = Hyper.start(len(sizes)), terms_of(source.terms) or ()
    if terms and (source._modes[exact].discrete or len(sizes) == 1):
        what = "one mode" if len(sizes) == 1 else "a discrete longest mode"
        raise DataError(
            f"arrays: terms {terms} need two modes or more, the longest continuous; got {what}. Leave "
            "`terms` out."
        )
    hyper = hyper.with_terms(**dict.fromkeys(terms, True))
    return hyper.with_loadings(sizes, int(source.label_rank)) if source.label_rank else hyper


def _dense(
    source: FunctionalTucker,
    points: Array,
    kernels: Mapping[str | int, Any] | None,
    exact: int,
    problem: Problem | None,
) -> DensePrior:
    from tenfac.bayes.pyro.prior import DensePrior, ModeKernel, SliceScales, tensor

    if kernels is not None and not isinstance(kernels, Mapping):
        raise DataError(
            "arrays: `kernels` must be a dict from the name or number of a mode to a GPyTorch kernel; "
            f"got {type(kernels).__name__}. Write kernels={{{source.mode_names_[0]!r}: kernel}}."
        )
    given = {mode_number(mode, source.mode_names_, "arrays"): k for mode, k in (kernels or {}).items()}
    for n, kernel in given.items():
        if source._modes[n].discrete or not callable(kernel):
            raise DataError(
                f"arrays: `kernels` gives a continuous mode a GPyTorch kernel; got "
                f"{type(kernel).__name__} for the {source.kinds_[n]} mode {source.mode_names_[n]!r}."
            )
    swinging = [n for n, name in enumerate(source._kernels) if name == "oscillator"]
    if swinging:
        raise DataError(
            "arrays: the kernel of every continuous mode must be a Matérn kernel; got 'oscillator' for "
            f"mode {source.mode_names_[swinging[0]]!r}. Build the model with another `kernel`."
        )
    modes = [ModeKernel(name, _held(given.get(n))) for n, name in enumerate(source._kernels)]
    scales = SliceScales()
    if problem is not None and problem.residual is not None and problem.residual.learned is not None:
        raise DataError(
            "arrays: the model has learned from its slices how cells go together, which the program does "
            "not know. Give a model fitted with noise='constant'."
        )
    if problem is not None and problem.residual is not None and problem.residual.dof is not None:
        own = problem.residual
        scales = SliceScales(tensor(problem.positions), tensor(own.scales), own.new_scale)
    return DensePrior(tuple(modes), tensor(points), exact, scales)


def _state(dense: DensePrior, reference: Hyper) -> StatePrior:
    """The state-space form, along the longest continuous mode."""
    from tenfac.bayes.pyro.prior import StatePrior

    terms = [name for name in TERMS if getattr(reference, name).size]
    if terms:
        raise DataError(
            f"arrays: prior='sde' must have a model without terms beside the product; got {terms}. Take "
            "prior='gp', or a model with terms=()."
        )
    points = dense.points.numpy()
    lines = [n for n, kernel in enumerate(dense.kernels) if kernel.name is not None and kernel.given is None]
    if not lines:
        raise DataError("arrays: prior='sde' needs a continuous Matérn mode. Take prior='gp'.")
    state = StatePrior.along(dense, max(lines, key=lambda n: np.unique(points[:, n]).size))
    wide = state.others.shape[0] * (1 + state.order)
    if state.size > _MOST_WHITE or wide > _MOST_STATE:
        raise DataError(
            f"arrays: prior='sde' would need a state of {wide} numbers and {state.size} in all (at most "
            f"{_MOST_STATE} and {_MOST_WHITE}), because the points form no grid. Take prior='gp'."
        )
    return state


def _held(kernel: Any) -> Any:
    """A copy of a GPyTorch kernel in float64 whose parameters stay; a plain function as it is."""
    if not hasattr(kernel, "parameters"):
        return kernel
    from copy import deepcopy

    return deepcopy(kernel).double().requires_grad_(False).eval()
