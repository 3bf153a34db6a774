"""Rows that arrive later: forecast, look, learn, keep. Copy this file and change what you need.

python streaming.py table.csv --demo     makes a table of real data: landscapes of a reaction, one every 20 s
python streaming.py table.csv --value fluorescence --by time --first 15

Kill it whenever you like, or let the table grow: the same line goes on after the last batch that it kept.
Columns other than --value are modes; rows of one value of --by are a batch. Needs: pip install -e ".[table]"
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from tenfac import FunctionalTucker, datasets, load, save


def demo(path: Path) -> None:
    """Fluorescence of one sample over emission, excitation and time; every third wavelength."""
    table = datasets.load_kinetic().select("sample", [0]).to_frame().drop(columns="sample")
    for column in ("emission", "excitation"):
        table = table[table[column].isin(sorted(table[column].unique())[::3])]
    table.to_csv(path, index=False)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV, one row per measurement; missing ones left out")
    parser.add_argument("--demo", action="store_true", help="write the table instead of reading it")
    parser.add_argument("--value", default="fluorescence", help="column of what was measured")
    parser.add_argument("--by", default="time", help="column of numbers in whose order rows arrive")
    parser.add_argument("--discrete", nargs="*", help="columns of numbers that are labels (text always is)")
    parser.add_argument("--first", type=int, default=15, help="batches to learn the hyperparameters from")
    parser.add_argument("--batches", type=int, help="at most so many in this run")
    parser.add_argument("--model", type=Path, default=Path("stream.tenfac"), help="the checkpoint")
    parser.add_argument("--out", type=Path, default=Path("forecasts"), help="folder, one CSV per batch")
    args = parser.parse_args(argv)
    if args.demo:
        return demo(args.table)
    table = pd.read_csv(args.table)
    if absent := {args.value, args.by} - set(table.select_dtypes("number")):
        parser.error(f"no numbers in a column {sorted(absent)} of {args.table}, which has {list(table)}")
    table = table.dropna(subset=args.value)
    times = np.unique(table[args.by])
    args.out.mkdir(exist_ok=True)
    # The model itself knows how far it came, by the last index of the mode --by: nothing else is kept.
    if args.model.exists():
        model = load(args.model)
    else:
        # Lengthscales and noise are learned here and stay: the first batches should show what may happen.
        rows = table[table[args.by].isin(times[: args.first])]
        model = FunctionalTucker(discrete=args.discrete).fit(rows.drop(columns=args.value), rows[args.value])
        save(model, args.model)
    last = model.indices_[model.mode_names_.index(args.by)][-1]
    print(f"{model.info_}; learned up to {args.by} {last:g}")
    before = table[table[args.by] == last]
    for time in times[times > last][: args.batches]:
        rows = table[table[args.by] == time]
        X, y = rows.drop(columns=args.value), rows[args.value].to_numpy()
        # First the forecast, of a new measurement: function and noise. Then the rows themselves.
        mean, std = model.predict(X, return_std=True, include_noise=True)
        model.partial_fit(X, y)
        low, high = mean - 1.96 * std, mean + 1.96 * std
        out = rows.assign(mean=mean, observation_std=std, lower_95=low, upper_95=high)
        out.to_csv(args.out / f"{time}.csv", index=False, float_format="%.8g")
        # Killed before `save`, the batch is done again, to the same file; `save` never leaves half a model.
        save(model, args.model)
        # The plain forecast: what was read at the same place in the batch before.
        before = before.drop(columns=args.by).rename(columns={args.value: "plain"})
        plain = rows.merge(before, "left")["plain"] - y
        ours, theirs = (np.sqrt(np.nanmean(error**2)) for error in (mean - y, plain))
        inside = 100 * np.mean((low < y) & (y < high))
        print(f"{args.by} {time:.4g}: RMSE {ours:.4g} (as before: {theirs:.4g}), {inside:.0f} % in the bands")
        before = rows


if __name__ == "__main__":
    main()
