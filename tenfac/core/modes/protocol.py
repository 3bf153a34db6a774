"""What a format asks of a mode."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Mode(Protocol):
    """What an index of a format is: the set it runs over, and how a value of it becomes a row of the factor.

    A mode is frozen and hashable and holds no learned numbers; those live in the factor of shape ``(size,
    R)``.

    Attributes
    ----------
    size : int
        Rows of the factor.
    domain : tuple of float or None
        Interval of a continuous index; None for a discrete one.

    Examples
    --------
    >>> from tenfac import Discrete
    >>> isinstance(Discrete(3), Mode)
    True
    """

    @property
    def size(self) -> int:
        """Rows of the factor."""
        ...

    @property
    def domain(self) -> tuple[float, float] | None:
        """Interval of a continuous index; None for a discrete one."""
        ...

    def rows(self, factor: Any, x: Any, *, xp: Any = None) -> Any:
        """Evaluate the factor ``(*b, size, R)`` at index values ``(N,)``: ``(*b, N, R)``."""
        ...

    def spec(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Describe the mode by a JSON-able dict and named arrays."""
        ...

    @classmethod
    def from_spec(cls, header: dict[str, Any], arrays: dict[str, Any]) -> Mode:
        """Build the mode that ``spec`` described."""
        ...


@runtime_checkable
class Continuous(Mode, Protocol):
    """What a continuous mode may offer beyond ``Mode``: calculus on its factors; formats ask for it by name.

    ``Discrete`` answers where an answer is natural: ``gram`` None (a plain sum), ``antiderivative`` the
    cumulative sum; its ``integral`` and ``diff`` are refused.

    Examples
    --------
    >>> from tenfac import Chebyshev, Discrete
    >>> isinstance(Chebyshev(3), Continuous), isinstance(Discrete(3), Continuous)
    (True, False)
    """

    def gram(self, like: Any) -> Any:
        """Inner products of the basis, ``(size, size)``; None means the identity."""
        ...

    def gram_root(self, like: Any) -> Any:
        """A matrix ``R`` with ``R.T R = gram``."""
        ...

    def integral(self, like: Any) -> Any:
        """Integrals of the basis, ``(size,)``."""
        ...

    def constant(self, like: Any) -> Any:
        """Factor of the function 1, ``(size, 1)``."""
        ...

    def diff(self, factor: Any) -> tuple[Mode, Any]:
        """The mode and factor of the derivative."""
        ...

    def antiderivative(self, factor: Any) -> tuple[Mode, Any]:
        """The mode and factor of the integral from the left end."""
        ...

    def restrict(self, factor: Any, domain: tuple[float, float]) -> tuple[Mode, Any]:
        """The mode and factor of the same functions on a part of the domain."""
        ...

    def common(self, other: Any) -> Mode:
        """The mode that holds the functions of both, or ShapeError."""
        ...

    def embed(self, target: Any, factor: Any) -> Any:
        """The same functions as a factor of ``target``, a mode from ``common``."""
        ...
