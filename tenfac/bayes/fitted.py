"""What the estimator asks of a fitted function, whichever inference made it."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from numpy.typing import NDArray

from tenfac.core.errors import DataError

Array = NDArray[Any]


class FittedFunction(Protocol):
    """A posterior of the function over scaled positions, on the scale where it has a Gaussian likelihood."""

    @property
    def log_evidence(self) -> float | None:
        """Of the scaled observations, or a lower bound of it; None where the inference has neither."""
        ...

    def at(self, positions: list[Array], with_variance: bool = True) -> tuple[Array, Array, Array]:
        """Mean, variance of f, variance of an observation at N points (one scaled position per mode)."""
        ...

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,)."""
        ...


class MarginalsOnly:
    """A fitted function that answers for single points: what is joint is refused in words."""

    inference: str  # that made it

    def cov(self, *args: Any, **settings: Any) -> NoReturn:  # noqa: ARG002 (whatever is asked)
        """Refuse a covariance between points."""
        self._refuse("a covariance between points")

    def sample(self, *args: Any, **settings: Any) -> NoReturn:  # noqa: ARG002
        """Refuse joint draws."""
        self._refuse("joint draws")

    def derivative(self, *args: Any, **settings: Any) -> NoReturn:  # noqa: ARG002
        """Refuse derivatives."""
        self._refuse("derivatives")

    def affine(self, *args: Any, **settings: Any) -> NoReturn:  # noqa: ARG002
        """Refuse what is linear in jointly Gaussian coefficients."""
        self._refuse("linear functions of the coefficients")

    @property
    def problem(self) -> NoReturn:
        """Refuse the problem of the exact mode, which only one inference has."""
        self._refuse("products of mode functions with exact coefficients")

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(
            f"FunctionalTucker: inference={self.inference!r} has a posterior without {what}. Fit with "
            "inference='collapsed', which has one."
        )
