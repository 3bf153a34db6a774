"""Errors and warnings, each saying what must hold, what was got, and what to do."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable
from difflib import SequenceMatcher
from numbers import Integral
from typing import Any

# Who may stand between a user's line and a warning: this package, and what wraps or calls it.
_BETWEEN = ("tenfac", "sklearn", "joblib", "torch", "jaxtyping", "beartype", "functools", "contextlib")


class ShapeError(ValueError):
    """Arrays whose shapes do not fit each other or the operation."""


class RankError(ValueError):
    """A rank or tolerance that no decomposition of this shape can have."""


class DataError(ValueError):
    """Values or indices that cannot be used: NaN, infinite, duplicate, unseen, empty."""


class MissingExtraError(ImportError):
    """A feature whose optional dependency is not installed."""


class ConvergenceWarning(UserWarning):
    """An iterative method stopped before it converged; its result carries ``info.converged=False``."""


def nearest_name(got: Any, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` with the nearest of the names known, the first of equals; empty if none is near.

    Upper case and punctuation do not count, and the first letter must be right.

    Examples
    --------
    >>> nearest_name("Student-T", ["gaussian", "student_t"])
    " Did you mean 'student_t'?"
    """
    bare = _bare(str(got))
    alike = [name for name in known if _bare(name)[:1] == bare[:1]]
    near = {name: SequenceMatcher(None, bare, _bare(name)).ratio() for name in alike}
    best = max(near, key=near.__getitem__, default="")
    return f" Did you mean {best!r}?" if near.get(best, 0.0) >= 0.6 else ""


def check_option(value: Any, options: Iterable[str], where: str, name: str, also: str = "") -> Any:
    """Return a setting that is one of the words known, or refuse it with the nearest, in one sentence.

    Parameters
    ----------
    value : object
    options : iterable of str
    where, name : str
        The caller and the argument, for the message.
    also : str
        What else the argument may be, such as ``"a Structure"``.

    Raises
    ------
    DataError
        If ``value`` is not one of ``options``.

    Examples
    --------
    >>> check_option("svdd", ["svd", "random"], "cp", "init")
    Traceback (most recent call last):
    tenfac.core.errors.DataError: cp: `init` must be one of 'svd', 'random'; got 'svdd'. Did you mean 'svd'?
    """
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    known = ", ".join(map(repr, options)) + (f", or {also}" if also else "")
    hint = nearest_name(value, options) if isinstance(value, str) else ""
    raise DataError(f"{where}: `{name}` must be one of {known}; got {value!r}.{hint}")


def cannot_take(function: Any, count: int) -> str:
    """Why a user's function cannot be called with ``count`` arguments; empty if it can, or does not tell.

    Examples
    --------
    >>> cannot_take(lambda x, y: x, 1)
    "the arguments (x, y): missing a required argument: 'y'"
    """
    try:
        known = inspect.signature(function)
    except (TypeError, ValueError):  # written in C, without a signature
        return ""
    try:
        known.bind(*range(count))
    except TypeError as error:
        return f"the arguments {known}: {error}"
    return ""


def warn_user(message: str, category: type[Warning] = ConvergenceWarning) -> None:
    """Warn with the line of the user who called this package, however deep the fit is.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     warn_user("cp: 3 sweeps were too few.")
    >>> said[0].category.__name__, "errors.py" in said[0].filename
    ('ConvergenceWarning', False)
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_between(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _is_between(frame: Any) -> bool:
    root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return root in _BETWEEN or frame.f_code.co_filename.startswith("<@")  # a check made by beartype


def check_verbose(verbose: Any, where: str) -> None:
    """Refuse what does not say how much to tell: one rule and one sentence for everything that is iterated.

    Examples
    --------
    >>> check_verbose(3, "cp")
    Traceback (most recent call last):
    tenfac.core.errors.DataError: cp: `verbose` must be 0 (silence), 1 (a progress bar) or 2 ...; got 3.
    """
    if isinstance(verbose, bool) or not isinstance(verbose, Integral) or verbose not in (0, 1, 2):
        raise DataError(
            f"{where}: `verbose` must be 0 (silence), 1 (a progress bar) or 2 (a line per stage); got "
            f"{verbose!r}."
        )


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
