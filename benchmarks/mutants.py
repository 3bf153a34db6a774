"""Do the quick tests notice when one token of the array code is wrong?

Run: ``python benchmarks/mutants.py [--count 40] [--seed 0] [--rooms core decompose kron functional]``. Draws
tokens at random (operators, comparisons, numbers, booleans), changes one at a time in a copy of the checkout,
runs the tests of the room and its doctests until the first failure, those that name the changed file first.
All of them must pass as they are before the first change. Prints each mutant with its line and the test that
caught it, writes ``results/mutants.json``. Not drawn are docstrings, annotations, imports, error messages,
and choices that a neighbouring value serves as well: sizes of blocks and the private constants of modules
(``_NAME = 3``).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "mutants.json"
LIMIT = 4  # times as long as the tests take as they are: what takes longer is an endless loop
OPERATORS = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Pow: ("**", "*"),
    ast.Mod: ("%", "*"),
    ast.MatMult: ("@", "*"),
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}


class Mutant(NamedTuple):
    """One changed token."""

    path: Path
    line: int
    start: int
    stop: int
    new: str


class Finder(ast.NodeVisitor):
    """Places where one token can be changed."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.lines, self.found = path, source.splitlines(), []
        self.blocks: set[str] = set()
        self.depth = 0  # of functions and classes

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """What stands in a class is no constant of the module."""
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_If(self, node: ast.If) -> None:
        """Not what only type checkers read."""
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Messages are not drawn."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Bodies and defaults, not annotations and decorators."""
        outside, self.blocks = self.blocks, {*self.blocks, *_block_names(node)}
        self.depth += 1
        for child in [*node.body, *node.args.defaults, *[d for d in node.args.kw_defaults if d]]:
            self.visit(child)
        self.depth -= 1
        self.blocks = outside

    def visit_Assign(self, node: ast.Assign) -> None:
        """Not sizes of blocks and private constants of the module."""
        parts = [part for target in node.targets for part in ast.walk(target)]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        chosen = self.depth == 0 and all(name.startswith("_") and name.isupper() for name in names)
        if not (chosen or names & self.blocks):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Not the size of blocks in ``spans(size, step)``, nor -1 in ``reshape``, where -2 means the same."""
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name == "spans":
            self.visit(node.args[0])
        elif name == "reshape":
            sizes = [
                size for arg in node.args for size in (arg.elts if isinstance(arg, ast.Tuple) else [arg])
            ]
            for child in [node.func, *(size for size in sizes if ast.unparse(size) != "-1")]:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Values of arguments; not of those that check (``strict=``, ``check_finite=``) or save time."""
        if node.arg not in ("strict", "copy", "check_finite"):
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value only."""
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts are not drawn."""

    def visit_Constant(self, node: ast.Constant) -> None:
        """Numbers and booleans."""
        if isinstance(node.value, bool):
            self._add(node.lineno, node.col_offset, node.end_col_offset, str(not node.value))
        elif isinstance(node.value, int):
            self._add(node.lineno, node.col_offset, node.end_col_offset, str(node.value + 1))
        elif isinstance(node.value, float):
            new = f"({node.value!r} * 3)" if node.value else "1.0"
            self._add(node.lineno, node.col_offset, node.end_col_offset, new)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Arithmetic; not sizes of blocks, written ``2**k``."""
        if isinstance(node.op, ast.Pow) and isinstance(node.left, ast.Constant) and node.left.value == 2:
            return
        self._between(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Comparisons."""
        for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._between(left, right, op)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """``and`` and ``or``."""
        self._between(node.values[0], node.values[1], node.op)
        self.generic_visit(node)

    def _between(self, left: ast.AST, right: ast.AST, op: ast.AST) -> None:
        """The operator between two operands, when all stand on one line."""
        if type(op) not in OPERATORS or left.end_lineno != right.lineno:
            return
        old, new = OPERATORS[type(op)]
        text = self.lines[right.lineno - 1].encode()
        place = text.find(old.encode(), left.end_col_offset, right.col_offset)
        if place >= 0:
            self._add(right.lineno, place, place + len(old), new)

    def _add(self, line: int, start: int, stop: int, new: str) -> None:
        self.found.append(Mutant(self.path, line, start, stop, new))


def _block_names(function: ast.FunctionDef) -> set[str]:
    """Names of the steps of loops, ``spans(size, step)`` and ``range(start, stop, step)``."""
    steps = {("spans", 2), ("range", 3)}
    calls = [call for call in ast.walk(function) if isinstance(call, ast.Call)]
    last = [call.args[-1] for call in calls if (getattr(call.func, "id", ""), len(call.args)) in steps]
    return {step.id for step in last if isinstance(step, ast.Name)}


def mutants_of(rooms: list[str]) -> Iterator[Mutant]:
    """Every mutant of some rooms."""
    for room in rooms:
        for path in sorted((ROOT / "tenfac" / room).rglob("*.py")):
            source = path.read_text()
            finder = Finder(path.relative_to(ROOT), source)
            finder.visit(ast.parse(source))
            yield from finder.found


def changed(source: str, mutant: Mutant) -> str:
    """The file with the token replaced."""
    lines = source.splitlines(keepends=True)
    line = lines[mutant.line - 1].encode()
    lines[mutant.line - 1] = (line[: mutant.start] + mutant.new.encode() + line[mutant.stop :]).decode()
    return "".join(lines)


def tests_for(copy: Path, room: str, name: str) -> list[str]:
    """The tests a change in a room must pass, those that speak of a file first."""
    rooms = ["core", "decompose"] if room == "core" else [room]
    files = [path for room in rooms for path in sorted((copy / "tests" / room).rglob("test_*.py"))]
    files.sort(key=lambda path: (path.stem != f"test_{name}", name not in path.read_text()))
    return [
        *(str(path.relative_to(copy)) for path in files),
        f"tenfac/{room}",
        "tests/test_public.py::test_the_defaults_are_these",
        "tests/test_house.py::test_dataclasses_are_frozen_but_for_the_one_that_counts",
    ]


def first_failure(copy: Path, tests: list[str], limit: float | None = None) -> str | None:
    """The first test that fails, ``the time limit``, ``a crash``, or None."""
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    try:
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return "the time limit"
    if run.returncode < 0:
        return "a crash"  # by a signal: an index beyond an array of a compiled library
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if run.returncode and not failed:
        raise RuntimeError(f"the tests could not be run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return failed[0].split(" ", 1)[1].split(" - ")[0] if run.returncode else None


def usual_seconds(copy: Path, room: str) -> float:
    """How long the tests of a room take as they are; they must pass."""
    start = time.perf_counter()
    test = first_failure(copy, tests_for(copy, room, ""))
    if test:
        raise RuntimeError(f"{test} fails without a mutant; none can be judged before it passes")
    return time.perf_counter() - start


def caught_by(copy: Path, mutant: Mutant, limit: float) -> str | None:
    """What notices the change, as :func:`first_failure`."""
    path = copy / mutant.path
    before = path.read_text()
    path.write_text(changed(before, mutant))
    try:
        return first_failure(copy, tests_for(copy, mutant.path.parts[1], mutant.path.stem), limit)
    finally:
        path.write_text(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=["core", "decompose", "kron", "functional"])
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    chosen = random.Random(args.seed).sample(list(mutants_of(args.rooms)), args.count)
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tenfac"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "*.ipynb", "__pycache__"))
        usual = {room: usual_seconds(copy, room) for room in args.rooms}
        for number, mutant in enumerate(chosen, 1):
            test = caught_by(copy, mutant, LIMIT * usual[mutant.path.parts[1]])
            line = (copy / mutant.path).read_text().splitlines()[mutant.line - 1]
            old = line.encode()[mutant.start : mutant.stop].decode()
            text = f"{mutant.path}:{mutant.line}: {old} -> {mutant.new}    {line.strip()}"
            print(f"{number:3} {'caught  ' if test else 'SURVIVES'} {text}    [{test}]", flush=True)
            if test is None:
                survivors.append(text)
    caught = args.count - len(survivors)
    print(f"{caught} of {args.count} mutants caught ({100 * caught / args.count:.0f} %)")
    RESULTS.parent.mkdir(exist_ok=True)
    record = {
        "rooms": args.rooms,
        "count": args.count,
        "seed": args.seed,
        "caught": caught,
        "survivors": survivors,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
