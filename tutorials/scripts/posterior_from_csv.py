"""From a CSV of measurements to predictions with 95 % intervals. Copy this file and change what you need.

python posterior_from_csv.py table.csv --demo      makes a table of real data, and new.csv to be predicted
python posterior_from_csv.py table.csv --value response --log dose --new new.csv --draws 100 --report fit.html

Columns other than --value are modes: what the value depends on. Needs: pip install -e ".[plot,table]"
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tenfac import FunctionalTucker, datasets, plot


def demo(path: Path) -> None:
    """Response of regulatory T cells to IL-2 muteins; the new table asks between the doses measured."""
    table = datasets.load_il2().select("cell", [0]).to_frame().drop(columns="cell")
    table.to_csv(path, index=False)
    new = table[["mutein", "time"]].drop_duplicates().merge(pd.DataFrame({"dose": [0.03, 0.3, 3.0]}), "cross")
    new.to_csv(path.with_name("new.csv"), index=False)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV, one row per measurement; missing ones left out")
    parser.add_argument("--demo", action="store_true", help="write the table instead of reading it")
    parser.add_argument("--value", default="response", help="column of what was measured")
    parser.add_argument("--discrete", nargs="*", help="columns of numbers that are labels (text always is)")
    parser.add_argument("--log", nargs="*", default=[], help="columns to take the logarithm of (doses)")
    parser.add_argument("--new", type=Path, help="CSV of the indices to predict at; default: the table's")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="predictions")
    parser.add_argument("--draws", type=int, default=0, help="joint draws per row, as further columns")
    parser.add_argument("--report", type=Path, help="one HTML page to judge the fit by")
    args = parser.parse_args(argv)
    if args.demo:
        return demo(args.table)
    table = pd.read_csv(args.table)
    if absent := {args.value, *args.log} - set(table.select_dtypes("number")):
        parser.error(f"no numbers in a column {sorted(absent)} of {args.table}, which has {list(table)}")
    table = table.dropna(subset=args.value)
    X, y = table.drop(columns=args.value), table[args.value].to_numpy()
    X[args.log] = np.log10(X[args.log])
    # A tenth of the rows is held out, but no first row of a label: of a label never seen nothing is known.
    labels = [c for c in X if c in (args.discrete or []) or not pd.api.types.is_numeric_dtype(X[c])]
    held = np.random.default_rng(0).random(len(y)) < 0.1
    held &= np.all([X.duplicated(c) for c in labels], axis=0)
    model = FunctionalTucker(discrete=args.discrete).fit(X[~held], y[~held])
    print(model.info_, *model.info_.warnings, sep="\n")  # did it converge, and what does it warn of?
    # Is it better than the plain way, and do its intervals hold what they promise?
    mean, std = model.predict(X[held], return_std=True, include_noise=True)
    comparable = make_column_transformer((OneHotEncoder(), labels), remainder=StandardScaler())
    plain = make_pipeline(comparable, KNeighborsRegressor(3)).fit(X[~held], y[~held])
    for name, guess in {"FunctionalTucker": mean, "3 nearest neighbours": plain.predict(X[held])}.items():
        print(f"{name:21} RMSE {np.sqrt(np.mean((guess - y[held]) ** 2)):.4g} on {held.sum()} rows held out")
    print(f"95 % intervals hold {100 * np.mean(abs(mean - y[held]) < 1.96 * std):.1f} % of them")
    if args.report:
        plot.report(model, X[~held], y[~held], args.report, test=(X[held], y[held]), value=args.value)
    model.partial_fit(X[held], y[held])  # the posterior of all rows
    new = pd.read_csv(args.new) if args.new else table.drop(columns=args.value)
    asked = new[list(X)].assign(**{c: np.log10(new[c]) for c in args.log})
    mean, std = model.predict(asked, return_std=True)  # of the function
    _, spread = model.predict(asked, return_std=True, include_noise=True)  # of a new measurement
    out = new.assign(mean=mean, std=std, observation_std=spread)
    out = out.assign(lower_95=mean - 1.96 * spread, upper_95=mean + 1.96 * spread)  # holds 95 % of these
    # A draw is one function that agrees with the data, whole: for differences, maxima, areas, with errors.
    draws = pd.DataFrame(model.sample(asked, args.draws).T, index=new.index).add_prefix("draw_")
    pd.concat([out, draws], axis=1).to_csv(args.out, index=False, float_format="%.8g")
    print(f"wrote {len(out)} predictions to {args.out}")


if __name__ == "__main__":
    main()
