"""``tenfac fit``: read, hold out, fit, compare, print; then save, draw and predict if asked to."""

import argparse
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from tenfac.cli import report
from tenfac.cli.baseline import Neighbours, nearest_neighbours
from tenfac.cli.files import check_writable, writing
from tenfac.cli.observations import Observations, observe, read_indices, split
from tenfac.cli.predict import note_extrapolation, write_predictions
from tenfac.cli.tables import read_table
from tenfac.core.errors import ConvergenceWarning, DataError, RankError


class Test(NamedTuple):
    """Held-out rows, and what the model and the baseline predict there, noise included."""

    rows: Observations
    mean: np.ndarray
    std: np.ndarray
    baseline: Neighbours


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if (args.predict is None) != (args.out is None):
        raise DataError("--predict NEW_TABLE and --out PREDICTIONS.csv go together: give both or neither.")
    check_writable("--save", args.save)
    check_writable("--plot", args.plot)
    check_writable("--out", args.out)
    if args.plot:
        from tenfac.plot.style import require_matplotlib

        require_matplotlib("tenfac fit --plot")
    table = read_table(args.table)
    obs = observe(
        table,
        args.value,
        modes=args.modes,
        discrete=args.discrete,
        log=args.log,
        duplicates=args.duplicates,
    )
    _check_rank(args.rank, obs)
    new = _read_new(args.predict, obs) if args.predict else None
    for note in obs.notes:
        sys.stderr.write(f"note: {note}\n")
    train, held = split(obs, args.holdout, args.seed)
    model = fit_model(
        train,
        rank=args.rank,
        response=args.response,
        label_rank=args.label_rank,
        verbose=0 if args.quiet else 1,
    )
    test = examine(model, train, held, args.seed) if held.size else None
    sys.stdout.write("\n".join(lines_of(table.source, model, obs, train, test)) + "\n")
    sys.stdout.flush()
    if args.save:
        import tenfac

        with writing(args.save, "the model"):
            tenfac.save(model, args.save)
    if args.plot:
        from tenfac.cli.figure import draw

        with writing(args.plot, "the figure"):
            draw(args.plot, model, obs, test, table.source)
    if new is not None:
        X, cells = new
        note_extrapolation(model, X)
        with writing(args.out, f"{len(next(iter(X.values()))):,} predictions"):
            write_predictions(args.out, model, X, cells)


def fit_model(train: Observations, **settings: Any) -> Any:
    """Fit the model; what it warns of becomes a note."""
    from tenfac.bayes.functional_tucker import FunctionalTucker

    model = FunctionalTucker(discrete=train.discrete or None, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.X, train.y)
    for warning in caught:
        sys.stderr.write(f"note: {' '.join(str(warning.message).split())}\n")
    return model


def examine(model: Any, train: Observations, held: Observations, seed: int) -> Test:
    """Predict the held-out rows."""
    mean, noisy = model.predict(held.X, return_std=True, include_noise=True)
    return Test(held, mean, noisy, nearest_neighbours(train, held, seed))


def lines_of(source: str, model: Any, obs: Observations, train: Observations, test: Test | None) -> list[str]:
    """Everything that is printed."""
    parts = f"{train.size:,} fitted" + (f", {test.rows.size:,} held out" if test else "")
    lines = [f"{source}: {obs.size:,} values of {obs.value} ({parts})", ""]
    lines += report.describe(model, obs)
    if test:
        from tenfac.bayes.metrics import gaussian_metrics

        ours = gaussian_metrics(test.rows.y, test.mean, test.std)
        spread = np.full(test.rows.size, max(test.baseline.std, np.finfo(float).tiny))
        theirs = gaussian_metrics(test.rows.y, test.baseline.mean, spread)
        lines += ["", *report.compare(ours, theirs, test.baseline.k, test.rows.size)]
    return [*lines, "", *report.outcome(model, obs.unit)]


def _check_rank(rank: str | int | tuple[int, ...], obs: Observations) -> None:
    """Refuse a rank of wrong length, or above the number of indices (one number: of the longest mode)."""
    if isinstance(rank, str):
        return
    sizes = {mode.column: len(np.unique(obs.X[mode.name])) for mode in obs.modes}
    if isinstance(rank, int):
        longest = max(sizes, key=sizes.__getitem__)
        sizes, rank = {longest: sizes[longest]}, (rank,)
    given = ",".join(map(str, rank))
    if len(rank) != len(sizes):
        raise RankError(
            f"--rank must be one number or one per mode, {len(sizes)} here ({', '.join(sizes)}); got {given}."
        )
    for (name, size), wanted in zip(sizes.items(), rank, strict=True):
        if wanted > size:
            raise RankError(
                f"--rank {given}: mode {name!r} has {size} indices, too few for rank {wanted}. Give at most "
                f"{size}."
            )


def _read_new(source: str, obs: Observations) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    names = [mode.name for mode in obs.modes]
    kinds = [mode.kind for mode in obs.modes]
    return read_indices(read_table(source), names, kinds, [np.unique(obs.X[name]) for name in names])
