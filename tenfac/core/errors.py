"""Errors and warnings, each saying what must hold, what was got, and what to do."""


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
