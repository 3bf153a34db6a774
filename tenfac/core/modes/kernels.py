"""Kernels by name: from what a user gives to a process, and from a process to plain JSON and back."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tenfac.core.arrays import is_array, to_number
from tenfac.core.errors import DataError
from tenfac.core.modes.oscillator import Oscillator
from tenfac.core.modes.process import Process, Product, Scaled, Sum
from tenfac.core.modes.state_space import StateSpace, check_kernel
from tenfac.core.modes.still import Constant, Linear, Periodic

__all__ = ["Constant", "Linear", "Oscillator", "Periodic", "Product", "Scaled", "StateSpace", "Sum"]
_TYPES = {
    kind.__name__: kind for kind in (StateSpace, Oscillator, Scaled, Sum, Product, Constant, Linear, Periodic)
}


def process_of(kernel: Any, lengthscale: Any, where: str) -> Process:
    """Make a process of plain numbers from the name of a kernel and its lengthscale, or from a process.

    Parameters
    ----------
    kernel : {"matern12", "matern32", "matern52"} or Process
    lengthscale : float or None
        Of a named kernel; None for a process, which has its own.
    where : str
        Name of the caller, for messages.

    Raises
    ------
    DataError
        If the kernel is not one of these, or a hyperparameter cannot be used.

    Examples
    --------
    >>> process_of("matern32", 2.0, "GP")
    StateSpace(kernel='matern32', lengthscale=2.0)
    """
    if isinstance(kernel, Process):
        if lengthscale is not None:
            raise DataError(
                f"{where}: `lengthscale` belongs to a kernel given by its name; got {lengthscale!r} beside "
                f"{kernel!r}. Leave it out."
            )
        kernel.check(where)
        return described(describe(kernel))
    check_kernel(kernel, where)
    if lengthscale is None:
        raise DataError(f"{where}: `lengthscale` must be given with a kernel by name; got {kernel!r} alone.")
    process = StateSpace(kernel, lengthscale)
    process.check(where)
    return described(describe(process))


def describe(process: Process) -> dict[str, Any]:
    """Describe a process by a JSON-able dict, parts nested in it; hyperparameters as plain numbers.

    Raises
    ------
    DataError
        If it is of a kind that has no name here.

    Examples
    --------
    >>> describe(2.0 * StateSpace("matern12", 1.0))["process"]
    {'type': 'StateSpace', 'kernel': 'matern12', 'lengthscale': 1.0}
    """
    kind = type(process).__name__
    if _TYPES.get(kind) is not type(process):
        raise DataError(f"GP: the kernel must be made of {', '.join(_TYPES)}; got {kind}.")
    found: dict[str, Any] = {"type": kind}
    for field in fields(process):
        found[field.name] = _plain(getattr(process, field.name))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Process):
        return describe(value)
    if isinstance(value, tuple):
        return [describe(part) for part in value]
    return value if value is None or isinstance(value, (str, int)) else _number(value)


def _number(value: Any) -> float:
    return to_number(value) if is_array(value) else float(value)


def described(spec: dict[str, Any]) -> Process:
    """Build the process that ``describe`` described.

    Raises
    ------
    DataError
        If its kind is not known here.

    Examples
    --------
    >>> described({"type": "Constant", "variance": 2.0})
    Constant(variance=2.0)
    """
    if spec["type"] not in _TYPES:
        raise DataError(
            f"load: the file holds a kernel {spec['type']!r}, which this tenfac does not know. Update it: "
            "pip install -U tenfac."
        )
    values: dict[str, Any] = {}
    for name, value in spec.items():
        if isinstance(value, dict):
            values[name] = described(value)
        elif isinstance(value, list):
            values[name] = tuple(described(part) for part in value)
        elif name != "type":
            values[name] = value
    make: Any = _TYPES[spec["type"]]
    return make(**values)
