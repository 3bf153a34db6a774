"""FunctionalTucker against the reference's recorded numbers, plain baselines, dense formulas and its targets.

Run from the root: ``python -m benchmarks.functional_tucker [SECTION ...]``; the sections, by default all:

tables       real folds: slice mean, kNN, boosting and SVGP here, then the estimator in a process of its own
scale        up to a million rows of a known function: CPU seconds, peak memory, memory per row
invariances  the largest change of predictions under what must not matter
accuracy     distance from dense Gaussian formulas
unseen       data that ships with dependencies, at indices left out

Prints tables, the last one of targets and whether they are met, and writes
``results/functional_tucker.json``; sections that are not run keep their entries. The data folder is
``--data``, or TENFAC_DATA, or ``shared/data`` beside the repository; files that are not there are skipped.
All seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import ast
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import record
from benchmarks.functional import accuracy, data, invariance, scale, tables, targets, unseen

SECTIONS = ("tables", "scale", "invariances", "accuracy", "unseen")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", help="which to run; all by default")
    parser.add_argument("--data", help="folder of the tables")
    parser.add_argument("--folds", nargs="*", help="folds whose name contains one of these")
    parser.add_argument(
        "--model", action="append", default=[], help="further settings, as 'kernel=matern12 tol=1e-5'"
    )
    parser.add_argument("--weighted", action="store_true", help="also fit with the weights of merged copies")
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--no-default", action="store_true", help="only the settings of --model")
    parser.add_argument("--limit", type=float, default=600, help="CPU seconds of one fit")
    parser.add_argument("--svgp-seconds", type=float, default=60, help="0 leaves it out; folds 0 only")
    parser.add_argument("--cell-seeds", type=int, nargs="*", default=[0, 1], help="of the held-out cells")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"sections are {', '.join(SECTIONS)}; got {', '.join(sorted(unknown))}")
    return arguments


def settings_of(text: str) -> dict[str, Any]:
    """``"kernel=matern12 rank=3"`` as keywords; what is no Python literal is a string."""
    out = {}
    for part in text.split():
        key, value = part.split("=", 1)
        try:
            out[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            out[key] = value
    return out


def models_of(arguments: argparse.Namespace) -> dict[str, tuple[dict[str, Any], bool]]:
    """Settings, and whether with weights, by the name of their row."""
    if arguments.baselines_only:
        return {}
    models = {} if arguments.no_default else {targets.DEFAULT: ({}, False)}
    if arguments.weighted:
        models["FunctionalTucker(), weights"] = ({}, True)
    return models | {f"FunctionalTucker({text})": (settings_of(text), False) for text in arguments.model}


def run_tables(arguments: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    """Every chosen fold; rows of other folds and models are kept."""
    out = dict(before)
    for fold in data.folds(data.folder_of(arguments.data), arguments.cell_seeds):
        if arguments.folds and not any(word in fold.name for word in arguments.folds):
            continue
        rows = tables.baseline_rows(fold, arguments.svgp_seconds)
        for name, row in rows.items():
            print(tables.line(fold.name, name, row), flush=True)
        for name, (settings, weighted) in models_of(arguments).items():
            rows[name] = tables.our_row(fold, settings, weighted, arguments.limit)
            print(tables.line(fold.name, name, rows[name]), flush=True)
        out[fold.name] = out.get(fold.name, {}) | rows
    return out


def run(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    chosen = arguments.sections or SECTIONS
    if "tables" in chosen:
        results["tables"] = run_tables(arguments, results.get("tables", {}))
    if "scale" in chosen:
        rows = results.setdefault("scale", {})
        for name, (settings, weighted) in models_of(arguments).items():
            if not weighted:
                found = scale.run(arguments.rows, name, settings, arguments.limit)
                rows[name] = rows.get(name, {}) | found
    if "invariances" in chosen:
        results["invariances"] = invariance.run()
    if "accuracy" in chosen:
        results["accuracy"] = accuracy.run()
    if "unseen" in chosen:
        results |= unseen.run()


def main() -> None:
    arguments = read_arguments()
    results = record.read("functional_tucker")
    with threadpool_limits(limits=1):
        run(arguments, results)
    results["recorded, not run"] = targets.RECORDED
    results["targets"] = targets.judge(results | {"cep": record.read("cep")})
    results["versions"] = record.versions("numpy", "scipy", threads=1)
    record.write("functional_tucker", results)


if __name__ == "__main__":
    main()
