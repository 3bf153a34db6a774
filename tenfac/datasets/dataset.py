"""One shape for every data set: an array whose modes have names, units and ascending index values."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from tenfac.core.door import door
from tenfac.core.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Axis:
    """One mode of a data set: what its index values are.

    Parameters
    ----------
    name : str
        One word, also the column name in tables.
    values : ndarray, shape (I,)
        Index values in ``unit``, strictly ascending where ``continuous``; labels where not.
    unit : str
        Unit of ``values``; empty for labels.
    continuous : bool
        True if an index value is a number with order and distance.
    scale : {"linear", "log"}
        ``"log"`` if distances are to be measured between logarithms (doses). ``values`` are never logarithms.

    Raises
    ------
    DataError
        If ``values`` is not one-dimensional, or is continuous and not strictly ascending, or ``scale`` is
        ``"log"`` and a value is not positive.

    Examples
    --------
    >>> Axis("dose", np.array([0.1, 1.0, 10.0]), "nM", continuous=True, scale="log").coordinates()
    array([-1.,  0.,  1.])
    """

    name: str
    values: Shaped[np.ndarray, " I"]
    unit: str = ""
    continuous: bool = False
    scale: str = "linear"

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 1:
            raise DataError(
                f"Axis {self.name!r}: `values` must have shape (I,); got {values.shape}. Ravel it."
            )
        if self.continuous and not np.all(np.diff(values) > 0):
            raise DataError(
                f"Axis {self.name!r}: a continuous mode needs strictly ascending values; got {values[:4]} "
                "... Sort them, and the data with them, by `np.argsort`."
            )
        if self.scale not in ("linear", "log") or (self.scale == "log" and not np.all(values > 0)):
            raise DataError(
                f"Axis {self.name!r}: `scale` must be 'linear', or 'log' with values > 0; got {self.scale!r} "
                f"and values {values[:4]} ..."
            )
        object.__setattr__(self, "values", values)

    @property
    def size(self) -> int:
        """Number of index values."""
        return len(self.values)

    @property
    def label(self) -> str:
        """Name and unit, for the axis of a figure."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def coordinates(self, *, log: bool = True) -> Float[np.ndarray, " I"]:
        """Return the index values as numbers.

        ``values`` of a continuous mode (``log10(values)`` if ``scale="log"`` and ``log``), ``0 .. I-1`` of a
        discrete one.

        Parameters
        ----------
        log : bool
            False keeps the unit of a log-scaled mode.

        Returns
        -------
        ndarray, shape (I,)
            Floats, ascending.

        Examples
        --------
        >>> Axis("cell", np.array(["Treg", "NK", "CD8+"])).coordinates()
        array([0., 1., 2.])
        """
        if not self.continuous:
            return np.arange(self.size, dtype=float)
        values = self.values.astype(float)
        return np.log10(values) if log and self.scale == "log" else values

    def __repr__(self) -> str:
        if not self.continuous:
            return f"Axis({self.name}: {self.size} labels)"
        extent = f"{self.values[0]:g}..{self.values[-1]:g} {self.unit}".strip() if self.size else "empty"
        return f"Axis({self.name}: {self.size} values, {extent}{', log' if self.scale == 'log' else ''})"


@door
@dataclass(frozen=True, eq=False)
class Dataset:
    """A measured array with named modes; entries that are missing or flagged are NaN.

    Parameters
    ----------
    name : str
        What `load` knows it by.
    values : ndarray, shape (I_0, ..., I_{D-1})
        Floats in ``unit``.
    modes : tuple of Axis, length D
        In the order of the axes of ``values``.
    title : str
        One line.
    value_name : str
        One word, the column name of the values in tables.
    unit : str
        Unit of the values.
    source : str
        Reference to cite.
    licence : str
        Terms under which the data may be used.
    target : ndarray, optional
        What is known beside the array: a class number per entry of the leading modes, shape
        ``(I_0, ..., I_{k-1})``, 0-based.
    target_names : tuple of str
        Name of each class number.

    Raises
    ------
    DataError
        If the sizes of ``modes`` or of ``target`` do not agree with ``values``.

    Examples
    --------
    >>> dose = Axis("dose", np.array([0.1, 1.0]), "nM", continuous=True, scale="log")
    >>> Dataset("toy", np.array([[1.0, np.nan], [2.0, 3.0]]), (Axis("cell", np.array(["a", "b"])), dose))
    Dataset(toy: 2 cell × 2 dose, 25.00 % missing)
    """

    name: str
    values: Float[np.ndarray, "*shape"]
    modes: tuple[Axis, ...]
    title: str = ""
    value_name: str = "value"
    unit: str = ""
    source: str = ""
    licence: str = ""
    target: Int[np.ndarray, "*leading"] | None = None
    target_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        sizes = tuple(axis.size for axis in self.modes)
        if sizes != self.values.shape:
            raise DataError(
                f"Dataset {self.name!r}: `modes` must have the sizes of `values`, {self.values.shape}; got "
                f"{sizes}. Give one Axis per axis of the array, in its order."
            )
        if self.target is not None and self.target.shape != sizes[: self.target.ndim]:
            raise DataError(
                f"Dataset {self.name!r}: `target` must cover the leading modes of {sizes}; got shape "
                f"{self.target.shape}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes."""
        return self.values.shape

    @property
    def missing(self) -> float:
        """Fraction of the entries that are NaN."""
        return float(np.isnan(self.values).mean()) if self.values.size else 0.0

    def axis(self, name: str) -> Axis:
        """Return the mode of that name.

        Parameters
        ----------
        name : str
            One of the names in ``modes``.

        Returns
        -------
        Axis

        Raises
        ------
        DataError
            If no mode has that name.

        Examples
        --------
        >>> Dataset("toy", np.zeros(3), (Axis("time", np.arange(3.0), "s", continuous=True),)).axis("time")
        Axis(time: 3 values, 0..2 s)
        """
        return self.modes[self._position(name)]

    def to_table(self, *, log: bool = True) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, " N"]]:
        """Return the observed entries as a table of index values and a vector of values.

        Rows are in the order of ``values.reshape(-1)``, NaN entries left out. Column ``n`` holds what
        ``modes[n].coordinates(log=log)`` says: numbers for continuous modes, codes ``0 .. I_n - 1`` for
        discrete ones.

        Parameters
        ----------
        log : bool
            True gives ``log10`` of the index values of log-scaled modes, False their value in ``unit``.

        Returns
        -------
        X : ndarray, shape (N, D)
        y : ndarray, shape (N,)

        Examples
        --------
        >>> dose = Axis("dose", np.array([0.1, 1.0]), "nM", continuous=True, scale="log")
        >>> cell = Axis("cell", np.array(["a", "b"]))
        >>> toy = Dataset("toy", np.array([[1.0, np.nan], [2.0, 3.0]]), (cell, dose))
        >>> X, y = toy.to_table()
        >>> X
        array([[ 0., -1.],
               [ 1., -1.],
               [ 1.,  0.]])
        >>> y
        array([1., 2., 3.])
        """
        rows = np.nonzero(~np.isnan(self.values))
        columns = [axis.coordinates(log=log)[i] for axis, i in zip(self.modes, rows, strict=True)]
        return np.stack(columns, axis=-1), self.values[rows]

    def to_frame(self) -> "pd.DataFrame":
        """Return the observed entries as a pandas DataFrame.

        One row per entry that is not NaN, one column per mode, with labels and with index values in their
        unit (never logarithms), and the values last, in column ``value_name``.

        Returns
        -------
        pandas.DataFrame, shape (N, D + 1)

        Raises
        ------
        MissingExtraError
            If pandas is not installed.

        Examples
        --------
        >>> dose = Axis("dose", np.array([0.1, 1.0]), "nM", continuous=True, scale="log")
        >>> cell = Axis("cell", np.array(["a", "b"]))
        >>> toy = Dataset("toy", np.array([[1.0, np.nan], [2.0, 3.0]]), (cell, dose))
        >>> toy.to_frame()
          cell  dose  value
        0    a   0.1    1.0
        1    b   0.1    2.0
        2    b   1.0    3.0
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError(
                "`Dataset.to_frame` needs pandas. Install it with: pip install 'tenfac[table]'. "
                "`Dataset.to_table` gives the same rows as arrays."
            ) from error
        rows = np.nonzero(~np.isnan(self.values))
        columns: dict[str, Any] = {a.name: a.values[i] for a, i in zip(self.modes, rows, strict=True)}
        return pd.DataFrame({**columns, self.value_name: self.values[rows]})

    def select(self, mode: str, keep: Sequence[int] | slice | np.ndarray) -> "Dataset":
        """Keep some index values of one mode.

        Parameters
        ----------
        mode : str
            Name of the mode.
        keep : sequence of int, slice, or bool mask of length I
            Positions; ascending where the mode is continuous.

        Returns
        -------
        Dataset
            A copy with the same modes, ``mode`` shortened, and ``target`` with it.

        Raises
        ------
        DataError
            If no mode has that name, a position is outside, or a continuous mode would not stay ascending.

        Examples
        --------
        >>> dose = Axis("dose", np.array([0.1, 1.0]), "nM", continuous=True, scale="log")
        >>> cell = Axis("cell", np.array(["a", "b"]))
        >>> toy = Dataset("toy", np.array([[1.0, np.nan], [2.0, 3.0]]), (cell, dose))
        >>> toy.select("dose", [1])
        Dataset(toy: 2 cell × 1 dose, 50.00 % missing)
        >>> toy.select("dose", toy.axis("dose").values < 0.5).shape
        (2, 1)
        """
        n = self._position(mode)
        try:
            positions = np.atleast_1d(np.arange(self.shape[n])[keep])
        except IndexError as error:
            raise DataError(
                f"Dataset.select: positions along {mode!r} must lie in 0..{self.shape[n] - 1}, and a mask "
                f"have {self.shape[n]} entries; got {keep!r}."
            ) from error
        axis = replace(self.modes[n], values=self.modes[n].values[positions])
        target = self.target
        if target is not None and n < target.ndim:
            target = np.take(target, positions, axis=n)
        modes = (*self.modes[:n], axis, *self.modes[n + 1 :])
        return replace(self, values=np.take(self.values, positions, axis=n), modes=modes, target=target)

    def _position(self, name: str) -> int:
        names = [axis.name for axis in self.modes]
        if name not in names:
            raise DataError(f"Dataset {self.name!r} has the modes {', '.join(names)}; got {name!r}.")
        return names.index(name)

    def __repr__(self) -> str:
        sizes = " × ".join(f"{axis.size} {axis.name}" for axis in self.modes)
        missing = f", {100 * self.missing:.2f} % missing" if self.missing else ""
        return f"Dataset({self.name}: {sizes}{missing})"
