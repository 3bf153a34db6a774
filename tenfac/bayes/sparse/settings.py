"""The settings of ``KroneckerSBL``, checked whatever the data are."""

from __future__ import annotations

import math
from inspect import signature
from numbers import Integral, Real
from typing import Any

from ...core.errors import DataError, check_verbose, nearest_name

UPDATES = {"fixed_point": 1.0, "mm": 0.5}  # name: exponent of the step
REPLICAS = ("em_am", "em_svd")  # with their own start, thresholds and stopping rule
_WHERE = "KroneckerSBL"


def check_settings(model: Any) -> None:
    """Refuse settings that mean nothing.

    Raises
    ------
    DataError

    Examples
    --------
    >>> from tenfac import KroneckerSBL
    >>> check_settings(KroneckerSBL())
    """
    check_choice("update", model.update, (*UPDATES, *REPLICAS))
    if model.update in REPLICAS:
        _check_replica(model)
    check_choice("prior", model.prior, ("kronecker", "unstructured"))
    check_choice("values", model.values, ("full", "rank1", "auto"))
    if model.noise is not None and not (_is_number(model.noise) and model.noise > 0):
        raise DataError(
            f"{_WHERE}: `noise` must be a positive standard deviation, or None to learn it; got "
            f"{model.noise!r}."
        )
    if not (_is_number(model.prune_alpha) and 0 <= model.prune_alpha < 0.5):
        raise DataError(
            f"{_WHERE}: `prune_alpha` must be a level from 0 (no pruning) to below 0.5; got "
            f"{model.prune_alpha!r}."
        )
    if not (_is_number(model.tol) and model.tol > 0):
        raise DataError(f"{_WHERE}: `tol` must be a positive number; got {model.tol!r}.")
    for name, least in (("n_starts", 1), ("n_hops", 0), ("max_iter", 0)):
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise DataError(f"{_WHERE}: `{name}` must be an integer from {least} up; got {value!r}.")
    check_verbose(model.verbose, _WHERE)


def _check_replica(model: Any) -> None:
    """Refuse what a replica of a published algorithm does not read."""
    default = {name: parameter.default for name, parameter in signature(type(model)).parameters.items()}
    for name in ("coupling", "prune_alpha", "n_starts", "n_hops", "max_iter", "tol"):
        value = getattr(model, name)
        if value is not default[name] and not (_is_number(value) and value == default[name]):
            raise DataError(
                f"{_WHERE}: update={model.update!r} has the start, the thresholds and the stopping rule of "
                f"the paper, and does not read `{name}`; got {value!r}. Leave it out, or take "
                "update='fixed_point'."
            )


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse an unknown choice, with the nearest known one.

    Raises
    ------
    DataError

    Examples
    --------
    >>> check_choice("update", "mm", ("mm",))
    """
    if not isinstance(value, str) or value not in known:
        raise DataError(
            f"{_WHERE}: `{name}` must be one of {known}; got {value!r}.{nearest_name(value, known)}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
