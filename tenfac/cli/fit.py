"""``tenfac fit``: read, hold out, fit, compare, print; then save, draw, report and predict if asked to."""

import argparse
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from tenfac.cli import report
from tenfac.cli.baseline import Neighbours, nearest_neighbours, slice_mean
from tenfac.cli.files import check_writable, writing
from tenfac.cli.observations import Observations, observe, split
from tenfac.cli.predict import Modes, check_new, write_predictions
from tenfac.cli.tables import read_table
from tenfac.core.errors import ConvergenceWarning, DataError, RankError

_PASSED_ON = ("inference", "likelihood", "noise")
_TWO_SIDED_95 = 1.959963984540054  # 95 % of a standard normal lie nearer to zero


class Test(NamedTuple):
    """Held-out rows, and what the model and the baseline predict there, noise included.

    ``z`` are the standard normal quantiles of the values in what the model predicts.
    """

    rows: Observations
    mean: np.ndarray
    std: np.ndarray
    z: np.ndarray
    baseline: Neighbours


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    _check_outputs(args)
    table = read_table(args.table)
    obs = observe(
        table,
        args.value,
        modes=args.modes,
        discrete=args.discrete,
        log=args.log,
        duplicates=args.duplicates,
        weights=args.weights,
    )
    _check_rank(args.rank, obs)
    if args.likelihood == "binomial":
        _check_trials(obs)
    wanted = Modes.of_observations(obs)
    new_rows = check_new(args.predict, wanted) if args.predict else 0
    for note in obs.notes:
        sys.stderr.write(f"note: {note}\n")
    train, held = split(obs, args.holdout, args.random_state)
    if args.report and not held.size:
        if args.weights:
            raise DataError("--report with --weights needs rows held out: give a --holdout above 0.")
        from tenfac.plot.check import rows_to_leave_out

        rows_to_leave_out(
            train.X, train.discrete, train.size, args.random_state
        )  # refuses what cannot be judged
    model = fit_model(
        train,
        rank=args.rank,
        response=args.response,
        label_rank=args.label_rank,
        verbose=0 if args.quiet else 1,
        **{name: getattr(args, name) for name in _PASSED_ON if getattr(args, name) is not None},
    )
    test = examine(model, train, held, args.random_state) if held.size else None
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
    if args.report:
        text = page_of(table.source, model, train, test, args.random_state)
        with writing(args.report, "the report"), open(args.report, "w", encoding="utf-8") as file:
            file.write(text)
    if args.predict:
        with writing(args.out, f"{new_rows:,} predictions"):
            write_predictions(args.out, model, args.predict, wanted)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse what cannot be written, before anything is read."""
    if (args.predict is None) != (args.out is None):
        raise DataError("--predict NEW_TABLE and --out PREDICTIONS.csv go together: give both or neither.")
    if args.save and args.inference in ("svi", "nuts"):
        raise DataError(
            f"--save with --inference {args.inference}: its draws of a Pyro program have no file. Leave "
            "--save out, or keep a fit by --inference collapsed or cep."
        )
    for option in ("save", "plot", "report", "out"):
        check_writable(f"--{option}", getattr(args, option), args.table, args.predict)
    if args.plot or args.report:
        from tenfac.plot.style import require_matplotlib

        require_matplotlib("tenfac fit --plot" if args.plot else "tenfac fit --report")
    if args.plot:
        from tenfac.cli.figure import check_format

        check_format(args.plot)


def fit_model(train: Observations, **settings: Any) -> Any:
    """Fit the model; what it warns of becomes a note."""
    from tenfac.bayes.functional_tucker import FunctionalTucker

    known = FunctionalTucker().get_params()
    for name in settings:
        if name not in known:
            raise DataError(f"--{name}: this version of FunctionalTucker has no such setting. Leave it out.")
    model = FunctionalTucker(discrete=train.discrete or None, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.X, train.y, sample_weight=train.weights)
    said = [str(warning.message) for warning in caught]
    for text in [*said, *(note for note in model.info_.warnings if not any(note in one for one in said))]:
        sys.stderr.write(f"note: {' '.join(text.split())}\n")
    return model


def page_of(source: str, model: Any, train: Observations, test: Test | None, seed: int) -> str:
    """The report as HTML, judged on the held-out rows, or on rows left out of a second posterior."""
    from tenfac.plot.check import Check, left_out
    from tenfac.plot.page import build

    if test is None:
        check = left_out(model, train.X, train.y, seed)
    else:
        rows, near, plain = test.rows, test.baseline, slice_mean(train, test.rows)
        check = Check(
            rows.X,
            rows.y,
            test.mean,
            test.std,
            test.z,
            {
                f"mean of the same {train.modes[plain.mode].column}": (plain.mean, spread(rows, plain.std)),
                near.name: (near.mean, spread(rows, near.std)),
            },
            f"{rows.size:,} rows that were held out (seed {seed}): the model was not fitted to them.",
        )
    units = {mode.name: mode.unit for mode in train.modes}
    return build(
        model,
        train.X,
        train.y,
        check,
        value=train.value,
        unit=train.unit,
        units=units,
        title=f"{source}: {train.value}",
        apart=test is not None,
    )


def examine(model: Any, train: Observations, held: Observations, seed: int) -> Test:
    """Predict the held-out rows."""
    from tenfac.bayes.predictive import predictive

    trials = held.weights if model.likelihood == "binomial" else None
    found = predictive(model, held.X, held.y, trials=trials)
    return Test(
        held, found.observation_mean, found.observation_std, found.z, nearest_neighbours(train, held, seed)
    )


def lines_of(source: str, model: Any, obs: Observations, train: Observations, test: Test | None) -> list[str]:
    """Everything that is printed."""
    parts = f"{train.size:,} fitted" + (f", {test.rows.size:,} held out" if test else "")
    lines = [f"{source}: {obs.size:,} values of {obs.value} ({parts})", ""]
    lines += report.describe(model, obs)
    if test:
        from tenfac.bayes.metrics import gaussian_metrics

        ours = gaussian_metrics(test.rows.y, test.mean, test.std)
        ours["coverage"] = float(np.mean(np.abs(test.z) <= _TWO_SIDED_95))
        theirs = gaussian_metrics(test.rows.y, test.baseline.mean, spread(test.rows, test.baseline.std))
        lines += ["", *report.compare(ours, theirs, test.baseline.k, test.rows.size)]
    return [*lines, "", *report.outcome(model, obs.unit)]


def spread(rows: Observations, std: float) -> np.ndarray:
    """One standard deviation for all rows, positive."""
    return np.full(rows.size, max(std, np.finfo(float).tiny))


def _check_trials(obs: Observations) -> None:
    """Refuse shares that no whole number of successes has."""
    trials = np.ones(obs.size) if obs.weights is None else obs.weights
    bad = np.abs(obs.y * trials - np.round(obs.y * trials)) > 1e-6 * trials
    if bad.any() or (trials != np.round(trials)).any():
        first = int(np.argmax(bad | (trials != np.round(trials))))
        raise DataError(
            f"--likelihood binomial: {obs.value!r} must be the share of successes among --weights trials, "
            f"both whole numbers; got {obs.y[first]:g} of {trials[first]:g}. Name the column with the "
            "numbers of trials, and give shares with all their digits."
        )


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
