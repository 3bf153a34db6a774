"""What every public function and class tells of a call that it cannot take: one wrapper, one wording."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from tenfac.core.errors import nearest_name

T = TypeVar("T")
_ANYONE = "arrays: "  # how a helper that does not know its caller begins
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def door(public: T) -> T:
    """Mark a public function or class: a misspelled argument is told the nearest, an error names the caller.

    A class has its constructor and its public methods marked, those that it inherits from this
    package under its own name. Signatures stay as they are.

    Parameters
    ----------
    public : function or class

    Returns
    -------
    function or class

    Notes
    -----
    Costs some 100 ns a call.

    Examples
    --------
    >>> @door
    ... def fit(X, *, max_iter=10):
    ...     return X
    >>> fit(1, maxiter=3)
    Traceback (most recent call last):
    TypeError: fit: unknown argument `maxiter`. Did you mean 'max_iter'?
    """
    if not isinstance(public, type):
        function: Any = public
        return _told(function, function.__qualname__)
    for name in dir(public):
        member = inspect.getattr_static(public, name)
        own = inspect.isfunction(member) and member.__module__.partition(".")[0] == __name__.partition(".")[0]
        if own and (name == "__init__" or not name.startswith("_")):
            where = public.__name__ if name == "__init__" else f"{public.__name__}.{name}"
            told = _told(member, where)
            told.__qualname__, told.__module__ = f"{public.__qualname__}.{name}", public.__module__
            setattr(public, name, told)
    return public


def _told(function: Callable[..., Any], where: str) -> Any:
    function = inspect.unwrap(function, stop=lambda inner: not hasattr(inner, "_is_door"))

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            wrong = _wrong_arguments(function, where, args, kwargs) if type(error) is TypeError else ""
            if wrong:
                raise TypeError(wrong) from None
            text = error.args[0] if error.args else ""
            if isinstance(text, str) and text.startswith(_ANYONE):
                error.args = (f"{where}: {text.removeprefix(_ANYONE)}", *error.args[1:])
            raise

    told: Any = call
    told._is_door = True
    return told


def _wrong_arguments(
    function: Callable[..., Any], where: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """What is wrong with the names or the number of arguments; empty if nothing is."""
    known = dict(inspect.signature(function).parameters)
    if next(iter(known), "") == "self":
        del known["self"]
        args = args[1:]
    kinds = [parameter.kind for parameter in known.values()]
    names = [name for name, p in known.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for name in kwargs if inspect.Parameter.VAR_KEYWORD not in kinds else ():
        if name not in names:
            known_ones = f"Its arguments are {', '.join(names)}." if names else "It takes none by name."
            return f"{where}: unknown argument `{name}`.{nearest_name(name, names) or ' ' + known_ones}"
    placed = [name for name, parameter in known.items() if parameter.kind in _BY_POSITION]
    for name in placed[: len(args)]:
        if name in kwargs:
            return f"{where}: `{name}` was given twice, by position and by name. Leave one of them out."
    needed = [name for name in names if known[name].default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in placed[: len(args)] and name not in kwargs]
    if missing:
        wanted = ", ".join(f"`{name}`" for name in missing)
        return f"{where}: needs {wanted}. Its arguments are {', '.join(names)}."
    if inspect.Parameter.VAR_POSITIONAL in kinds or len(args) <= len(placed):
        return ""
    named = [f"{name}=" for name in names if name not in placed and name not in kwargs]
    remedy = f" Give the others by name: {', '.join(named)}." if named else ""
    given = f"{len(placed)} by position ({', '.join(placed)})" if placed else "none by position"
    return f"{where}: takes {given}; got {len(args)}.{remedy}"
