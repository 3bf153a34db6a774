"""``tenfac predict``, and the table of predictions that ``tenfac fit --predict`` writes too."""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tenfac.cli.files import check_writable, writing
from tenfac.cli.observations import count_rows, read_indices
from tenfac.cli.tables import read_table
from tenfac.core.errors import DataError


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    import tenfac

    check_writable("--out", args.out)
    try:
        model = tenfac.load(args.model)
    except OSError as error:
        raise DataError(f"cannot read the model {args.model}: {error.strerror or error}.") from error
    if not hasattr(model, "mode_posterior"):
        raise DataError(
            f"{args.model} holds a {type(model).__name__}, which predicts nothing. Give a file of fit --save."
        )
    names = [str(name) for name in model.mode_names_]
    X, cells = read_indices(read_table(args.table), names, model.kinds_, model.indices_)
    note_extrapolation(model, X)
    with writing(args.out, f"{len(next(iter(X.values()))):,} predictions"):
        write_predictions(args.out, model, X, cells)


def note_extrapolation(model: Any, X: Mapping[str, np.ndarray]) -> None:
    """Say where indices lie outside the range fitted."""
    for name, kind, known in zip(model.mode_names_, model.kinds_, model.indices_, strict=True):
        if kind != "discrete":
            values = X[str(name)]
            outside = int(np.sum((values < np.min(known)) | (values > np.max(known))))
            if outside:
                sys.stderr.write(
                    f"note: {count_rows(outside)} outside the range of {name!r} that was fitted\n"
                )


def write_predictions(
    path: str, model: Any, X: Mapping[str, np.ndarray], cells: Mapping[str, Sequence[Any]]
) -> None:
    """Write the indices as given, the mean, its standard deviation, and that of a new observation."""
    mean, std = model.predict(X, return_std=True)
    _, noisy = model.predict(X, return_std=True, include_noise=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*cells, "mean", "std", "observation_std"])
        numbers = zip(mean.tolist(), std.tolist(), noisy.tolist(), strict=True)
        for index, row in zip(zip(*cells.values(), strict=True), numbers, strict=True):
            writer.writerow([*index, *(f"{number:.8g}" for number in row)])
