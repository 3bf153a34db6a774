"""Tables from CSV files, Parquet files and data sets, as named columns; CSV needs no extra."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from tenfac.cli.columns import Column, Wanted, parse
from tenfac.core.errors import DataError, MissingExtraError

_DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length, as they stand in the file; `column` reads one.

    ``lines`` are the lines of a text file that the rows end on. A data set also says the name of its values,
    the units, which modes are discrete and which are measured between logarithms.
    """

    source: str
    cells: Mapping[str, Any]
    lines: Sequence[int] | None = None
    notes: tuple[str, ...] = ()
    value: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    discrete: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.cells)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(next(iter(self.cells.values()))) if self.cells else 0

    def where(self, row: int) -> str:
        """Name a row in a message, counted from 1 below the header."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.source}, row {row + 1}{line}"

    def require(self, name: str, what: str) -> None:
        """Refuse a column name that the table does not have, with near names."""
        if name not in self.cells:
            raise DataError(
                f"{self.source}: no column {name!r} for {what}. {near(name, self.names)}Columns: "
                f"{', '.join(self.names)}."
            )

    def column(self, name: str, *, wanted: Wanted | None = None) -> Column:
        """Read the cells of a column."""
        return parse(name, self.cells[name], self.where, wanted=wanted)


def near(name: str, known: Sequence[str]) -> str:
    """Say which known names are like this one, or nothing."""
    lower = {option.lower(): option for option in known}
    found = [lower[match] for match in get_close_matches(name.lower(), lower, n=2, cutoff=0.5)]
    return f"Did you mean {' or '.join(map(repr, found))}? " if found else ""


def read_table(source: str) -> Table:
    """Read a file, or load a data set of that name; a file of that name wins."""
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{source} is a folder; give a CSV or Parquet file.")
    if path.exists():
        try:
            table = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
        except OSError as error:
            raise DataError(f"cannot read {source}: {error.strerror or error}.") from error
        if not table.size:
            raise DataError(f"{source}: the table is empty: it has a header and no rows.")
        return table
    if path.suffix or path.name != source:
        raise DataError(f"file not found: {source}")
    return _load_dataset(source)


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() in (".parquet", ".pq")


# --- CSV --------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Table:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, rows, lines = _read_rows(file, str(path))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8 (byte {error.start}). Save it as CSV, UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}.") from error
    named = [(name, k) for k, name in enumerate(header) if name]
    columns = {name: [row[k] for row in rows] for name, k in named}
    notes = ("a column without a name was left out",) if len(named) < len(header) else ()
    return Table(str(path), columns, lines, notes)


def _read_rows(file: Any, source: str) -> tuple[list[str], list[list[str]], list[int]]:
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header: list[str] = []
    rows, lines = [], []
    for cells in reader:
        if not any(cell.strip() for cell in cells) and len(cells) <= 1:
            continue
        if not header:
            header = [name.strip() for name in cells]
            _check_header(header, source)
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{source}, row {len(rows) + 1} (line {reader.line_num}): {len(cells)} cells where the "
                f"header names {len(header)} columns. Quote a cell that contains {delimiter!r}."
            )
        rows.append(cells)
        lines.append(reader.line_num)
    if not header:
        raise DataError(f"{source}: the table is empty: a header row with column names is needed.")
    return header, rows, lines


def _check_header(header: list[str], source: str) -> None:
    twice = [name for name in header if name and header.count(name) > 1]
    if all(cell == "" or _is_number(cell) for cell in header):
        raise DataError(
            f"{source}: the first row must name the columns; got numbers: {', '.join(header[:4])}."
        )
    if twice:
        raise DataError(f"{source}: two columns are named {twice[0]!r}. Rename one.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# --- Parquet ----------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Table:
    try:
        import pandas as pd
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet tables need pandas and pyarrow. Install them with: "
            "pip install 'tenfac[table]'. CSV needs neither."
        ) from error
    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable Parquet file: {reason}") from error
    return Table(str(path), {str(name): _as_array(frame.iloc[:, k]) for k, name in enumerate(frame.columns)})


def _as_array(series: Any) -> Any:
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_bool_dtype(series.dtype):
        return [str(cell) for cell in series]
    if kinds.is_datetime64_any_dtype(series.dtype):
        moments = series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz is not None else series
        return moments.to_numpy(dtype="datetime64[us]")
    if kinds.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=float, na_value=np.nan)
    return ["" if missing else str(cell) for cell, missing in zip(series, series.isna(), strict=True)]


# --- data sets --------------------------------------------------------------------------------------------


def _load_dataset(name: str) -> Table:
    from tenfac import datasets

    known = datasets.names()
    if name not in known:
        raise DataError(
            f"{name}: neither a file nor a data set of that name. {near(name, list(known))}Data sets: "
            f"{', '.join(known)}."
        )
    data = datasets.load(name)
    rows = np.nonzero(~np.isnan(data.values))
    columns = {axis.name: axis.values[i] for axis, i in zip(data.modes, rows, strict=True)}
    missing = data.values.size - len(rows[0])
    return Table(
        name,
        {**columns, data.value_name: data.values[rows]},
        notes=(f"{missing:,} missing entries were left out",) if missing else (),
        value=data.value_name,
        units={axis.name: axis.unit for axis in data.modes} | {data.value_name: data.unit},
        discrete=tuple(axis.name for axis in data.modes if not axis.continuous),
        log=tuple(axis.name for axis in data.modes if axis.scale == "log"),
    )
