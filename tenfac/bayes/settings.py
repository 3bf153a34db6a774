"""The estimator's settings, checked against the modes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np

from tenfac.bayes.columns import ModeIndex
from tenfac.bayes.from_gpytorch import is_gpytorch, matern_of
from tenfac.bayes.likelihoods.named import COUNTS
from tenfac.bayes.likelihoods.named import KINDS as LIKELIHOODS
from tenfac.bayes.likelihoods.response import KINDS
from tenfac.core.errors import DataError, RankError, check_verbose, nearest_name
from tenfac.core.modes.state_space import check_kernel

TERMS = ("mains", "residual", "cells")

# least and default max_iter, and default tol, of every inference
LIMITS: dict[str, tuple[int, int, float | None]] = {
    "collapsed": (0, 400, 1e-7),
    "cep": (1, 300, 1e-3),
    "svi": (10, 3000, None),
    "nuts": (4, 500, None),
}
CORES = ("full", "diagonal")
# settings that some inferences do not know: the value that asks for nothing, and who knows others
_KNOWN_TO: dict[str, tuple[Any, tuple[str, ...]]] = {
    "core": ("full", ("cep",)),
    "likelihood": ("gaussian", ("collapsed",)),
    "noise": ("auto", ("collapsed",)),
    "terms": ("auto", ("collapsed",)),
    "label_rank": (0, ("collapsed", "svi", "nuts")),
    "max_functions": (None, ("collapsed",)),
    "rank": ("auto", ("collapsed", "cep")),
    "response": ("identity", ("collapsed",)),
    "tol": (None, ("collapsed", "cep")),
}
_MOST_TERMS = 128  # of a full core whose rank nobody gave
_LARGEST_CORE = 512
_AUTO_PRODUCTS = 5  # of a diagonal one
_AUTO_RANK = 3


def check_numbers(
    max_iter: int | None, max_functions: int | None, label_rank: int, tol: float | None, least: int = 0
) -> None:
    """Refuse counts that are no whole numbers or too small, and a tolerance that is not positive."""
    if tol is not None and not (isinstance(tol, Real) and tol > 0):
        raise DataError(f"FunctionalTucker: `tol` must be a positive number; got {tol!r}.")
    functions = 1 if max_functions is None else max_functions
    counts = (
        ("max_iter", least if max_iter is None else max_iter, least),
        ("max_functions", functions, 1),
        ("label_rank", label_rank, 0),
    )
    for name, value, lowest in counts:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
            raise DataError(f"FunctionalTucker: `{name}` must be an integer from {lowest} up; got {value!r}.")


def check_inference(model: Any) -> None:
    """Refuse an unknown inference or core, and settings that the inference does not know."""
    _check_choice("inference", model.inference, tuple(LIMITS))
    _check_choice("core", model.core, CORES)
    for name, (neutral, known) in _KNOWN_TO.items():
        value = getattr(model, name)
        if model.inference in known or (np.ndim(value) == 0 and value == neutral):
            continue
        allowed = " or ".join(f"inference={one!r}" for one in known)
        raise DataError(
            f"FunctionalTucker: inference={model.inference!r} must have {name}={neutral!r}; got {value!r}. "
            f"Leave `{name}` out, or take {allowed}."
        )


def limits_of(model: Any) -> tuple[int, float]:
    """``max_iter`` and ``tol``, as given or by inference; no ``tol`` is 0."""
    _, max_iter, tol = LIMITS[model.inference]
    given = model.max_iter, model.tol
    return (
        max_iter if given[0] is None else int(given[0]),
        float((tol or 0.0) if given[1] is None else given[1]),
    )


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        raise DataError(
            f"FunctionalTucker: `{name}` must be one of {known}; got {value!r}.{nearest_name(value, known)}"
        )


def check_response(response: str) -> None:
    """Refuse an unknown response."""
    _check_choice("response", response, KINDS)


def check_likelihood(likelihood: str, response: str) -> None:
    """Refuse an unknown likelihood, and one of counts with a response."""
    _check_choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood in COUNTS and response != "identity":
        raise DataError(
            f"FunctionalTucker: likelihood={likelihood!r} has its own response and needs "
            f"response='identity'; got {response!r}. Leave `response` out, or use likelihood='gaussian' or "
            "'student_t'."
        )


def check_values(likelihood: str, y: Any, where: str = "FunctionalTucker.fit") -> None:
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
            f"{where}: with likelihood={likelihood!r}, y must hold {what}; got {value!r} "
            f"in row {first}, and {int(bad.sum()) - 1} more like it. Correct y, or choose another likelihood."
        )


def check_trials(likelihood: str, y: Any, weights: Any) -> None:
    """Refuse shares of successes that no number of trials can have, the weights; 0 leaves a row out."""
    if likelihood != "binomial":
        return
    wins = y * weights
    bad = (weights != np.round(weights)) | (np.abs(wins - np.round(wins)) > 1e-6 * weights)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            "FunctionalTucker.fit: with likelihood='binomial', `sample_weight` must hold whole numbers of "
            f"trials, and y times these be whole successes; got {y[first]:g} of {weights[first]:g} "
            f"trials in row {first}. Give the numbers of trials, and shares with all their digits."
        )


def slice_mode_of(noise: Any, likelihood: str, names: list[str], exact: int | None = None) -> int | None:
    """The mode whose indices have a noise scale each, None where there is one noise; checks `noise`."""
    if isinstance(noise, Sequence) and not isinstance(noise, str) and len(noise) == 2 and noise[0] == "slice":
        mode: int | None = mode_number(noise[1], names, "FunctionalTucker, `noise`")
    else:
        _check_choice("noise", noise, ("auto", "constant", "slice"))
        mode = exact if noise == "slice" else None
    if noise not in ("auto", "constant") and likelihood in COUNTS:
        raise DataError(
            f"FunctionalTucker: noise={noise!r} needs a likelihood with noise, 'gaussian' or 'student_t'; "
            f"got likelihood={likelihood!r}. Leave `noise` out."
        )
    return mode


def discrete_of(discrete: str | int | Sequence[str | int] | None) -> list[str | int]:
    """The setting `discrete` as a list; one name or number is one mode."""
    if isinstance(discrete, str) or not isinstance(discrete, Iterable):
        return [] if discrete is None else [discrete]
    return list(discrete)


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


def kernels_by_mode(kernel: Any, modes: list[ModeIndex]) -> list[Any]:
    """The kernel given for each mode, or the default; None where discrete."""
    names = [index.name for index in modes]
    given = dict.fromkeys(range(len(modes)), "auto")
    if isinstance(kernel, Mapping):
        for mode, one in kernel.items():
            given[mode_number(mode, names, "FunctionalTucker, `kernel`")] = one
    else:
        given = dict.fromkeys(given, kernel)
    return [_checked_kernel(given[n], index) for n, index in enumerate(modes)]


def _checked_kernel(kernel: Any, index: ModeIndex) -> Any:
    if is_gpytorch(kernel):
        matern_of(kernel, index.name)
    else:
        check_kernel(kernel, f"FunctionalTucker, mode {index.name!r}", also=("auto", "oscillator"))
    return None if index.discrete else kernel


def kernels_of(kernel: Any, modes: list[ModeIndex]) -> tuple[str | None, ...]:
    """Kernel name per mode, None where discrete; the usual one for "auto"."""
    return tuple(candidates[0] for candidates in candidates_of(kernel, modes))


def candidates_of(kernel: Any, modes: list[ModeIndex]) -> tuple[tuple[str | None, ...], ...]:
    """Kernels to try, the usual one first, where the mode is a continuous exact one."""
    out: list[tuple[str | None, ...]] = []
    for one, index in zip(kernels_by_mode(kernel, modes), modes, strict=True):
        if is_gpytorch(one):
            out.append((matern_of(one, index.name)[0],))
        else:
            out.append(("matern32", "matern12") if one == "auto" else (one,))
    return tuple(out)


def check_swings(model: Any) -> None:
    """Refuse oscillators where only inference="collapsed" knows them.

    Raises
    ------
    DataError
    """
    if "oscillator" in model._kernels and model.inference != "collapsed":
        raise DataError(
            "FunctionalTucker: kernel='oscillator' needs inference='collapsed'; got "
            f"inference={model.inference!r}. Take a Matérn kernel, or 'collapsed'."
        )


def check_settings(model: Any) -> None:
    """Refuse settings that mean nothing whatever the data."""
    check_inference(model)
    check_numbers(
        model.max_iter, model.max_functions, model.label_rank, model.tol, LIMITS[model.inference][0]
    )
    check_verbose(model.verbose, "FunctionalTucker")
    check_response(model.response)
    check_likelihood(model.likelihood, model.response)
    terms_of(model.terms)


def terms_of(terms: str | Sequence[str]) -> tuple[str, ...] | None:
    """The setting `terms` as a tuple without repeats; None for "auto"."""
    if isinstance(terms, str) or not isinstance(terms, Iterable):
        _check_choice("terms", terms, ("auto", *TERMS))
        return None if terms == "auto" else (terms,)
    for name in terms:
        _check_choice("terms", name, TERMS)
    return tuple(name for name in TERMS if name in terms)


def first_lengthscales(kernel: Any, modes: list[ModeIndex]) -> tuple[float | None, ...]:
    """Lengthscale per mode to start from, for an observed range of one; None where none was given."""
    given = kernels_by_mode(kernel, modes)
    lengths = [
        matern_of(one, index.name)[1] if is_gpytorch(one) else None
        for one, index in zip(given, modes, strict=True)
    ]
    return tuple(None if one is None else one / index.span for one, index in zip(lengths, modes, strict=True))


def named_kernels(kernel: Any) -> Any:
    """The setting `kernel` with names in the place of GPyTorch kernels."""
    if isinstance(kernel, Mapping):
        return {mode: named_kernels(one) for mode, one in kernel.items()}
    return matern_of(kernel, "")[0] if is_gpytorch(kernel) else kernel


def ranks_of(rank: str | int | Sequence[int], modes: list[ModeIndex]) -> tuple[int | None, ...]:
    """Most functions per mode, checked against the number of indices; None for discrete modes."""
    continuous = [n for n, index in enumerate(modes) if not index.discrete]
    ranks: list[int | None] = [None] * len(modes)
    if _is_auto(rank):
        return tuple(ranks)
    several: Any = rank
    given = list(several) if _several(rank) else [rank] * len(continuous)
    if len(given) != len(continuous):
        names = ", ".join(modes[n].name for n in continuous)
        raise RankError(
            f"FunctionalTucker: `rank` must be one integer or one per continuous mode ({names}); got "
            f"{len(given)} numbers."
        )
    for n, value in zip(continuous, given, strict=True):
        ranks[n] = _checked_rank(value, modes[n])
    return tuple(ranks)


def cep_ranks(rank: str | int | Sequence[int], core: str, modes: list[ModeIndex]) -> tuple[int, ...]:
    """Functions per mode that `inference="cep"` starts from; one number for all if the core is diagonal."""
    ranks = _cep_ranks(rank, core, modes)
    terms = int(np.prod([1.0 + one for one in ranks]))
    if core == "full" and terms > _LARGEST_CORE:
        raise RankError(
            f"FunctionalTucker: with inference='cep' a full core may have {_LARGEST_CORE} terms, the product "
            f"of 1 + rank over the modes; got {terms}. Lower `rank`, or take core='diagonal'."
        )
    return ranks


def _cep_ranks(rank: str | int | Sequence[int], core: str, modes: list[ModeIndex]) -> tuple[int, ...]:
    sizes = [index.size for index in modes]
    if _is_auto(rank):
        if core == "diagonal":
            return (_AUTO_PRODUCTS,) * len(sizes)
        most = max(1, min(_AUTO_RANK, int(_MOST_TERMS ** (1 / len(sizes)) - 1 + 1e-9)))
        return tuple(min(most, size) for size in sizes)
    if not _several(rank):
        longest = max(modes, key=lambda index: index.size)
        one = _checked_rank(rank, longest)
        return (one,) * len(sizes) if core == "diagonal" else tuple(min(one, size) for size in sizes)
    several: Any = rank
    if len(several) != len(sizes) or (core == "diagonal" and len(set(several)) > 1):
        names = ", ".join(index.name for index in modes)
        many = f"one integer, or {'the same' if core == 'diagonal' else 'one'} for every mode"
        raise RankError(
            f"FunctionalTucker: with inference='cep' and core={core!r}, `rank` must be {many} ({names}); got "
            f"{list(several)!r}."
        )
    return tuple(_checked_rank(value, index) for value, index in zip(several, modes, strict=True))


def _is_auto(rank: Any) -> bool:
    if rank is None or isinstance(rank, str):
        if rank != "auto":
            raise RankError(
                f"FunctionalTucker: `rank` must be 'auto', an integer, or a sequence of them; got {rank!r}. "
                "Leave it out to let the evidence decide."
            )
        return True
    return False


def _several(rank: Any) -> bool:
    return isinstance(rank, Sequence | np.ndarray)


def _checked_rank(value: Any, index: ModeIndex) -> int:
    whole = isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()
    if not whole or not 1 <= value <= index.size:
        raise RankError(
            f"FunctionalTucker: the rank of mode {index.name!r} must be an integer from 1 to {index.size}, "
            f"its number of distinct indices; got {value!r}. Lower it, or give one per continuous mode."
        )
    return int(value)
