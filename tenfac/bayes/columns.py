"""From the user's table to scaled positions: one index set per mode, learned in fit, reused in predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.core.errors import DataError, ShapeError
from tenfac.core.tracing import constant

Array = NDArray[Any]
_LARGEST_LABEL = 2.0**53


@dataclass(frozen=True)
class ModeIndex:
    """The observed indices of one mode.

    Parameters
    ----------
    name : str
    values : array, shape (M,)
        Distinct observed indices, ascending; labels when discrete.
    discrete : bool
    unit : tuple of two floats, or None
        Where a continuous scale begins and how long it is, if not where ``values`` begin and end.
    """

    name: str
    values: NDArray[Any]
    discrete: bool
    unit: tuple[float, float] | None = None

    @classmethod
    def learn(cls, name: str, column: NDArray[Any], discrete: bool) -> ModeIndex:
        """Collect the distinct values of a column; numbers too close to tell apart on its range are one."""
        index = cls(name, np.unique(column), discrete)
        if discrete:
            return index
        return cls(
            name, index.values[np.unique(index.positions(index.values), return_index=True)[1]], discrete
        )

    @property
    def size(self) -> int:
        """Number of distinct indices M."""
        return self.values.size

    @property
    def start(self) -> float:
        """The index of a continuous mode that has position 0."""
        return float(self.values[0]) if self.unit is None else self.unit[0]

    @property
    def span(self) -> float:
        """Range of a continuous mode (1 when it has a single index)."""
        if self.unit is not None:
            return self.unit[1]
        extent = float(self.values[-1]) - float(self.values[0])
        return extent if extent > 0 else 1.0

    def extended(self, column: NDArray[Any]) -> ModeIndex:
        """With the values of a further column; positions of continuous indices stay."""
        if self.discrete:
            self._check_kind(column)
            return replace(self, values=np.union1d(self.values, column))
        values, first = np.unique(self.positions(column), return_index=True)
        fresh = column[first][~np.isin(values, self.positions(self.values))]
        if fresh.size == 0:
            return self
        return replace(self, values=np.union1d(self.values, fresh), unit=(self.start, self.span))

    def positions(self, column: NDArray[Any]) -> Array:
        """Codes of labels, or indices scaled so that the observed range is 0 to 1, shape (N,)."""
        if not self.discrete:
            return (column.astype(float) - self.start) / self.span
        self._check_kind(column)
        codes = np.searchsorted(self.values, column)
        codes = np.minimum(codes, self.size - 1)
        unseen = self.values[codes] != column
        if unseen.any():
            first = int(np.argmax(unseen))
            near = get_close_matches(str(column[first]), [str(v) for v in self.values], n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise DataError(
                f"arrays: mode {self.name!r} is discrete and was fitted on {self.size} labels; row {first} "
                f"has the unseen label {column[first].item()!r}{hint} Fit on rows that have it, or drop them."
            )
        return codes.astype(float)

    def _check_kind(self, column: NDArray[Any]) -> None:
        """Refuse text among labels that are numbers, and numbers among text."""
        if self.values.dtype.kind != column.dtype.kind:
            kinds = {"U": "text", "f": "numbers"}
            raise DataError(
                f"arrays: mode {self.name!r} was fitted on labels that are {kinds[self.values.dtype.kind]}; "
                f"got {kinds[column.dtype.kind]}, first {column[0].item()!r}. Convert the column."
            )


def is_table(data: Any) -> bool:
    """Whether ``data`` has named columns: a DataFrame or a mapping of columns."""
    if hasattr(data, "tocoo"):  # some sparse arrays are mappings
        return False
    return isinstance(data, Mapping) or (hasattr(data, "columns") and hasattr(data, "__getitem__"))


def column_names(table: Any) -> list[str]:
    """Names of the columns of a table, in its order; a numbered column is called by its number."""
    return [str(name) for name in (table.keys() if isinstance(table, Mapping) else table.columns)]


def columns_of(table: Any, names: Sequence[str]) -> list[NDArray[Any]]:
    """Columns ``names`` of a table as 1-D arrays of one length; extra columns are ignored."""
    keys = dict(zip(column_names(table), table.keys(), strict=True))
    if not keys:
        raise DataError(
            "arrays: the table is empty: no columns; give one column per mode and at least one row."
        )
    for name in names:
        if name not in keys:
            near = get_close_matches(name, list(keys), n=3, cutoff=0.5)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise DataError(
                f"arrays: the table has no column {name!r}. {hint}Its columns are {', '.join(keys)}. "
                "Rename the column, or fit again without this mode."
            )
    columns = [as_column(table[keys[name]]) for name in names]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        shapes = ", ".join(f"{name}: {column.shape}" for name, column in zip(names, columns, strict=True))
        raise ShapeError(f"arrays: every column of the table must be 1-D and of one length; got {shapes}.")
    return columns


def text_columns(X: Any, texts: Sequence[bool] = ()) -> list[NDArray[Any]] | None:
    """Columns of an array or a list of rows that has text among its cells; None if it has none.

    Text that reads as numbers is numbers, but in the columns that ``texts`` says are known to be text.

    Examples
    --------
    >>> text_columns([[0.1, "a"], [0.2, "b"]])
    [array([0.1, 0.2]), array(['a', 'b'], dtype='<U1')]
    """
    if not isinstance(X, list | tuple | np.ndarray) or getattr(X, "dtype", np.dtype("O")).kind not in "OU":
        return None
    try:
        cells = np.asarray(X, dtype=object)
    except ValueError:  # rows of different lengths: refused where all rows are
        return None
    if cells.ndim != 2 or not any(isinstance(cell, str) for cell in cells.ravel()):
        return None
    known = dict(enumerate(texts))
    return [_numbers_or_text(column, known.get(n, False)) for n, column in enumerate(cells.T)]


def _numbers_or_text(column: NDArray[Any], text: bool) -> NDArray[Any]:
    if all(isinstance(cell, bool | np.bool_) for cell in column):
        return column.astype(bool)
    if not all(isinstance(cell, str) for cell in column):
        return as_column(column)
    try:
        return column.astype(str if text else float)
    except ValueError:  # a label among them
        return column.astype(str)


def as_column(values: Any) -> NDArray[Any]:
    """An array; numbers held as objects become floats, dates days since 1970-01-01 (UTC)."""
    column = np.asarray(values)
    if column.dtype.kind == "O" and column.size and all(isinstance(v, datetime) for v in column.ravel()):
        zoned = [v if v.tzinfo else v.replace(tzinfo=UTC) for v in column.ravel()]
        return np.array([v.timestamp() for v in zoned]).reshape(column.shape) / 86400
    if column.dtype.kind == "M":
        return (column - np.datetime64(0, "D")) / np.timedelta64(1, "D")
    if column.dtype.kind == "O" and all(
        isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in column.ravel()
    ):
        return column.astype(float)
    return column


def check_column(name: str, column: NDArray[Any], discrete: bool) -> NDArray[Any]:
    """A column ready for use: finite floats when continuous, comparable labels when discrete."""
    if column.dtype.kind in "biuf":
        column = column.astype(float)
        bad = ~np.isfinite(column)
        if discrete and column.size and np.abs(column[~bad]).max(initial=0.0) >= _LARGEST_LABEL:
            raise DataError(
                f"arrays: mode {name!r} is discrete and has labels beyond 2^53, which numbers cannot tell "
                "apart. Make the column text."
            )
        if bad.any():
            first = int(np.argmax(bad))
            kind = "NaN" if np.isnan(column[first]) else "infinity"
            raise DataError(
                f"arrays: mode {name!r} contains {kind}: {int(bad.sum())} of {column.size} indices are not "
                f"finite (NaN, inf), first in row {first}. Every mode needs an index; drop these rows."
            )
        return column
    if discrete:
        missing = np.array([value is None or value != value for value in column.tolist()], dtype=bool)
        if missing.any():
            raise DataError(
                f"arrays: mode {name!r} has {int(missing.sum())} missing labels (NaN), first in row "
                f"{int(np.argmax(missing))}. Drop these rows, or give them a label of their own."
            )
        kinds = sorted({type(value).__name__ for value in column.tolist()})
        if kinds != ["str"]:
            raise DataError(
                f"arrays: mode {name!r} must have labels of one kind, text; got {', '.join(kinds)}."
            )
        return column.astype(str)
    raise DataError(
        f"arrays: mode {name!r} must hold numbers to be continuous; got dtype {column.dtype}, first value "
        f"{column[0]!r}. Convert the column, or name it in `discrete`."
    )


def looks_discrete(column: NDArray[Any]) -> bool:
    """Whether a column holds labels rather than numbers."""
    return column.dtype.kind not in "iuf"


def is_numeric_frame(X: Any) -> bool:
    """Whether X is a DataFrame of numbers, which scikit-learn's validation understands."""
    return hasattr(X, "dtypes") and all(getattr(dtype, "kind", "O") in "iuf" for dtype in X.dtypes)


def numbers_of(y: Any, where: str) -> Any:
    """``y`` as an array, text that reads as numbers read; None stays, for scikit-learn's words.

    Raises
    ------
    DataError
        If it holds text, dates or complex numbers.
    """
    values = None if y is None else np.asarray(constant(y))
    if values is None or values.dtype.kind not in "OUScMm":
        return values
    wrong = None
    if values.dtype.kind in "OUS":
        try:
            return values.astype(float)
        except (TypeError, ValueError) as error:
            wrong = error
    first = values.ravel()[:1].tolist()
    remedy = "Convert it, and leave out the rows without a number."
    if values.dtype.kind == "c":
        remedy = "Complex data not supported: fit y.real and y.imag one by one."
    raise DataError(
        f"{where}: `y` must hold real numbers; got values such as {first[0] if first else None!r} of dtype "
        f"{values.dtype}. {remedy}"
    ) from wrong


def weights_of(sample_weight: Any, y: NDArray[Any], where: str) -> NDArray[Any]:
    """One weight per row of ``y``, 1 by default; checked.

    Raises
    ------
    DataError
        If they are not finite numbers from 0 up, one per row.
    """
    if sample_weight is None:
        return np.ones(y.size)
    found = np.asarray(constant(sample_weight))
    found = np.full(y.size, found) if found.ndim == 0 else found
    try:
        weights = found.astype(float) if found.dtype.kind != "c" else None
    except (TypeError, ValueError):
        weights = None
    if weights is not None and weights.shape == y.shape and (np.isfinite(weights) & (weights >= 0)).all():
        return weights
    if found.shape != y.shape:
        got = f"shape {found.shape} for {y.size} rows"
    elif weights is None:
        got = f"values such as {found.tolist()[0]!r}"
    else:
        first = int(np.argmax(~(np.isfinite(weights) & (weights >= 0))))
        got = f"{weights[first].item()!r} in row {first}"
    raise DataError(
        f"{where}: `sample_weight` must hold one finite number per row, 0 or more; got {got}. Give how often "
        "each row counts, or leave it out."
    )
