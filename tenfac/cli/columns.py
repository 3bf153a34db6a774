"""One column of a table: numbers, dates as days, or labels; found out from what its cells say."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from tenfac.core.errors import DataError

Kind = Literal["number", "date", "label"]
Wanted = Kind | Literal["discrete"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATE_UNIT = "days since 1970-01-01"
_MISSING = {"", "nan", "na", "n/a", "null", "none"}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}.*)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


@dataclass(frozen=True, eq=False)
class Column:
    """Cells of one kind.

    ``values`` are floats (NaN where missing) for numbers and dates, strings (empty where missing) for labels;
    ``text`` is what the table says, for writing it out again.
    """

    values: np.ndarray
    kind: Kind
    text: Sequence[Any] | np.ndarray


def parse(name: str, cells: Any, where: Callable[[int], str], *, wanted: Wanted | None = None) -> Column:
    """Read cells as numbers if all are, else as dates if all are, else as labels if none is either.

    ``wanted`` settles it beforehand; ``"discrete"`` means numbers if all are, else labels. ``where`` names a
    row in messages.
    """
    if wanted == "label" or (wanted == "discrete" and not _all_numbers(cells)):
        return Column(as_labels(cells), "label", cells)
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        return Column(_days(cells), "date", cells)
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf":
        return Column(cells.astype(float), "number", cells)
    texts = [str(cell).strip() for cell in cells]
    kinds: tuple[tuple[Literal["number", "date"], Any], ...] = (("number", _number), ("date", _date))
    for kind, read in kinds:
        found = [read(text) for text in texts]
        bad = [row for row, value in enumerate(found) if value is None]
        if not bad:
            return Column(np.array(found, dtype=float), kind, cells)
        some = any(value is not None and value == value for value in found)
        if some or (wanted == "number" and kind == "number"):
            raise DataError(_not_a(kind, name, texts[bad[0]], where(bad[0]), wanted))
    return Column(as_labels(cells), "label", cells)


def as_labels(cells: Any) -> np.ndarray:
    """Cells as strings; whole numbers without a decimal point, missing ones empty."""
    values = np.asarray(cells)
    if values.dtype.kind == "f":
        texts = [_short(value) for value in values.tolist()]
    else:
        texts = ["" if value is None else str(value).strip() for value in values.tolist()]
    return np.array([("" if text.lower() in ("nan", "nat") else text) for text in texts], dtype=str)


def _all_numbers(cells: Any) -> bool:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iufM":
        return cells.dtype.kind != "M"
    return all(_number(str(cell).strip()) is not None for cell in cells)


def _short(value: float) -> str:
    return str(int(value)) if value == value and abs(value) < 1e15 and value == int(value) else repr(value)


def _number(text: str) -> float | None:
    if text.lower() in _MISSING:
        return np.nan
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _date(text: str) -> float | None:
    if text.lower() in _MISSING:
        return np.nan
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - EPOCH).total_seconds() / 86400


def _days(moments: np.ndarray) -> np.ndarray:
    exact = moments.astype("datetime64[us]")
    days = exact.astype(np.int64) / 86400e6
    return np.where(np.isnat(exact), np.nan, days)


def _not_a(kind: str, name: str, text: str, row: str, wanted: str | None) -> str:
    message = f"{row}, column {name!r}: {text!r} is not a {kind}"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"{message}. Write decimals with a point."
    if wanted == "number":
        return f"{message}. Correct the cell, or leave it empty if the number is missing."
    return f"{message}, but other rows are. Correct it, or say --discrete {name} if these are labels."
