"""Adapters: step time, choice of path and memory against PEFT, LyCORIS and full fine-tuning.

Run from the root: ``python -m benchmarks.adapters [SECTION ...] [--device cuda] [--dtype bfloat16]``; the
sections, by default the first three:

speed      one layer at rank 8: step of every method as a ratio to the frozen layer's
paths      cells on which no constant was fitted: is the chosen path the better one
memory     a whole ResNet-18: step and peak memory as ratios to full fine-tuning's
calibrate  fit the rates of ``tenfac/adapters/updates/cost.py`` on other cells

All methods of a row run in this process, interleaved; times are medians of CPU seconds of one thread (of
device events on CUDA). Writes ``results/adapters.json``; sections that are not run keep their entries.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks import record
from benchmarks.adapters import calibrate, memory, paths, speed

SECTIONS = {"speed": speed.run, "paths": paths.run, "memory": memory.run, "calibrate": calibrate.run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sections", nargs="*", help="which to run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"sections are {', '.join(SECTIONS)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    results = record.read("adapters")
    place = f"{arguments.device} {arguments.dtype}"
    for section in arguments.sections or list(SECTIONS)[:3]:
        print(f"{section}, {place}")
        found = SECTIONS[section](arguments.device, getattr(torch, arguments.dtype))
        results.setdefault(section, {})[place] = found
        results["versions"] = record.versions("torch", "peft", "lycoris-lora", threads=1)
        record.write("adapters", results)


if __name__ == "__main__":
    main()
