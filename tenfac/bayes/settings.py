"""The estimator's settings, checked against the modes of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.likelihoods import COUNTS
from tenfac.bayes.likelihoods import KINDS as LIKELIHOODS
from tenfac.bayes.response import KINDS
from tenfac.core.errors import DataError, RankError
from tenfac.core.modes.state_space import check_kernel

TERMS = ("mains", "residual", "cells")


def check_numbers(max_iter: int, max_functions: int | None, label_rank: int, tol: float) -> None:
    """Refuse counts that are no whole numbers or too small, and a tolerance that is not positive."""
    if not tol > 0:
        raise DataError(f"FunctionalTucker: `tol` must be a positive number; got {tol!r}.")
    functions = 1 if max_functions is None else max_functions
    counts = (("max_iter", max_iter, 0), ("max_functions", functions, 1), ("label_rank", label_rank, 0))
    for name, value, least in counts:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise DataError(f"FunctionalTucker: `{name}` must be an integer from {least} up; got {value!r}.")


def check_response(response: str) -> None:
    """Refuse an unknown response."""
    _check_name("response", response, KINDS)


def check_likelihood(likelihood: str, response: str) -> None:
    """Refuse an unknown likelihood, and one of counts with a response."""
    _check_name("likelihood", likelihood, LIKELIHOODS)
    if likelihood in COUNTS and response != "identity":
        raise DataError(
            f"FunctionalTucker: likelihood={likelihood!r} has its own response and needs "
            f"response='identity'; got {response!r}. Leave `response` out, or use likelihood='gaussian' or "
            "'student_t'."
        )


def check_values(likelihood: str, y: Any) -> None:
    """Refuse values that cannot come of a likelihood of counts."""
    wanted = {
        "poisson": ("whole numbers from 0 up", (y < 0) | (y != np.round(y))),
        "bernoulli": ("0 or 1", (y != 0) & (y != 1)),
        "binomial": ("shares of successes from 0 to 1, with the trials as sample_weight", (y < 0) | (y > 1)),
    }
    if likelihood not in wanted:
        return
    what, bad = wanted[likelihood]
    if bad.any():
        first = int(np.argmax(bad))
        value = y[first].item()
        raise DataError(
            f"FunctionalTucker.fit: with likelihood={likelihood!r}, y must hold {what}; got {value!r} "
            f"in row {first}, and {int(bad.sum()) - 1} more like it. Correct y, or choose another likelihood."
        )


def slice_mode_of(noise: Any, likelihood: str, names: list[str], exact: int | None = None) -> int | None:
    """The mode whose indices have a noise scale each, None where there is one noise; checks `noise`."""
    if isinstance(noise, Sequence) and not isinstance(noise, str) and len(noise) == 2 and noise[0] == "slice":
        mode: int | None = mode_number(noise[1], names, "FunctionalTucker, `noise`")
    else:
        _check_name("noise", noise, ("auto", "constant", "slice"))
        mode = exact if noise == "slice" else None
    if noise not in ("auto", "constant") and likelihood in COUNTS:
        raise DataError(
            f"FunctionalTucker: noise={noise!r} needs a likelihood with noise, 'gaussian' or 'student_t'; "
            f"got likelihood={likelihood!r}. Leave `noise` out."
        )
    return mode


def _check_name(setting: str, name: Any, known: tuple[str, ...]) -> None:
    if not isinstance(name, str) or name not in known:
        near = get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"FunctionalTucker: `{setting}` must be one of {known}; got {name!r}.{hint}")


def discrete_of(discrete: Sequence[str | int] | None) -> list[str | int]:
    """The setting `discrete` as a list."""
    if isinstance(discrete, str | int):
        raise DataError(
            f"FunctionalTucker: `discrete` must be a sequence; got {discrete!r}. Write [{discrete!r}]."
        )
    return [] if discrete is None else list(discrete)


def plain(setting: Any) -> Any:
    """A setting as JSON holds it; a dict becomes a list of pairs, so that its keys keep their type."""
    if isinstance(setting, Mapping):
        return [[plain(mode), name] for mode, name in setting.items()]
    if isinstance(setting, np.generic | np.ndarray):
        return setting.tolist()
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return [plain(value) for value in setting]
    return setting


def mode_number(mode: str | int, names: list[str], where: str) -> int:
    """Number of a mode given by name or number."""
    if isinstance(mode, int | np.integer) and not isinstance(mode, bool) and -len(names) <= mode < len(names):
        return int(mode) % len(names)
    if isinstance(mode, str) and mode in names:
        return names.index(mode)
    near = get_close_matches(str(mode), names, n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise DataError(
        f"{where}: there is no mode {mode!r}; the modes are {', '.join(names)} (0 to {len(names) - 1}).{hint}"
    )


def kernels_of(kernel: str | Mapping[str | int, str], modes: list[ModeIndex]) -> tuple[str | None, ...]:
    """Kernel name per mode, None where discrete."""
    names = [index.name for index in modes]
    given = dict.fromkeys(range(len(modes)), "auto")
    if isinstance(kernel, Mapping):
        for mode, name in kernel.items():
            given[mode_number(mode, names, "FunctionalTucker, `kernel`")] = name
    else:
        given = dict.fromkeys(given, kernel)
    for name in given.values():
        if name != "auto":
            check_kernel(name, "FunctionalTucker")
    return tuple(None if index.discrete else given[n] for n, index in enumerate(modes))


def candidates_of(kernel: str | None) -> tuple[str, ...]:
    """Kernels to try for a continuous exact mode; the first is the usual one."""
    return ("matern32", "matern12") if kernel in (None, "auto") else (kernel,)


def usual(kernel: str | None) -> str | None:
    """The kernel of a mode where there is nothing to choose; None for a discrete one."""
    return "matern32" if kernel == "auto" else kernel


def terms_of(terms: str | Sequence[str]) -> tuple[str, ...] | None:
    """The setting `terms` as a tuple without repeats; None for "auto"."""
    if isinstance(terms, str):
        _check_name("terms", terms, ("auto", *TERMS))
        return None if terms == "auto" else (terms,)
    for name in terms:
        _check_name("terms", name, TERMS)
    return tuple(name for name in TERMS if name in terms)


def ranks_of(rank: int | Sequence[int] | None, modes: list[ModeIndex]) -> tuple[int | None, ...]:
    """Most functions per mode, checked against the number of indices; None for discrete modes."""
    continuous = [n for n, index in enumerate(modes) if not index.discrete]
    ranks: list[int | None] = [None] * len(modes)
    if rank is None:
        return tuple(ranks)
    several = isinstance(rank, Sequence | np.ndarray)
    given = list(rank) if several else [rank] * len(continuous)
    if len(given) != len(continuous):
        names = ", ".join(modes[n].name for n in continuous)
        raise RankError(
            f"FunctionalTucker: `rank` must be one integer or one per continuous mode ({names}); got "
            f"{len(given)} numbers."
        )
    for n, value in zip(continuous, given, strict=True):
        size = modes[n].size
        if isinstance(value, bool) or value != int(value) or not 1 <= value <= size:
            raise RankError(
                f"FunctionalTucker: the rank of mode {modes[n].name!r} must be an integer from 1 to {size}, "
                f"its number of distinct indices; got {value!r}. Lower it, or give one per continuous mode."
            )
        ranks[n] = int(value)
    return tuple(ranks)
