"""The parts of a format: checked when it is made, described when it is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tenfac.core.arrays import namespace_of, to_numpy
from tenfac.core.errors import DataError, ShapeError
from tenfac.core.io import public_class
from tenfac.core.modes.discrete import Discrete
from tenfac.core.modes.protocol import Mode
from tenfac.core.report import Report, stored_report
from tenfac.core.tracing import is_traced


def entries(values: Any, name: str, where: str) -> tuple[Any, ...]:
    """Read a sequence with one entry per mode.

    Raises
    ------
    TypeError
        If it is no sequence.

    Examples
    --------
    >>> entries([1, 2], "factors", "CP")
    (1, 2)
    """
    if not isinstance(values, Iterable):
        raise TypeError(
            f"{where}: {name} must be a sequence, one entry per mode; got {type(values).__name__}. Write "
            f"{name}=[x] for a single one."
        )
    return tuple(values)


def finite(arrays: Mapping[str, Any], where: str) -> None:
    """Refuse arrays with NaN or infinite numbers, naming the first, unless the values are traced.

    Raises
    ------
    DataError
        If there is one.

    Examples
    --------
    >>> import numpy as np
    >>> finite({"core": np.ones(3)}, "round")
    """
    for name, array in arrays.items():
        if is_traced(array):
            continue
        xp = namespace_of(array)
        bad = ~xp.isfinite(array)
        count = int(xp.count_nonzero(bad))
        if count:
            first = tuple(int(index[0]) for index in xp.nonzero(bad))
            raise DataError(
                f"{where}: every number must be finite; {name} has {count} of {math.prod(array.shape)} that "
                f"are not, the first at {first}. Replace them, or compute the tensor again from finite data."
            )


def validated(
    where: str, arrays: Sequence[Any], modes: Sequence[Mode] | None, factors: Sequence[Any]
) -> tuple[Mode, ...]:
    """Check that factors are matrices of one library that fit the modes; make discrete modes if not given.

    Raises
    ------
    ShapeError
        If they do not.

    Examples
    --------
    >>> import numpy as np
    >>> validated("Tucker", [np.ones((3, 2))], None, [np.ones((3, 2))])
    (Discrete(size=3),)
    """
    if not factors:
        raise ShapeError(f"{where}: needs at least one factor; got none.")
    namespace_of(*arrays)
    for n, factor in enumerate(factors):
        if factor.ndim < 2:
            raise ShapeError(
                f"{where}: factors[{n}] must be a matrix of shape (I_{n}, R_{n}); got shape "
                f"{tuple(factor.shape)}."
            )
    batches = [tuple(factor.shape[:-2]) for factor in factors]
    if len(set(batches)) > 1:
        raise ShapeError(
            f"{where}: all factors must have the same batch axes before the last two; got {batches}."
        )
    if modes is None:
        return tuple(Discrete(factor.shape[-2]) for factor in factors)
    modes = entries(modes, "modes", where)
    sizes, rows = [getattr(mode, "size", None) for mode in modes], [factor.shape[-2] for factor in factors]
    if sizes != rows:
        raise ShapeError(
            f"{where}: `modes` must hold one mode per factor, of sizes {rows} (the rows of the factors); got "
            f"sizes {sizes}."
        )
    return modes


def factor_state(obj: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe a format for ``save``: modes and report in a dict, arrays by name.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import CP
    >>> sorted(factor_state(CP(None, [np.ones((2, 1))]))[1])
    ['factors.0', 'weights']
    """
    arrays, modes = dict(obj._arrays()), []
    for n, mode in enumerate(obj.modes):
        spec, mode_arrays = mode.spec()
        modes.append({**spec, "arrays": sorted(mode_arrays)})
        arrays.update({f"modes.{n}.{name}": array for name, array in mode_arrays.items()})
    info = None if obj.info is None else asdict(obj.info)
    if info is not None and hasattr(info["rel_error"], "shape"):
        info["rel_error"] = to_numpy(info["rel_error"]).tolist()
    return {"modes": modes, "info": info}, arrays


def restored(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[tuple[Mode, ...], Report | None]:
    """Rebuild the modes and the report that ``factor_state`` described.

    Examples
    --------
    >>> restored({"modes": [{"type": "Discrete", "size": 3, "arrays": []}], "info": None}, {})
    ((Discrete(size=3),), None)
    """
    modes = []
    for n, spec in enumerate(header["modes"]):
        mode_arrays = {name: arrays[f"modes.{n}.{name}"] for name in spec["arrays"]}
        modes.append(public_class(spec["type"]).from_spec(spec, mode_arrays))
    info = header["info"]
    if info is not None:
        if isinstance(info["rel_error"], list):
            info = {**info, "rel_error": np.asarray(info["rel_error"])}
        info = stored_report(info)
    return tuple(modes), info
