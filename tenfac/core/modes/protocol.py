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
