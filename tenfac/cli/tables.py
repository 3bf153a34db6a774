"""Tables from CSV files, Parquet files and data sets, as named columns; CSV needs no extra."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tenfac.cli.columns import Column, Wanted, parse
from tenfac.core.errors import DataError, MissingExtraError

_DELIMITERS = ",;\t"
BLOCK = 100_000


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal length, as they stand in the file; `column` reads one.

    ``lines`` are the lines of a text file that the rows end on, ``start`` is how many rows stand above these.
    A data set also says the name of its values, the units, which modes are discrete and which are measured
    between logarithms.
    """

    source: str
    cells: Mapping[str, Any]
    lines: Sequence[int] | None = None
    notes: tuple[str, ...] = ()
    value: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    discrete: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    start: int = 0

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
        return f"{self.source}, row {self.start + row + 1}{line}"

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
    path = _file_of(source)
    if path is None:
        return _load_dataset(source)
    with _readable(path):
        table = _read_parquet(path) if _is_parquet(path) else _read_csv(path)
    if not table.size:
        raise DataError(f"{source}: the table is empty: it has a header and no rows.")
    return table


def read_blocks(source: str, rows: int = BLOCK) -> Iterator[Table]:
    """Read the same table, so many rows at a time."""
    path = _file_of(source)
    if path is None:
        yield _load_dataset(source)
        return
    count = 0
    with _readable(path):
        for table in _parquet_blocks(path, rows) if _is_parquet(path) else _csv_blocks(path, rows):
            count += table.size
            yield table
    if not count:
        raise DataError(f"{source}: the table is empty: it has a header and no rows.")


def _file_of(source: str) -> Path | None:
    """The file that is meant, None for the name of a data set."""
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{source} is a folder; give a CSV or Parquet file.")
    if path.exists():
        return path
    if path.suffix or path.name != source:
        raise DataError(f"file not found: {source}")
    return None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file in UTF-8 (byte {error.start}). Save it as CSV, UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file: {error}.") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1" or path.suffix.lower() in (".parquet", ".pq")


# --- CSV --------------------------------------------------------------------------------------------------


def _read_csv(path: Path) -> Table:
    tables = list(_csv_blocks(path, None))
    return tables[0]


def _csv_blocks(path: Path, size: int | None) -> Iterator[Table]:
    """Tables of at most ``size`` rows, all rows if None; one without rows if there are none."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = _read_rows(file, str(path))
        header, _ = next(rows)
        start = 0
        while True:
            part = list(islice(rows, size))
            if part or not start:
                yield _as_table(path, header, part, start)
            start += len(part)
            if size is None or len(part) < size:
                return


def _as_table(path: Path, header: list[str], rows: list[tuple[list[str], int]], start: int) -> Table:
    named = [(name, k) for k, name in enumerate(header) if name]
    columns = {name: [cells[k] for cells, _ in rows] for name, k in named}
    notes = ("a column without a name was left out",) if len(named) < len(header) else ()
    return Table(str(path), columns, [line for _, line in rows], notes, start=start)


def _read_rows(file: Any, source: str) -> Iterator[tuple[list[str], int]]:
    """The header, then every row, each with the line that it ends on."""
    first = file.readline()
    while first and not first.strip():
        first = file.readline()
    delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header: list[str] = []
    count = 0
    for cells in reader:
        if len(cells) <= 1 and not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            _check_header(header, source)
            yield header, reader.line_num
            continue
        count += 1
        if len(cells) != len(header):
            raise DataError(
                f"{source}, row {count} (line {reader.line_num}): {len(cells)} cells where the "
                f"header names {len(header)} columns. Quote a cell that contains {delimiter!r}."
            )
        yield cells, reader.line_num
    if not header:
        raise DataError(f"{source}: the table is empty: a header row with column names is needed.")


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
    _require_pandas(path)
    import pandas as pd

    with _parquet_errors(path):
        frame = pd.read_parquet(path, engine="pyarrow")
    return _of_frame(path, frame, 0)


def _parquet_blocks(path: Path, size: int) -> Iterator[Table]:
    _require_pandas(path)
    import pyarrow.parquet as pq

    start = 0
    with _parquet_errors(path):
        file = pq.ParquetFile(path)
    with file:
        for batch in file.iter_batches(batch_size=size):
            yield _of_frame(path, batch.to_pandas(), start)
            start += batch.num_rows


def _of_frame(path: Path, frame: Any, start: int) -> Table:
    columns = {str(name): _as_array(frame.iloc[:, k]) for k, name in enumerate(frame.columns)}
    return Table(str(path), columns, start=start)


def _require_pandas(path: Path) -> None:
    """Raise if what reads Parquet is not installed, with the command that installs it."""
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: Parquet tables need pandas and pyarrow. Install them with: "
            "pip install 'tenfac[table]'. CSV needs neither."
        ) from error


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable Parquet file: {reason}") from error


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
