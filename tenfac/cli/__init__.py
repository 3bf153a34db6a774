"""The command ``tenfac``: ``fit`` and ``predict`` for tables, ``info`` and ``datasets``; thin over the API.

Results go to standard output, progress and notes to standard error. What is wrong with a table or an option
is said in one line on standard error, and the exit code is 2.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tenfac.core.errors import DataError, MissingExtraError, RankError, ShapeError, nearest_name

_FIT = """\
examples:
  tenfac fit doses.csv --value response --discrete cell --report doses.html
  tenfac fit il2 --save il2.tenfac
  tenfac predict il2.tenfac new.csv --out predictions.csv
"""


class _UsageError(Exception):
    """An option that the command does not understand."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what was given, for messages."""
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        for word in self._given if "are required" in message else ():
            name = word.partition("=")[0]  # a required option that is misspelled
            if name.startswith("--") and not any(known.startswith(name) for known in self.options()):
                message = f"unknown option {name}.{nearest_name(name, self.options())}"
        raise _UsageError(f"{message} (see: {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "/".join(action.option_strings) or str(action.metavar)
            known = ", ".join(action.choices)
            hint = nearest_name(value, action.choices)
            self.error(f"{what} must be one of {known}; got {value!r}.{hint}")

    def options(self) -> list[str]:
        """Long options of this parser and of its commands."""
        found = [name for name in self._option_string_actions if name.startswith("--")]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                commands: dict[str, _Parser] = action.choices
                found += [name for parser in commands.values() for name in parser.options()]
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 if the input cannot be used."""
    try:
        parser = _parser()
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            kind = "unknown option" if unknown[0].startswith("-") else "one argument too many:"
            hint = nearest_name(unknown[0].partition("=")[0], parser.options())
            parser.error(f"{kind} {unknown[0]}.{hint}")
    except _UsageError as error:
        return _complain(error)
    except SystemExit as done:  # --help, --version
        return int(done.code or 0)
    try:
        args.run(args)
    except (DataError, MissingExtraError, RankError, ShapeError) as error:
        return _complain(error)
    except KeyboardInterrupt:
        sys.stderr.write("tenfac: interrupted\n")
        return 130
    return 0


def _complain(error: Exception) -> int:
    sys.stderr.write(f"tenfac: {' '.join(str(error).split())}\n")
    return 2


def _parser() -> _Parser:
    from tenfac import __version__

    parser = _Parser(prog="tenfac", description="Structure that factorises over modes.")
    parser.add_argument("--version", action="version", version=f"tenfac {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fit(commands)
    _add_predict(commands)
    about = "versions, optional libraries, threads; or what a file holds"
    info = commands.add_parser("info", help=about, description=f"Show {about}.")
    info.add_argument("model", metavar="MODEL", nargs="?", help="file that `tenfac fit --save` wrote")
    info.set_defaults(run=_info)
    listing = "list the data sets that `tenfac fit` knows by name"
    datasets = commands.add_parser("datasets", help=listing, description=f"{listing.capitalize()}.")
    datasets.set_defaults(run=_datasets)
    return parser


def _add_fit(commands: argparse._SubParsersAction) -> None:
    fit = commands.add_parser(
        "fit",
        help="fit a functional Bayesian Tucker model to a table",
        description=(
            "Fit a functional Bayesian Tucker model to a table of observations: each mode column\n"
            "holds an index, the value column what was observed there. Columns of text are discrete\n"
            "modes, columns of numbers or ISO dates continuous ones."
        ),
        epilog=_FIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument("table", metavar="TABLE", help="CSV or Parquet file, or the name of a data set")
    fit.add_argument("--value", metavar="COLUMN", help="column with the observed values")
    fit.add_argument(
        "--weights",
        metavar="COLUMN",
        help="column with numbers of repeats of each row; of trials with --likelihood binomial",
    )
    fit.add_argument("--modes", metavar="A,B,C", type=_names, help="mode columns (default: all others)")
    fit.add_argument(
        "--discrete", metavar="A,B", type=_names, default=[], help="modes of numbers that are labels"
    )
    fit.add_argument(
        "--log", metavar="A,B", type=_names, default=[], help="modes measured between logarithms (doses)"
    )
    _add_model(fit)
    fit.add_argument(
        "--holdout", type=_fraction, default=0.1, help="share of rows to test on (default %(default)s)"
    )
    fit.add_argument(
        "--random-state", type=_count, default=0, help="of the choice of those rows (default %(default)s)"
    )
    fit.add_argument(
        "--duplicates",
        choices=("refuse", "keep"),
        default="refuse",
        help="what to do with rows of equal indices: refuse, or keep as repeats (default %(default)s)",
    )
    fit.add_argument("--save", metavar="MODEL", help="write the fitted model, for `tenfac.load`")
    fit.add_argument("--plot", metavar="FIGURE.png", help="draw the function of each mode, and calibration")
    fit.add_argument(
        "--report",
        metavar="REPORT.html",
        help="write one page: data, hyperparameters, modes with bands, calibration, residuals, baselines",
    )
    fit.add_argument("--predict", metavar="NEW_TABLE", help="predict at the indices of another table")
    fit.add_argument("--out", metavar="PREDICTIONS.csv", help="where the predictions go")
    fit.add_argument("--quiet", action="store_true", help="no progress bar")
    fit.set_defaults(run=_fit)


def _add_model(fit: argparse.ArgumentParser) -> None:
    """Settings that reach the estimator as they are."""
    fit.add_argument(
        "--rank", metavar="R | R1,R2,..", type=_rank, default="auto", help="rank (default: by evidence)"
    )
    fit.add_argument(
        "--response",
        choices=("identity", "log", "logit"),
        default="identity",
        help="log for values that approach a floor, logit for fractions (default %(default)s)",
    )
    fit.add_argument(
        "--likelihood",
        metavar="NAME",
        help="distribution of a value given the function: gaussian, student_t, poisson, bernoulli, binomial",
    )
    fit.add_argument(
        "--noise",
        metavar="NAME",
        help="auto (the default), constant, or slice for one noise per index of the exact mode",
    )
    fit.add_argument(
        "--inference",
        metavar="NAME",
        help="collapsed (one mode exact, the default), cep (message passing), svi or nuts (Pyro)",
    )
    fit.add_argument(
        "--label-rank",
        metavar="R",
        type=_count,
        default=0,
        help="rank of the learned covariance between labels (default %(default)s: labels are exchangeable)",
    )


def _add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser(
        "predict",
        help="predict with a saved model at the indices of a table",
        description=(
            "Predict with a saved model at the indices of a table. Its columns may stand in any order,\n"
            "others beside them are left out. The result has the indices as given, mean and std of the\n"
            "function, observation_std of a new observation (noise included), and lower_95 and upper_95,\n"
            "between which a new observation lies with probability 95 %. Rows are read and written in\n"
            "blocks, after all of them were checked."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    predict.add_argument("model", metavar="MODEL", help="file that `tenfac fit --save` wrote")
    predict.add_argument("table", metavar="TABLE", help="CSV or Parquet file with a column per mode")
    predict.add_argument("--out", metavar="PREDICTIONS.csv", required=True, help="where the predictions go")
    predict.set_defaults(run=_predict)


# --- the commands; what they need is imported when they run -----------------------------------------------


def _fit(args: argparse.Namespace) -> None:
    from tenfac.cli.fit import run

    run(args)


def _predict(args: argparse.Namespace) -> None:
    from tenfac.cli.predict import run

    run(args)


def _info(args: argparse.Namespace) -> None:
    from tenfac.cli.info import about, info

    sys.stdout.write("\n".join(info() if args.model is None else about(args.model)) + "\n")


def _datasets(args: argparse.Namespace) -> None:  # noqa: ARG001
    from tenfac.cli.info import datasets

    sys.stdout.write("\n".join(datasets()) + "\n")


# --- values of options ------------------------------------------------------------------------------------


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"names must be separated by single commas; got {text!r}")
    return names


def _rank(text: str) -> str | int | tuple[int, ...]:
    if text == "auto":
        return text
    try:
        ranks = tuple(int(part) for part in text.split(","))
    except ValueError:
        ranks = (0,)
    if min(ranks) < 1:
        raise argparse.ArgumentTypeError(
            f"a rank is a whole number from 1, or one per mode, as in 2,3,3; got {text!r}"
        )
    return ranks if len(ranks) > 1 else ranks[0]


def _fraction(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and less than 1; got {text!r}")
    return share


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0; got {text!r}")
    return int(text)
