"""KroneckerSBL as it comes (noise unknown) against its targets, claim by claim.

Run from the root: ``python -m benchmarks.kronecker_sbl [section ...]``, by default all of them.

scale        a million to 1e12 unknowns: CPU seconds and peak memory, each case in a process of its own
speed        the paper's size, and the stored instances against the CPU seconds of the published code; the
             folder is ``--data``, or ``kronecker_sbl`` in TENFAC_DATA or in ``shared/data`` beside the
             repository
free         values drawn independently on the support, 5 to 30 dB
rank1        values that are an outer product (as in the paper's curves), 20 to 30 dB
hops         the same with 4 and 5 columns per mode, as it comes and with ``n_hops=20``
irs          the paper's IRS-MIMO channel, complex
convergence  sweeps to one nat of the best evidence found; whether the evidence ever falls
calibration  cover of 95 % intervals, spurious columns per fit, learned noise
invariances  modes permuted, measurements scaled, snapshots repeated, coupling by the identity, one mode
peers        OMP, Lasso, ARDRegression and BayesianRidge of scikit-learn on the flattened problem

Success is an error below 4 x that of least squares on the true support. A failed fit is "stuck" if the true
support has more evidence than what it found: a local maximum. Prints a line per claim, and writes
``results/kronecker_sbl.json`` section by section. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import record
from benchmarks.kronecker_sbl import cost, inference, recovery
from tenfac import ConvergenceWarning

SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "scale": cost.scale,  # first: a process inherits the peak of the one that started it
    "speed": cost.speed,
    "free": recovery.free,
    "rank1": recovery.rank1,
    "hops": recovery.hops,
    "irs": recovery.irs,
    "convergence": inference.convergence,
    "calibration": inference.calibration,
    "invariances": inference.invariances,
    "peers": cost.peers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="all by default")
    parser.add_argument("--data", help="folder of the stored instances")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--child", choices=list(cost.SCALE), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.child:
        return cost.child(arguments.child)
    results = record.read("kronecker_sbl")
    for name in arguments.sections or SECTIONS:
        print(f"--- {name}", flush=True)
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peers stopped early
            found, cpu = record.timed(lambda name=name: SECTIONS[name](arguments))
        results[name] = found | {"trials": arguments.trials, "cpu_s": cpu}
        results["versions"] = record.versions("numpy", "scipy", "scikit-learn", threads=1)
        record.write("kronecker_sbl", results)
    return None


if __name__ == "__main__":
    main()
