"""Functions of functions: products, quotients, powers and numpy's functions, by a new construction."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfac.core.arrays import namespace_of, to_numpy
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import ConvergenceWarning, DataError, ShapeError, cannot_take, warn_user
from tenfac.core.format import Format
from tenfac.core.interchange import as_format
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.modes.discrete import Discrete
from tenfac.core.progress import Progress
from tenfac.core.rank import REACHABLE
from tenfac.core.report import Report
from tenfac.core.tracing import constant
from tenfac.core.train import TuckerTrain
from tenfac.core.tucker import Tucker
from tenfac.functional.build import chebyshev_tucker

# Share of the tolerance for joining the values of discrete indices.
_JOINED = 0.05


@door
def compose(
    function: Callable[..., Any],
    *formats: Format,
    tol: float = 1e-10,
    max_evals: int = 1_000_000,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> Tucker | TuckerTrain:
    """Approximate a function of the values of formats: ``H(x, y, ...) = f(F(x, y, ...), G(x, y, ...), ...)``.

    ``F * G``, ``F / G``, ``F**2``, ``1 / F``, ``np.exp(F)`` and other functions of numpy call this with its
    defaults when a mode is continuous.

    Parameters
    ----------
    function : callable
        Of as many arrays as there are formats, all of one shape, to an array of that shape.
    *formats : Tucker, TuckerTrain or CP
        On one domain, with real values; degrees may differ. Discrete modes must be equal.
    tol : float
        Relative to the largest value of the result, in the sup norm (for each value of the discrete indices).
    max_evals : int
        At most so many evaluations (for each value of the discrete indices).
    random_state : int, Generator or None
    verbose : {0, 1, 2}
        1 shows a bar of evaluations, 2 also logs a line per function constructed (logger ``tenfac``).

    Returns
    -------
    Tucker or TuckerTrain
        As ``chebyshev_tucker`` makes it, of the library and dtype of the first format, without gradient;
        ``info`` says how it went.

    Raises
    ------
    ShapeError
        If the function does not take one argument per format, the formats do not share their domain and
        discrete modes, no mode is continuous, or there is a batch.
    DataError
        If the function gives NaN or infinity somewhere, as ``1 / F`` does where F is zero.

    Warns
    -----
    ConvergenceWarning
        If the tolerance is not met, as for ``np.abs`` of a function that changes its sign.

    Notes
    -----
    An adaptive cross approximation as in ``chebyshev_tucker``: ranks are found, not multiplied. The product
    of ranks 18 and 10 had rank 23, where Kronecker products would have had a core of 180^3 numbers. Discrete
    modes are gone through value by value, so the cost is that of one construction for each.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import Chebyshev, Tucker
    >>> x = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:], np.eye(2)[:, :1]], [Chebyshev(2)] * 2)
    >>> y = Tucker(np.ones((1, 1)), [np.eye(2)[:, :1], np.eye(2)[:, 1:]], [Chebyshev(2)] * 2)
    >>> wave = compose(lambda x, y: np.sin(x * y), x, y, tol=1e-12)
    >>> bool(abs(wave.at(0.5, -0.3) - np.sin(-0.15)) < 1e-12), wave.info.converged
    (True, True)
    """
    start = time.perf_counter()
    formats = tuple(map(as_format, formats))
    _check(formats)
    _check_function(function, len(formats))
    plain = [_numpy(t) for t in formats]
    domain = [pair for pair in plain[0].domain if pair is not None]
    tables = [mode.size for mode in plain[0].modes if mode.domain is None]
    options: dict[str, Any] = {"tol": tol, "max_evals": max_evals, "random_state": random_state}
    made = []
    with Progress("compose", None, verbose, unit="evaluation") as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for index in itertools.product(*map(range, tables)):
            parts = [_slice(t, index) for t in plain]
            one = _constructed(_values(function, parts, progress), domain, **options)
            progress.log("%s, rank %s", one.info.reason if one.info is not None else "", one.rank)
            made.append(one)
    result = _joined(made, plain[0], tables, tol) if tables else made[0]
    info = _summary([t.info for t in made if t.info is not None], time.perf_counter() - start)
    if not info.converged:
        warn_user(
            f"compose: {info.reason}; residual {info.rel_error:.2g}, tol={tol:g}. Raise tol, or restrict the "
            "functions to where the result is smooth."
        )
    return replace(_like(result, formats[0]), info=info)


def _constructed(f: Callable[..., Any], domain: Any, **options: Any) -> Tucker | TuckerTrain:
    try:
        return chebyshev_tucker(f, domain, **options)
    except (DataError, ShapeError) as error:  # the caller knows no `f`
        text = str(error).replace("chebyshev_tucker: `f`", "compose: the function of the formats")
        raise type(error)(text.replace("chebyshev_tucker:", "compose:")) from None


def _values(function: Callable[..., Any], parts: Sequence[Any], progress: Progress) -> Callable[..., Any]:
    def values(*points: Any) -> Any:
        progress.move(np.size(points[0]))
        return function(*(part.at(*points) for part in parts))

    return values


def _check_function(function: Any, count: int) -> None:
    """Refuse what cannot be called with the values of every format."""
    wrong = cannot_take(function, count) if callable(function) else type(function).__name__
    if wrong:
        got = f"one with {wrong}" if callable(function) else wrong
        raise ShapeError(
            f"compose: `function` must take one array per format, {count}; got {got}. The function comes "
            "first, then its formats."
        )


def _check(formats: Sequence[Any]) -> None:
    if not formats or not all(isinstance(t, Format) for t in formats):
        kinds = [type(t).__name__ for t in formats]
        raise TypeError(
            f"compose: needs one or more Tucker, TuckerTrain or CP after the function; got {kinds}."
        )
    first = formats[0]
    for t in formats:
        sizes = [mode.size if mode.domain is None else mode.domain for mode in t.modes]
        want = [mode.size if mode.domain is None else mode.domain for mode in first.modes]
        if sizes != want:
            raise ShapeError(
                f"compose: all functions must live on one domain with the same discrete sizes; got {want} "
                f"and "
                f"{sizes}. Use restrict, or build them on one domain."
            )
        if t.batch_shape:
            raise ShapeError(f"compose: needs one function at a time; got a batch of shape {t.batch_shape}.")
    if not first.is_functional:
        raise ShapeError(
            f"compose: needs a continuous mode; got shape {first.shape}, all discrete. Compute with "
            f"to_tensor()."
        )


def _numpy(t: Any) -> Any:
    arrays = [to_numpy(constant(array)) for array in t._arrays().values()]
    wide = [array if np.iscomplexobj(array) else array.astype(np.float64) for array in arrays]
    return t._with(wide)


def _slice(t: Any, index: tuple[int, ...]) -> Any:
    """The function of the continuous modes at one value of the discrete ones."""
    places = [n for n, mode in enumerate(t.modes) if mode.domain is None]
    return t.fix(dict(zip(places, index, strict=True))) if places else t


def _joined(made: Sequence[Any], like: Any, tables: Sequence[int], tol: float) -> Tucker | TuckerTrain:
    """One format of functions found value by value of the discrete indices."""
    if any(isinstance(t, TuckerTrain) for t in made):
        return _joined_trains(made, like, tables, tol)
    factors, modes, corners = [], [], []
    for n in range(made[0].ndim):
        size = max(t.coef_shape[n] for t in made)
        mode = Chebyshev(size, made[0].modes[n].domain)
        columns = [t.modes[n].embed(mode, t.factors[n]) for t in made]
        basis, triangle = np.linalg.qr(np.concatenate(columns, axis=1))
        ends = np.cumsum([t.rank[n] for t in made])[:-1]
        factors.append(basis)
        modes.append(mode)
        corners.append(np.split(triangle, ends, axis=1))
    cores = [contract(t.core, [corner[k] for corner in corners]) for k, t in enumerate(made)]
    core = np.stack(cores).reshape(*tables, *cores[0].shape)
    discrete = [n for n, mode in enumerate(like.modes) if mode.domain is None]
    smooth = [n for n in range(like.ndim) if n not in discrete]
    order = np.argsort([*discrete, *smooth])
    factors = [*map(np.eye, tables), *factors]
    all_modes = [*map(Discrete, tables), *modes]
    whole = Tucker(core.transpose(order), [factors[n] for n in order], [all_modes[n] for n in order])
    return whole.round(tol=max(_JOINED * tol, REACHABLE["float64"])) if np.any(core) else whole


def _joined_trains(made: Sequence[Any], like: Any, tables: Sequence[int], tol: float) -> TuckerTrain:
    """The same for trains: a sum of products of a function and unit vectors, rounded as it grows."""
    total: Any = None
    tol = max(_JOINED * tol / math.prod(tables), REACHABLE["float64"])
    discrete = [n for n, mode in enumerate(like.modes) if mode.domain is None]
    continuous = [n for n, mode in enumerate(like.modes) if mode.domain is not None]
    for t, index in zip(made, itertools.product(*map(range, tables)), strict=True):
        train = t if isinstance(t, TuckerTrain) else t.to_train()
        smooth = iter(zip(train.cores, train.factors, train.modes, strict=True))
        units = (np.eye(size)[:, [k]] for size, k in zip(tables, index, strict=True))
        parts = [
            (np.ones((1, 1, 1)), next(units), mode) if mode.domain is None else next(smooth)
            for mode in like.modes
        ]
        order = [*discrete, *(continuous[n] for n in train.order)]
        term = TuckerTrain(*zip(*parts, strict=True), order=order)
        total = term if total is None else total + term
        if any(factor.any() for factor in total.factors):
            total = total.round(tol=tol)
    return total


def _summary(infos: Sequence[Report], seconds: float) -> Report:
    """One report of the construction for every value of the discrete indices."""
    worst = max(infos, key=lambda info: (not info.converged, info.rel_error))
    return replace(
        worst,
        n_evals=sum(info.n_evals or 0 for info in infos),
        rel_error=max(info.rel_error for info in infos),
        seconds=seconds,
    )


def _like(t: Any, given: Any) -> Any:
    """The result in the library, dtype and device of a given format."""
    like = given.factors[0]
    xp = namespace_of(like)
    arrays = [
        xp.asarray(a, dtype=like.dtype, device=getattr(like, "device", None)) for a in t._arrays().values()
    ]
    return t._with(arrays)
