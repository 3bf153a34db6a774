"""Reads source code without running it: checks that cannot fail, and the size and habits of a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

SILENT = {"allclose", "array_equal", "array_equiv", "isclose"}  # return a verdict, raise nothing
RAISING = {"raises", "warns", "deprecated_call", "fail"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """Every node of a file: several rules read the same files."""
    return tuple(ast.walk(ast.parse(source)))


def idle_checks(source: str) -> list[str]:
    """List the checks of a test file that cannot fail, each as ``line N: what is wrong``."""
    found = [(node.lineno, message) for node in nodes_of(source) for message in _idle(node)]
    for function in _functions(source):
        found += _verdicts_dropped(function)
        if function.name.startswith(("test", "assert_", "check_")) and not _has_check(function):
            found.append((function.lineno, f"`{function.name}` has no check"))
    return [f"line {line}: {message}" for line, message in sorted(set(found))]


def _idle(node: ast.AST) -> Iterator[str]:
    """What is wrong with one node, seen alone."""
    if isinstance(node, ast.Expr):
        name = _called(node.value)
        if name in SILENT or name == "approx":
            yield f"the result of `{name}` is dropped"
        if name in RAISING - {"fail"} and len(node.value.args) < 2:
            yield f"`{name}` without `with` checks nothing"
        if isinstance(node.value, ast.Compare):
            yield "a comparison is dropped"
    if isinstance(node, ast.Assert) and _always_true(node.test):
        yield "this assert is always true"
    if _called(node) == "approx" and len(node.args) > 1:
        yield "the second argument of `approx` is a relative tolerance; name it `rel=` or `abs=`"


def _always_true(test: ast.expr) -> bool:
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.Tuple):
        return bool(test.elts)
    if any(isinstance(inner, ast.Call) for inner in ast.walk(test)):
        return False  # two calls may differ: that is how repeatability is tested
    return isinstance(test, ast.Compare) and all(
        isinstance(op, (ast.Eq, ast.Is)) and ast.dump(test.left) == ast.dump(other)
        for op, other in zip(test.ops, test.comparators, strict=True)
    )


def _verdicts_dropped(function: ast.FunctionDef) -> list[tuple[int, str]]:
    """Find names that hold a verdict and reach no assert, return, check, or branch that raises."""
    verdicts = [
        (node.lineno, name)
        for node in ast.walk(function)
        if (targets := _targets(node)) and any(_called(inner) in SILENT for inner in ast.walk(node.value))
        for name in targets
    ]
    stated = _names_stated(function) if verdicts else set()
    return [
        (line, f"the verdict `{name}` is never asserted") for line, name in verdicts if name not in stated
    ]


def _names_stated(function: ast.FunctionDef) -> set[str]:
    """Names whose value can make the function fail, or leave it."""
    stated: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, (ast.Assert, ast.Return, ast.Yield)) or _is_check(node):
            stated |= _names(node)
        elif isinstance(node, (ast.If, ast.While)) and any(
            isinstance(inner, ast.Raise) or _called(inner) == "fail" for inner in ast.walk(node)
        ):
            stated |= _names(node.test)
    while True:  # what flows into a stated name is stated
        flows = [_names(node.value) for node in ast.walk(function) if set(_targets(node)) & stated]
        flows += [
            _names(node)
            for node in ast.walk(function)
            if _called(node) in {"append", "add", "extend"} and _names(node.func) & stated
        ]
        more = set().union(*flows) - stated
        if not more:
            return stated
        stated |= more


def _targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [
            inner.id for target in node.targets for inner in ast.walk(target) if isinstance(inner, ast.Name)
        ]
    if isinstance(node, (ast.AugAssign, ast.NamedExpr, ast.AnnAssign)) and node.value is not None:
        return [inner.id for inner in ast.walk(node.target) if isinstance(inner, ast.Name)]
    return []


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _called(node: ast.AST) -> str:
    """Last part of the name that a call calls, else the empty string."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _is_check(node: ast.AST) -> bool:
    name = _called(node)
    return name in RAISING or name.lstrip("_").startswith(("assert_", "check_"))


def _has_check(function: ast.FunctionDef) -> bool:
    return any(
        (isinstance(node, ast.Assert) and not _always_true(node.test))
        or _is_check(node)
        or (isinstance(node, ast.Raise) and not function.name.startswith("test"))
        for node in ast.walk(function)
    )


def _functions(source: str) -> Iterator[ast.FunctionDef]:
    return (node for node in nodes_of(source) if isinstance(node, FUNCTIONS))


def long_functions(source: str, limit: int) -> list[str]:
    """List the functions with more than ``limit`` lines, their docstrings not counted."""
    found = []
    for function in _functions(source):
        lines = function.end_lineno - function.lineno + 1
        if ast.get_docstring(function) is not None:
            lines -= function.body[0].end_lineno - function.body[0].lineno + 1
        if lines > limit:
            found.append(f"line {function.lineno}: `{function.name}` has {lines} lines of {limit}")
    return found


def bad_habits(source: str, *, may_print: bool = False) -> list[str]:
    """List ``global``, pickle, bare ``except``, ``print`` and ``plt.show`` in library code."""
    found = []
    for node in nodes_of(source):
        if isinstance(node, ast.Global):
            found.append((node.lineno, "`global`"))
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((node.lineno, "bare `except`"))
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if {module.partition(".")[0] for module in modules} & {"pickle", "cPickle", "dill", "joblib"}:
                found.append((node.lineno, "pickle"))
        if any(k.arg == "allow_pickle" and not _is_false(k.value) for k in getattr(node, "keywords", [])):
            found.append((node.lineno, "`allow_pickle`"))
        called = _called(node)
        if called in {"load", "save"} and ast.unparse(node.func) in {"torch.load", "torch.save"}:
            found.append((node.lineno, "torch's pickle files"))
        if called == "print" and not may_print:
            found.append((node.lineno, "`print`"))
        if called == "show" and ast.unparse(node.func) in {"plt.show", "pyplot.show"}:
            found.append((node.lineno, "`plt.show`"))
    return [f"line {line}: {what}" for line, what in sorted(found)]


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
