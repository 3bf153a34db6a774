"""Numbers of ``benchmarks/results/*.json`` in the pages, read when they are built.

The directive ``benchmark-results`` makes tables of all of them; the role ``measured`` gives one:
``{measured}`functional_tucker:il2/linear/rmse```.
"""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# raw series behind numbers that stand in other tables, and sentences made for a log
LEFT_OUT = {"runs", "history", "report", "ours", "machine", "calibrate", "cells", "claims", "targets"}
MACHINE = {"threads", "seed", "seeds", "batch"}
INTERNAL = {"mutants"}  # how good the tests are: for developers
WIDEST = 8  # columns; a table with more is turned


def shown(value: Any) -> str:
    """A number with three digits, sizes as 2 x 3, a series as mean and range."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if math.isfinite(value) and abs(value) < 1e3 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return shown_list(value)
    return "" if value is None else str(value).replace("|", r"\|").replace("\n", " ")


def shown_list(values: list[Any]) -> str:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numbers and len(values) > 3 and any(isinstance(v, float) for v in values):
        mean = sum(values) / len(values)
        return f"{mean:.3g} (mean of {len(values)}; {min(values):.3g} to {max(values):.3g})"
    sizes = all(isinstance(v, int) for v in values)
    return (" × " if sizes else ", ").join(shown(v) for v in values)


def is_leaf(value: Any) -> bool:
    """Whether a value fits in one cell."""
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(v, dict) for v in value)
    )


def flat(row: dict[str, Any], before: str = "") -> dict[str, str]:
    """The cells of a row by the name of their column; inner names are joined."""
    cells: dict[str, str] = {}
    for key, value in row.items():
        name = f"{before}{key}".replace("_", " ")
        if key in LEFT_OUT:
            continue
        if is_leaf(value):
            cells[name] = shown(value)
        elif isinstance(value, dict):
            cells |= flat(value, f"{name}: ")
    return cells


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table with a line per row, or a column per row where it would be too wide."""
    cells = {name: flat(row) for name, row in rows.items()}
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    if len(columns) > WIDEST and len(cells) < len(columns):
        turned = {column: {name: row.get(column, "") for name, row in cells.items()} for column in columns}
        cells, columns = turned, list(cells)
    lines = ["| | " + " | ".join(shown(c) for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in cells.items():
        lines.append(f"| {shown(name)} | " + " | ".join(row.get(c, "") for c in columns) + " |")
    return [*lines, ""]


def rows_of(value: Any) -> dict[str, dict[str, Any]] | None:
    """A dict of flat rows, from a dict of dicts or a list of dicts; None for anything else."""
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return {
            str(v.get("case", i + 1)): {k: x for k, x in v.items() if k != "case"}
            for i, v in enumerate(value)
        }
    if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
        flat_enough = all(depth(row) <= 2 and any(map(is_leaf, row.values())) for row in value.values())
        return value if len(value) > 1 and flat_enough else None
    return None


def depth(value: Any) -> int:
    return 1 + max((depth(v) for v in value.values()), default=0) if isinstance(value, dict) else 0


def section(data: dict[str, Any], title: str = "") -> list[str]:
    """Tables for what a dict of results holds, each under its own name."""
    data = {key: value for key, value in data.items() if key not in LEFT_OUT and not is_setting(key, value)}
    head = [f"**{title}**", ""] if title else []
    rows = rows_of(data)
    if rows is not None:
        return head + table(rows)
    plain = {key: value for key, value in data.items() if is_leaf(value)}
    lines = [*head, *[f"- {key}: {value}" for key, value in flat(plain).items()], ""] if plain else []
    for key, value in data.items():
        name = f"{title}, {key}" if title else key
        rows = rows_of(value)
        if key in plain:
            continue
        if rows is not None:
            lines += [f"**{name.replace('_', ' ')}**", "", *table(rows)]
        elif isinstance(value, dict):
            lines += section(value, name.replace("_", " "))
    return lines


def is_setting(key: str, value: Any) -> bool:
    """Whether an entry says how a run was made, and is no result."""
    return key == "versions" or (key in MACHINE and is_leaf(value))


def machine(data: dict[str, Any]) -> str:
    """Versions and threads of a run, in one line."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if is_setting(key, value):
            found |= value if isinstance(value, dict) else {key: value}
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))


def about(name: str) -> str:
    """What a benchmark measures: the docstring of its script."""
    places = (BENCHMARKS / f"{name}.py", BENCHMARKS / name / "__main__.py", BENCHMARKS / name / "__init__.py")
    for path in places:
        if path.exists():
            return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").replace("``", "`")
    return ""


def page() -> str:
    """Markdown for all results."""
    lines: list[str] = []
    for path in sorted(BENCHMARKS.glob("results/*.json")):
        if path.stem in INTERNAL:
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {path.stem.replace('_', ' ')}", "", f"```text\n{about(path.stem)}\n```", ""]
        lines += section(data)
        lines += [f"Run with {machine(data)}.", ""] if machine(data) else []
    return "\n".join(lines)


def measured(place: str) -> str:
    """One number, from ``file:key/key/...``."""
    name, _, keys = place.partition(":")
    value = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    for key in keys.split("/"):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return shown(value)


def setup(app: Any) -> dict[str, bool]:
    from docutils import nodes
    from docutils.parsers.rst import Directive
    from docutils.statemachine import StringList

    class Results(Directive):
        def run(self) -> list[nodes.Node]:
            holder = nodes.section()
            self.state.nested_parse(StringList(page().splitlines(), "benchmarks/results"), 0, holder, True)
            return holder.children

    def role(
        name: str, raw: str, place: str, *_: Any, **__: Any
    ) -> tuple[list[nodes.Node], list[nodes.Node]]:
        return [nodes.Text(measured(place))], []

    app.add_directive("benchmark-results", Results)
    app.add_role("measured", role)
    return {"parallel_read_safe": True}
