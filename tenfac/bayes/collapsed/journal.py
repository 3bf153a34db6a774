"""A journal of objective evaluations: a fit that was killed goes on where it was.

Everything in a fit but the evaluations of the evidence is cheap and repeatable. So only they are written
down: an optimizer that is told the same values and gradients takes the same steps, bit by bit, through
every stage of the fit.

The file is text, one JSON object a line: a header that says which data and settings it belongs to, then one
line per evaluation, with the problem it is of, where it is, and its result. Python writes a float in as many
digits as bring it back exactly. A last line without an end was cut by a kill and is dropped.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b
from numbers import Integral, Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfac.bayes.settings import plain
from tenfac.core.errors import DataError

Array = NDArray[Any]
Evaluation = tuple[float, Array]
_FORMAT = "tenfac journal"
_VERSION = 1
_FREE = ("max_iter", "tol", "verbose")  # a fit that goes further, or less far, shares its evaluations
_AGAIN = "Give another path, or delete the file to begin again."


@dataclass(frozen=True, eq=False)
class Journal:
    """Evaluations known from a file, and the place to add new ones.

    Parameters
    ----------
    path : str
    known : dict
        Value and gradient by problem and place.
    """

    path: str
    known: dict[tuple[str, bytes], Evaluation]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        data: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
    ) -> Journal:
        """Begin a file, or read one of the same data and settings.

        Parameters
        ----------
        path : str or path-like
        data : dict of arrays
            By the name that an error message calls them.
        settings : dict
            Of the estimator; those that do not change what is evaluated may differ from the file's.

        Raises
        ------
        DataError
            If the file belongs to other data or settings, is no journal or is damaged, its folder is
            missing, or ``random_state`` cannot be repeated.
        """
        seed = settings["random_state"]
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise DataError(
                "FunctionalTucker.fit: `checkpoint` needs a random_state that can be repeated, an integer; "
                f"got {'None' if seed is None else type(seed).__name__}. Write random_state=0."
            )
        header = _header(data, settings)
        path = os.path.realpath(path)
        if not os.path.isdir(os.path.dirname(path)) or os.path.isdir(path):
            raise DataError(
                f"FunctionalTucker.fit: `checkpoint` must name a file in an existing folder; got {path!r}. "
                "Create the folder, or give another path."
            )
        if not os.path.exists(path) or os.path.getsize(path) == 0:
            _begin(path, header)
            return cls(path, {})
        return cls(path, _read(path, header))

    def watch(self, problem: Any) -> Callable[[Any], Evaluation]:
        """``problem.value_and_gradient``, looked up in the journal first and written to it if new."""
        of = fingerprint(problem)

        def evaluate(hyper: Any) -> Evaluation:
            theta = hyper.pack()
            key = of, theta.tobytes()
            if key not in self.known:
                value, gradient = problem.value_and_gradient(hyper)
                self._append(of, theta, float(value), gradient)
                self.known[key] = float(value), gradient
            value, gradient = self.known[key]
            return value, gradient.copy()

        return evaluate

    def _append(self, of: str, theta: Array, value: float, gradient: Array) -> None:
        entry = {"of": of, "at": theta.tolist(), "value": value, "gradient": gradient.tolist()}
        with open(self.path, "ab") as file:  # closed at once: what was written survives a kill
            file.write(_line(entry))


def fingerprint(*parts: Any) -> str:
    """A name for dataclasses, sequences, arrays, numbers and text: equal bits, equal name."""
    state = blake2b(digest_size=16)
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def _feed(state: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        state.update(f"array {part.dtype.str} {part.shape} ".encode())
        state.update(part.tobytes())
    elif is_dataclass(part):
        state.update(f"{type(part).__name__} ".encode())
        for field in fields(part):
            _feed(state, getattr(part, field.name))
    elif isinstance(part, tuple | list):
        state.update(f"{len(part)} parts ".encode())
        for inner in part:
            _feed(state, inner)
    elif part is None or isinstance(part, Number | str):
        state.update(f"{type(part).__name__} {part!r} ".encode())
    else:
        raise TypeError(f"fingerprint: no rule for {type(part).__name__}.")


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _header(data: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    import tenfac

    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "tenfac_version": tenfac.__version__,
        "settings": {name: plain(value) for name, value in settings.items() if name not in _FREE},
        "data": {name: fingerprint(array) for name, array in data.items()},
    }
    return json.loads(json.dumps(header))


def _begin(path: str, header: Mapping[str, Any]) -> None:
    """Write the header beside the file, then put it in place: a file never has half a header."""
    temporary = f"{path}.{secrets.token_hex(6)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(_line(header))
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _read(path: str, header: Mapping[str, Any]) -> dict[tuple[str, bytes], Evaluation]:
    """Evaluations in a file, whose unfinished last line is cut off."""
    with open(path, "rb") as file:
        content = file.read()
    *lines, rest = content.split(b"\n")
    _compare(path, _entry(lines[0]) if lines else None, header)
    known = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _entry(line)
        if entry is None or not {"of", "at", "value", "gradient"} <= entry.keys():
            raise DataError(
                f"FunctionalTucker.fit: every line of the checkpoint {path!r} must be an evaluation; line "
                f"{number} is damaged. {_AGAIN}"
            )
        theta = np.array(entry["at"], dtype=float)
        known[entry["of"], theta.tobytes()] = entry["value"], np.array(entry["gradient"], dtype=float)
    if rest:
        os.truncate(path, len(content) - len(rest))
    return known


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's JSON object, if it is one."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _compare(path: str, found: dict[str, Any] | None, header: Mapping[str, Any]) -> None:
    """Raise DataError unless a file's header is the wanted one."""
    if found is None or found.get("format") != _FORMAT:
        raise DataError(
            f"FunctionalTucker.fit: `checkpoint` must be a new file or one that a fit has written; {path!r} "
            "is something else and was left as it is. Give another path."
        )
    differences = [
        f"{name} was {found.get(name)} and is {header[name]}"
        for name in ("version", "tenfac_version")
        if found.get(name) != header[name]
    ]
    differences += [f"setting `{name}` {told}" for name, told in _differing(found, header, "settings")]
    data = [name for name, _ in _differing(found, header, "data")]
    if data:
        differences.append(f"other data in {', '.join(data)}")
    if differences:
        raise DataError(
            f"FunctionalTucker.fit: the checkpoint {path!r} must come from a fit of the same data with the "
            f"same settings; what differs: {'; '.join(differences)}. {_AGAIN}"
        )


def _differing(found: Mapping[str, Any], header: Mapping[str, Any], part: str) -> list[tuple[str, str]]:
    old, new = found.get(part, {}), header[part]
    names = [*new, *[name for name in old if name not in new]]
    return [
        (name, f"was {old.get(name)!r} and is {new.get(name)!r}")
        for name in names
        if old.get(name) != new.get(name)
    ]
