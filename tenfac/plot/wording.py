"""How a report writes numbers, indices and units."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DAYS = "days since 1970-01-01"
_LOG = re.compile(r"log10\((.+)\)")


@dataclass(frozen=True)
class Axis:
    """How a mode is spoken of: ``unit`` is that of its column, before a logarithm was taken."""

    name: str
    kind: str
    unit: str = ""

    @property
    def column(self) -> str:
        """Name of the column in the table."""
        logged = _LOG.fullmatch(self.name)
        return logged[1] if logged else self.name

    @property
    def is_date(self) -> bool:
        """True if index values are days since 1970-01-01."""
        return self.unit == DAYS

    @property
    def is_log(self) -> bool:
        """True if index values are decimal logarithms of the column."""
        return self.column != self.name

    @property
    def label(self) -> str:
        """Name and unit, below a panel."""
        if self.is_log:
            return f"log10({self.column}{' / ' + self.unit if self.unit else ''})"
        return f"{self.name} ({self.unit})" if self.unit and not self.is_date else self.name

    @property
    def distance(self) -> str:
        """Unit of a difference of indices."""
        return "days" if self.is_date else "decades" if self.is_log else self.unit

    def text(self, index: Any) -> str:
        """An index as the table has it."""
        if self.kind == "discrete":
            return f"{index:g}" if isinstance(index, float) else str(index)
        value = float(index)
        if self.is_date:
            moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=value)
            whole = moment.time() == datetime.time()
            return moment.date().isoformat() if whole else moment.isoformat(" ", "minutes")
        if self.is_log and abs(value) > 300:
            return f"1e{value:.6g}"
        return f"{10**value if self.is_log else value:.6g}"

    def span(self, values: np.ndarray) -> str:
        """The range of the distinct ``values``, or some labels."""
        if self.kind == "discrete":
            shown = ", ".join(_cut(self.text(value)) for value in values[:4].tolist())
            return shown + (", …" if len(values) > 4 else "")
        unit = "" if self.is_date else f" {self.unit}"
        return f"{self.text(values.min())} to {self.text(values.max())}{unit}".rstrip()


def axes_of(model: Any, units: Mapping[str, str] | None) -> list[Axis]:
    """One `Axis` per mode of a fitted model."""
    units = units or {}
    pairs = zip(model.mode_names_, model.kinds_, strict=True)
    return [Axis(str(name), kind, units.get(str(name), "")) for name, kind in pairs]


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits."""
    return "none" if value is None else f"{float(value):.{digits}g}"


def percent(share: float) -> str:
    """A share, in percent with one digit."""
    return f"{100 * share:.1f} %"


def rows_text(count: int) -> str:
    """The number of rows."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def with_unit(text: str, unit: str) -> str:
    """A number and its unit, if it has one."""
    return f"{text} {unit}".rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "…"
