"""``tenfac predict``, and the table of predictions that ``tenfac fit --predict`` writes too."""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfac.cli.files import check_writable, writing
from tenfac.cli.observations import Observations, count_rows, read_indices
from tenfac.cli.tables import read_blocks
from tenfac.core.errors import DataError

_COLUMNS = ("mean", "std", "observation_std", "lower_95", "upper_95")
Block = tuple[dict[str, np.ndarray], dict[str, Sequence[Any]]]


@dataclass(frozen=True, eq=False)
class Modes:
    """What new rows are read by: per mode its name, its kind, and the indices or labels known."""

    names: list[str]
    kinds: list[str]
    known: list[np.ndarray]

    @classmethod
    def of_model(cls, model: Any) -> "Modes":
        """Those of a fitted model."""
        return cls([str(name) for name in model.mode_names_], list(model.kinds_), list(model.indices_))

    @classmethod
    def of_observations(cls, obs: Observations) -> "Modes":
        """Those of a model that will be fitted to these observations."""
        names = [mode.name for mode in obs.modes]
        return cls(names, [mode.kind for mode in obs.modes], [np.unique(obs.X[name]) for name in names])

    def read(self, source: str) -> Iterator[Block]:
        """Index values, and the cells as they stand in the table, some rows at a time."""
        formats: dict[str, str] = {}
        for table in read_blocks(source):
            yield read_indices(table, self.names, self.kinds, self.known, formats)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    check_writable("--out", args.out, args.model, args.table)
    model = load_model(args.model)
    modes = Modes.of_model(model)
    rows = check_new(args.table, modes)
    with writing(args.out, f"{rows:,} predictions"):
        write_predictions(args.out, model, args.table, modes)


def load_model(path: str) -> Any:
    """Load what `tenfac fit --save` wrote, refusing what predicts nothing."""
    import tenfac

    try:
        model = tenfac.load(path)
    except OSError as error:
        raise DataError(f"cannot read the model {path}: {error.strerror or error}.") from error
    if not hasattr(model, "mode_posterior"):
        raise DataError(
            f"{path} holds a {type(model).__name__}, which predicts nothing. Give a file of fit --save."
        )
    return model


def check_new(source: str, modes: Modes) -> int:
    """Read all rows of a table to predict, keeping none, and count them; a bad one is refused here."""
    return sum(_size(X) for X, _ in modes.read(source))


def write_predictions(path: str, model: Any, source: str, modes: Modes) -> None:
    """Write the indices as given, and what the model says there, some rows at a time."""
    from tenfac.bayes.predictive import predictive

    known = dict(zip(modes.names, model.indices_, strict=True))
    outside = {name: 0 for name, kind in zip(modes.names, modes.kinds, strict=True) if kind != "discrete"}
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, (X, cells) in enumerate(modes.read(source)):
            if number == 0:
                writer.writerow([*cells, *_COLUMNS])
            found = predictive(model, X)
            columns = (found.mean, found.std, found.observation_std, found.low, found.high)
            texts = ([f"{value:.8g}" for value in column.tolist()] for column in columns)
            writer.writerows(zip(*cells.values(), *texts, strict=True))
            for name in outside:
                low, high = np.min(known[name]), np.max(known[name])
                outside[name] += int(np.sum((X[name] < low) | (X[name] > high)))
    for name, count in outside.items():
        if count:
            sys.stderr.write(f"note: {count_rows(count)} outside the range of {name!r} that was fitted\n")


def _size(X: dict[str, np.ndarray]) -> int:
    return len(next(iter(X.values())))
