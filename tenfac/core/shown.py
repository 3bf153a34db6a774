"""What a fitted estimator shows when it is printed: its settings, and in one line what it learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def shows_what_it_learned(learned: Callable[[Any], str]) -> Callable[[type], type]:
    """Give a scikit-learn estimator a line on what it learned, once it is fitted; its settings stay in front.

    Parameters
    ----------
    learned : callable
        From the fitted estimator to words; its ``info_`` is added.

    Returns
    -------
    callable
        A decorator of classes. Estimators that are not fitted are shown by scikit-learn.

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> from tenfac import Report
    >>> @shows_what_it_learned(lambda model: f"mean {model.mean_}")
    ... class Mean(BaseEstimator):
    ...     pass
    >>> model = Mean()
    >>> model.mean_, model.info_ = 2.0, Report(True, "closed form")
    >>> Mean(), model
    (Mean(), Mean(fitted: mean 2.0, converged))
    """

    def decorate(cls: type) -> type:
        plain = cls.__repr__

        def __repr__(self: Any, N_CHAR_MAX: int = 700) -> str:  # noqa: N807 (the signature of scikit-learn)
            settings = plain(self, N_CHAR_MAX)  # type: ignore[call-arg]
            info = vars(self).get("info_")
            if info is None or not settings.endswith(")"):
                return settings
            settings = " ".join(settings[:-1].split())
            between = "" if settings.endswith("(") else "; "
            state = "converged" if info.converged else f"NOT converged: {info.reason}"
            after = f" after {info.n_iter} iterations" if info.converged and info.n_iter else ""
            return f"{settings}{between}fitted: {learned(self)}, {state}{after})"

        cls.__repr__ = __repr__  # type: ignore[assignment, method-assign]
        return cls

    return decorate
