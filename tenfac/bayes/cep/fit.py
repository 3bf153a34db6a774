"""CP and Tucker with learned functions: restarts, iteration, and what comes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.cep.chain import Chain
from tenfac.bayes.cep.forms import CPForm, TuckerForm
from tenfac.bayes.cep.mode import Climber, Functions, check_kernels
from tenfac.bayes.cep.result import CepFit, relevance
from tenfac.bayes.cep.rows import Rows, merged
from tenfac.bayes.cep.sweep import LEVEL, Core, State, Sweeper
from tenfac.bayes.cep.trial import Trial, pruned
from tenfac.bayes.threads import one_thread
from tenfac.core.arrays import generator
from tenfac.core.errors import DataError, RankError, ShapeError, warn_user
from tenfac.core.progress import Progress
from tenfac.core.report import Report

Array = NDArray[Any]
_FORMS = ("cp", "tucker")
_LEAST_HELD_OUT = 50
_FIRST_SWEEPS = 12  # of every start, before the best goes on
LENGTH = 0.3  # where lengthscales start


def fit_cep(
    positions: Sequence[Array],
    y: Array,
    *,
    kernels: Sequence[str | None],
    rank: int | Sequence[int],
    form: str = "cp",
    weights: Array | None = None,
    mains: bool = True,
    max_iter: int = 100,
    tol: float = 1e-4,
    n_starts: int = 3,
    held_out: float = 0.1,
    prune: bool = False,
    lengthscales: Sequence[float | None] | None = None,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> CepFit:
    """Posterior of a CP or Tucker function whose factor functions are learned, each with its own prior.

    ``f(x) = level + sum_d g_d(x_d) + sum_r prod_d u_dr(x_d)`` (CP), or
    ``f(x) = sum_r W[r_1, ..., r_D] prod_d u_d,r_d(x_d)`` with ``u_d,0 = 1`` (Tucker), so that the core's
    first slices are the level, the main effects and the lower interactions. Functions are Matérn processes
    (continuous modes) or independent levels (discrete ones). Inference is by conditional moments [1]_: the
    functions of one mode are one joint Gaussian given the first and second moments of all others, exact by a
    pass over the mode's indices; so are the core's coefficients. Every update has a closed form and climbs
    one bound, so that nothing needs damping.

    Parameters
    ----------
    positions : sequence of D arrays, shape (N,)
        Continuous modes: positions, best scaled to 0..1. Discrete modes: codes 0, 1, ....
    y : array, shape (N,)
    kernels : sequence of D str or None
        Matérn kernel of each mode; None for a discrete one.
    rank : int or sequence of D int
        Products (CP), or varying functions per mode (Tucker; may differ). What the data do not support gets
        a prior variance near zero, and ``CepFit.rank`` counts what is left.
    form : {"cp", "tucker"}
    weights : array, shape (N,), optional
        Numbers of repeats; 0 leaves a row out.
    mains : bool
        CP only: whether main effects are among the terms. Without them, the function at new indices goes
        back to the level in all modes at once.
    max_iter : int
        Most sweeps over all modes.
    tol : float
        Stop when a few sweeps gain less than this: in the bound per observation, or relative to the
        continuous ranked probability score of held-out rows.
    n_starts : int
        Random starts, of which one goes on: the best at held-out rows, or the one with the highest bound.
    held_out : float
        Share of the rows that choose the start and the number of sweeps, before all rows are fitted. The
        bound takes the functions of different modes for independent, and on noisy data goes on rising while
        predictions get worse. 0, or less than 50 rows held out, leaves the choice to the bound.
    prune : bool
        Also let the held-out rows choose the number of functions, from ``rank`` down. Where the bound
        chooses, functions are always taken out as long as it is higher without them.
    lengthscales : sequence of D float or None, optional
        Where the lengthscales of each mode's functions start; None begins with 0.3.
    random_state : int, numpy Generator or None
    verbose : {0, 1, 2}
        1 shows a progress bar of sweeps.

    Returns
    -------
    CepFit

    Raises
    ------
    ShapeError, DataError, RankError
        Columns of different lengths, values that are not finite, an unknown kernel, a negative rank.

    Notes
    -----
    One sweep costs ``O(D N T^2 / 2 + sum_d M_d S_d^3)`` with T terms (CP) or ``prod (R_e + 1)^2 / 2`` over
    the other modes in the place of T^2 / 2 (Tucker), and S_d states per index of mode d. Memory is linear in
    N: the columns, and blocks of bounded size.

    Factor functions of different modes are taken for independent: the bound is lower than the log evidence,
    and variances are too small where data are few for each function. ``held_out`` guards predictions, not
    the variances of single functions.

    References
    ----------
    .. [1] S. Fang, X. Yu, Z. Wang, S. Li, M. Kirby, S. Zhe, Functional Bayesian Tucker Decomposition for
       Continuous-indexed Tensor Data, ICLR 2024, arXiv:2311.04829, section 4.

    Examples
    --------
    >>> x = np.linspace(0, 1, 15)
    >>> grid = [g.ravel() for g in np.meshgrid(x, x, indexing="ij")]
    >>> fit = fit_cep(grid, np.sin(4 * grid[0]) * grid[1], kernels=["matern32"] * 2, rank=1, max_iter=300)
    >>> mean, variance = fit.predict([np.array([0.5]), np.array([0.5])])
    >>> bool(abs(mean[0] - 0.5 * np.sin(2.0)) < 0.01)
    True
    """
    started = time.perf_counter()
    columns, y, weights = _checked(positions, y, weights, kernels)
    check_kernels(list(kernels))
    shape = _form(form, rank, len(columns), mains)
    _check_numbers(max_iter, tol, n_starts, held_out)
    keep = weights > 0
    columns, y, weights = merged([c[keep] for c in columns], y[keep], weights[keep])
    center = float(weights @ y / weights.sum())
    spread = float(np.sqrt(weights @ (y - center) ** 2 / weights.sum()))
    spread = spread if spread > 1e-14 * abs(center) else 1.0
    pairs = [np.unique(column, return_inverse=True) for column in columns]
    grids, codes = [pair[0] for pair in pairs], [pair[1].ravel() for pair in pairs]
    chains = [
        g.size if kernel is None else Chain(g, kernel) for g, kernel in zip(grids, kernels, strict=True)
    ]
    sizes = [g.size for g in grids]
    rows = Rows.of(codes, sizes, (y - center) / spread, weights)
    order = sorted(range(len(grids)), key=lambda d: -sizes[d])
    rng = generator(random_state)
    first = lengthscales or (None,) * len(grids)
    with one_thread(), Progress("FunctionalTucker", None, verbose) as bar:
        starts = [starting_state(shape, chains, rng, first) for _ in range(n_starts)]
        sweeper, reason = Sweeper(rows, shape, order, bar.move), "the bound stands"
        if held_out > 0 and round(held_out * y.size) >= _LEAST_HELD_OUT:
            out = rng.permutation(y.size)[: round(held_out * y.size)]
            trial = Trial.split(sweeper, out)
            run = trial.best(starts, max_iter, tol)
            converged, limit = run.over, run.sweeps
            if prune:
                run = pruned(run, max_iter, tol)
                shape, limit = run.form, run.sweeps
                sweeper = Sweeper(rows, shape, order, bar.move)
            state, _, history, _ = _run(sweeper, run.start, sweeper.climbers(run.start), [], limit, 0.0)
            reason = f"held-out rows were predicted best after {limit} iterations"
        else:
            state, history, converged = _search(sweeper, starts, max_iter, tol * rows.total)
    report = _report(converged, reason, history, max_iter, started, random_state)
    return CepFit(shape, state, tuple(grids), center, spread, rows.total, report)


def _search(
    sweeper: Sweeper, starts: list[State], max_iter: int, gain: float
) -> tuple[State, list[float], bool]:
    """The start with the highest bound, swept until the bound stands."""
    first = min(_FIRST_SWEEPS, max_iter)
    runs = [_run(sweeper, state, sweeper.climbers(state), [], first, 0.0) for state in starts]
    state, climbers, history, _ = max(runs, key=lambda run: run[0].bound)
    left = max_iter - len(history)
    state, _, history, converged = _run(sweeper, state, climbers, history, left, gain)
    if converged:
        state, history = _without_excess(sweeper, state, history)
    return state, history, converged


def _without_excess(sweeper: Sweeper, state: State, history: list[float]) -> tuple[State, list[float]]:
    """Leave out functions, the weakest first, as long as the bound is higher without.

    Two products that share the work of one are a place where the updates nearly stand still.
    """
    for group in _weakest_first(sweeper.form, state):
        functions = list(state.functions)
        for mode, place in group:
            functions[mode] = functions[mode].without(place)
        trial = sweeper.balanced(replace(state, functions=tuple(functions)))
        trial, _, more, _ = _run(sweeper, trial, sweeper.climbers(trial), [], 2 * _FIRST_SWEEPS, 0.0)
        if trial.bound <= state.bound:
            break
        state, history = trial, [*history, *more]
    return state, history


def _weakest_first(form: CPForm | TuckerForm, state: State) -> list[list[tuple[int, int]]]:
    """Functions that can be left out together, as (mode, place): those of a product, or one alone."""
    shares = relevance(form, state)
    modes = range(len(shares))
    if form.diagonal:
        places = range(form.products.start, form.products.stop)
        groups = [(shares[0][place], [(mode, place) for mode in modes]) for place in places]
    else:
        groups = [(share, [(mode, place)]) for mode in modes for place, share in enumerate(shares[mode])]
    return [group for share, group in sorted(groups) if share > 1e-8]


def _run(
    sweeper: Sweeper, state: State, climbers: list[Climber], history: list[float], sweeps: int, gain: float
) -> tuple[State, list[Climber], list[float], bool]:
    for _ in range(sweeps):
        state = sweeper.sweep(state, climbers)
        history = [*history, state.bound]
        if gain > 0 and len(history) > 5 and history[-1] - history[-6] < gain:
            return state, climbers, history, True
    return state, climbers, history, False


def starting_state(
    form: CPForm | TuckerForm,
    chains: list,
    rng: np.random.Generator,
    lengthscales: Sequence[float | None] | None = None,
) -> State:
    """Smooth random functions; main effects start at zero."""
    functions = []
    given = lengthscales or (None,) * len(chains)
    for chain, size, length in zip(chains, form.sizes, given, strict=True):
        mean = _smooth(chain, size - 1, rng)
        variances = np.ones(size - 1)
        if form.diagonal:
            variances *= 0.3
            mean *= np.sqrt(0.3)
            mean[:, : form.products.start] = 0.0
        functions.append(Functions.start(chain, mean, np.full(size - 1, length or LENGTH), variances))
    terms = form.n_terms
    precision = np.full(terms, 4.0)
    precision[0] = 1 / LEVEL
    core = Core(form.start, np.zeros((terms, terms)), precision, 0.0)
    return State(tuple(functions), core, 0.5, -np.inf)


def _smooth(chain: Chain | int, count: int, rng: np.random.Generator) -> Array:
    """Random combinations of a constant and two waves over the ranks of the indices."""
    if not isinstance(chain, Chain):
        return rng.normal(size=(chain, count))
    x = np.pi * np.linspace(0, 1, chain.positions.size) if chain.positions.size > 1 else np.zeros(1)
    waves = np.stack([np.ones_like(x), np.sqrt(2) * np.cos(x), np.sqrt(2) * np.cos(2 * x)], axis=1)
    mix = rng.normal(size=(3, count)) * np.array([0.7, 0.7, 0.5])[:, None]
    return waves @ mix


def _form(form: str, rank: int | Sequence[int], count: int, mains: bool) -> CPForm | TuckerForm:
    if form not in _FORMS:
        raise DataError(f"fit_cep: `form` must be one of {', '.join(_FORMS)}; got {form!r}.")
    single = isinstance(rank, int | np.integer) and not isinstance(rank, bool)
    given: Any = (rank,) * count if single else rank
    ranks: tuple[int, ...]
    try:
        ranks = tuple(int(r) if int(r) == r else -1 for r in given)
    except (TypeError, ValueError):
        ranks = (-1,)
    if len(ranks) != count or min(ranks) < 0 or (form == "cp" and len(set(ranks)) > 1):
        many = "one number" if form == "cp" else f"one number, or {count} (one per mode)"
        raise RankError(f"fit_cep: `rank` must be {many}, none negative, for form {form!r}; got {rank!r}.")
    if form == "tucker":
        return TuckerForm(ranks)
    if ranks[0] == 0 and not mains:
        raise RankError("fit_cep: rank 0 without main effects leaves only the level; set `mains=True`.")
    return CPForm(count, ranks[0], mains)


def _checked(
    positions: Sequence[Array], y: Array, weights: Array | None, kernels: Sequence[str | None]
) -> tuple[list[Array], Array, Array]:
    columns = [np.asarray(column, dtype=float) for column in positions]
    y = np.asarray(y, dtype=float)
    weights = np.ones(y.shape) if weights is None else np.asarray(weights, dtype=float)
    shapes = [a.shape for a in (*columns, y, weights)]
    if not columns or y.ndim != 1 or y.size == 0 or len(set(shapes)) > 1 or len(kernels) != len(columns):
        raise ShapeError(
            "fit_cep: `positions` must hold one column per mode, of the length of `y` and `weights` (above "
            f"zero), and `kernels` one entry each; got shapes {shapes} and {len(kernels)} kernels."
        )
    for name, values in [(f"positions[{d}]", c) for d, c in enumerate(columns)] + [
        ("y", y),
        ("weights", weights),
    ]:
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            raise DataError(
                f"fit_cep: `{name}` must be finite; got {values[first]} in row {first}. Drop the row."
            )
    if weights.min() < 0 or weights.max() == 0:
        raise DataError(
            f"fit_cep: `weights` must be at least 0 and not all 0; got {weights.min():g} to "
            f"{weights.max():g}. Leave weights out to count every row once."
        )
    for d, (column, kernel) in enumerate(zip(columns, kernels, strict=True)):
        if kernel is None and (column.min() < 0 or (column != np.floor(column)).any()):
            raise DataError(f"fit_cep: mode {d} is discrete: its codes must be whole numbers from 0.")
    return columns, y, weights


def _check_numbers(max_iter: int, tol: float, n_starts: int, held_out: float) -> None:
    for name, value, least in (("max_iter", max_iter, 1), ("n_starts", n_starts, 1), ("tol", tol, 0)):
        if not value >= least:
            raise DataError(f"fit_cep: `{name}` must be at least {least}; got {value!r}.")
    if not 0 <= held_out < 1:
        raise DataError(f"fit_cep: `held_out` must be a share from 0 to below 1; got {held_out!r}.")


def _report(
    converged: bool,
    reason: str,
    history: list[float],
    max_iter: int,
    started: float,
    random_state: int | np.random.Generator | None,
) -> Report:
    if not converged:
        reason = f"{max_iter} iterations done"
        message = (
            f"fit_cep: the fit still improved after {max_iter} iterations; raise `max_iter`, or `tol` if it "
            "is good enough."
        )
        warn_user(message)
    return Report(
        converged=converged,
        reason=reason,
        n_iter=len(history),
        history=tuple(history),
        seconds=time.perf_counter() - started,
        random_state=random_state if isinstance(random_state, int) else None,
    )
