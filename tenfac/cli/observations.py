"""From a table to observations: which columns are modes, checked index values, repeats, held-out rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfac.cli.columns import DATE_UNIT, Wanted, as_labels
from tenfac.cli.tables import Table
from tenfac.core.errors import DataError

_LOG = re.compile(r"log10\((.+)\)")


@dataclass(frozen=True)
class ModeColumn:
    """A mode as the model knows it (``name``), and the column it comes from."""

    name: str
    column: str
    kind: str
    unit: str = ""

    @property
    def label(self) -> str:
        """Name and unit, for the axis of a figure."""
        if self.name != self.column:
            return f"log10({self.column}{' / ' + self.unit if self.unit else ''})"
        return f"{self.name} ({self.unit})" if self.unit and not self.is_date else self.name

    @property
    def is_date(self) -> bool:
        """True if index values are days since 1970-01-01."""
        return self.unit == DATE_UNIT


@dataclass(frozen=True, eq=False)
class Observations:
    """Index values per mode (floats, or strings for labels), observed values, and numbers of repeats."""

    modes: tuple[ModeColumn, ...]
    X: dict[str, np.ndarray]
    y: np.ndarray
    value: str
    unit: str = ""
    notes: tuple[str, ...] = ()
    weights: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def discrete(self) -> list[str]:
        """Names of the discrete modes."""
        return [mode.name for mode in self.modes if mode.kind == "discrete"]

    def take(self, rows: np.ndarray) -> "Observations":
        """Keep some rows, by mask or position."""
        X = {name: values[rows] for name, values in self.X.items()}
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, X=X, y=self.y[rows], weights=weights)


def observe(
    table: Table,
    value: str | None,
    *,
    modes: Sequence[str] | None = None,
    discrete: Sequence[str] = (),
    log: Sequence[str] = (),
    duplicates: str = "refuse",
    weights: str | None = None,
) -> Observations:
    """Read the columns of values, modes and weights of a table, and refuse what cannot be fitted."""
    value = value or table.value
    if value is None:
        raise DataError(
            f"{table.source}: say which column holds the values: --value COLUMN. Columns: "
            f"{', '.join(table.names)}."
        )
    table.require(value, "--value")
    names = list(modes) if modes else [name for name in table.names if name not in (value, weights)]
    _check_names(table, value, names, discrete, log)
    y = table.column(value, wanted="number").values
    if np.isinf(y).any():
        raise DataError(
            f"{table.where(_first(np.isinf(y)))}, column {value!r}: the value is infinite. "
            "Leave the cell empty."
        )
    keep = ~np.isnan(y)
    logs = {*log, *(table.log if not log else ())}
    found = [_read_mode(table, name, name in {*discrete, *table.discrete}, name in logs) for name in names]
    for mode, values in found:
        _check_indices(table, mode, values, keep)
    notes = list(table.notes)
    if not keep.all():
        notes.append(f"{count_rows(int(np.sum(~keep)))} without a value in {value!r} were left out")
    if not keep.any():
        raise DataError(f"{table.source}: the table is empty: no row has a value in {value!r}.")
    repeats = None if weights is None else _read_weights(table, weights, (value, *names), keep)
    X = {mode.name: values[keep] for mode, values in found}
    rows = np.flatnonzero(keep)
    obs = Observations(tuple(mode for mode, _ in found), X, y[keep], value, table.units.get(value, ""))
    for mode in obs.modes:
        if len(np.unique(X[mode.name])) < 2:
            raise DataError(
                f"{table.source}: mode {mode.column!r} is constant: its only index is {X[mode.name][0]}. "
                f"Leave it out: --modes {','.join(n for n in names if n != mode.column) or '...'}."
            )
    if duplicates == "refuse":
        _refuse_duplicates(obs, table, rows)
    return replace(obs, notes=tuple(notes), weights=repeats)


def _read_weights(table: Table, name: str, taken: Sequence[str], keep: np.ndarray) -> np.ndarray:
    """Numbers of repeats of the rows kept, positive."""
    table.require(name, "--weights")
    if name in taken:
        raise DataError(f"--weights names {name!r}, which is the value or a mode. Name another column.")
    weights = table.column(name, wanted="number").values
    bad = keep & ~(np.isfinite(weights) & (weights > 0))
    if bad.any():
        raise DataError(
            f"{table.where(_first(bad))}, column {name!r}: a weight must be a positive number; got "
            f"{weights[_first(bad)]:g}. Correct it or remove the row ({count_rows(int(bad.sum()))} affected)."
        )
    return weights[keep]


def _check_names(
    table: Table, value: str, names: list[str], discrete: Sequence[str], log: Sequence[str]
) -> None:
    for option, given in (("--modes", names), ("--discrete", discrete), ("--log", log)):
        for name in given:
            table.require(name, option)
            if name == value:
                raise DataError(f"{option} names {name!r}, which --value says is the value. Leave it out.")
            if name not in names:
                raise DataError(f"{option} names {name!r}, which is not among --modes {','.join(names)}.")
            if list(given).count(name) > 1:
                raise DataError(f"{option} names {name!r} twice.")
    both = sorted({*discrete, *table.discrete} & set(log))
    if both:
        raise DataError(f"--log names {both[0]!r}, which is discrete: a label has no logarithm.")
    if not names:
        raise DataError(f"{table.source}: no mode: the table needs a column beside {value!r}.")


def _read_mode(table: Table, name: str, discrete: bool, log: bool) -> tuple[ModeColumn, np.ndarray]:
    column = table.column(name, wanted="discrete" if discrete else None)
    if log and not discrete and column.kind != "number":
        raise DataError(
            f"--log names {name!r}, which holds {column.kind}s: a {column.kind} has no logarithm."
        )
    if discrete or column.kind == "label":
        return ModeColumn(name, name, "discrete"), column.values
    if column.kind == "date":
        return ModeColumn(name, name, "continuous", DATE_UNIT), column.values
    unit = table.units.get(name, "")
    if log:
        return ModeColumn(f"log10({name})", name, "continuous", unit), log10(table, name, column.values)
    return ModeColumn(name, name, "continuous", unit), column.values


def log10(table: Table, name: str, values: np.ndarray) -> np.ndarray:
    """Take logarithms, refusing what has none."""
    if (values <= 0).any():
        row = _first(values <= 0)
        raise DataError(
            f"{table.where(row)}, column {name!r}: {values[row]:g} has no logarithm; a log mode "
            "needs positive numbers."
        )
    return np.log10(values)


def _check_indices(table: Table, mode: ModeColumn, values: np.ndarray, keep: np.ndarray) -> None:
    """Refuse missing and infinite index values in rows that have a value."""
    missing = (values == "") if values.dtype.kind == "U" else np.isnan(values)
    infinite = np.zeros(len(values), bool) if values.dtype.kind == "U" else np.isinf(values)
    for bad, word in ((missing & keep, "missing (NaN)"), (infinite & keep, "infinite")):
        if bad.any():
            raise DataError(
                f"{table.where(_first(bad))}, column {mode.column!r}: the index is {word}. Correct it or "
                f"remove the row ({count_rows(int(bad.sum()))} affected)."
            )


def _refuse_duplicates(obs: Observations, table: Table, rows: np.ndarray) -> None:
    key = group_rows(list(obs.X.values()))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    if len(first) == obs.size:
        return
    again = _first(np.bincount(inverse)[inverse] > 1)
    second = np.flatnonzero(inverse == inverse[again])[1]
    index = ", ".join(f"{mode.column}={table.cells[mode.column][rows[again]]}" for mode in obs.modes)
    raise DataError(
        f"{table.source}: duplicate indices in {count_rows(obs.size - len(first))}; first: row "
        f"{rows[second] + 1} repeats row {rows[again] + 1} ({index}). If they are repeated measurements, say "
        "--duplicates keep; else name the mode that tells them apart."
    )


def group_rows(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One integer per row, equal where all columns are."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for values in columns:
        known, code = np.unique(values, return_inverse=True)
        key = np.unique(key * len(known) + code, return_inverse=True)[1]
    return key


def split(obs: Observations, holdout: float, seed: int) -> tuple[Observations, Observations]:
    """Hold out random rows; a label or index that no other row has stays in the rows to fit."""
    size = min(max(round(holdout * obs.size), 1), obs.size - 2) if holdout else 0
    held = np.zeros(obs.size, dtype=bool)
    held[np.random.default_rng(seed).permutation(obs.size)[: max(size, 0)]] = True
    for name in obs.discrete:
        _, first, code = np.unique(obs.X[name], return_index=True, return_inverse=True)
        unseen = np.setdiff1d(np.arange(len(first)), code[~held])
        held[first[unseen]] = False
    return obs.take(~held), obs.take(held)


def read_indices(
    table: Table,
    names: Sequence[str],
    kinds: Sequence[str],
    labels: Sequence[Any],
    formats: dict[str, str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Sequence[Any]]]:
    """Read the index values of new rows for a model's modes; also the cells, as they stand in the table.

    ``formats`` remembers, from one block of a table to the next, which columns hold numbers and which dates.
    """
    X, cells = {}, {}
    for name, kind, known in zip(names, kinds, labels, strict=True):
        logged = _LOG.fullmatch(name) if name not in table.cells else None
        source = logged[1] if logged else name
        table.require(source, f"mode {name!r}")
        labels_known = np.asarray(known)
        column = table.column(source, wanted=_wanted(kind, labels_known))
        values = column.values
        if kind != "discrete" and column.kind == "label":
            values = table.column(source, wanted="number").values
        _check_indices(table, ModeColumn(name, source, kind), values, np.ones(len(values), bool))
        first = formats.setdefault(source, column.kind) if formats is not None else column.kind
        if column.kind != first:
            raise DataError(
                f"{table.where(0)}, column {source!r}: {str(column.text[0])!r} is a {column.kind}, but the "
                f"rows above hold a {first} each. Write them in one way."
            )
        if kind == "discrete":
            _check_labels(table, source, as_labels(values), as_labels(labels_known))
        X[name] = log10(table, source, values) if logged else values
        cells[source] = table.cells[source]
    return X, cells


def _wanted(kind: str, known: np.ndarray) -> Wanted | None:
    if kind != "discrete":
        return None
    return "label" if known.dtype.kind in "OUS" else "number"


def _check_labels(table: Table, name: str, values: np.ndarray, known: np.ndarray) -> None:
    unseen = ~np.isin(values, known)
    if unseen.any():
        row = _first(unseen)
        some = ", ".join(known[:8].tolist()) + (", ..." if len(known) > 8 else "")
        raise DataError(
            f"{table.where(row)}, column {name!r}: the label {str(values[row])!r} is not among those fitted, "
            f"so nothing is known of it ({count_rows(int(unseen.sum()))} affected). Known: {some}."
        )


def _first(mask: np.ndarray) -> int:
    return int(np.argmax(mask))


def count_rows(count: int) -> str:
    """The number of rows, in words of a message."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
