"""Errors and warnings, each saying what must hold, what was got, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from numbers import Integral
from typing import Any


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
