"""Fine-tuning of small conv nets on digits: tenfac's updates against PEFT LoRA, LyCORIS and full fine-tuning.

Run from the root: ``python -m benchmarks.adapters_accuracy [TASK ...]``; the tasks, by default all:

rotated  Conv2d net pretrained on upright digits, adapted to rotated and inverted ones, 200 images
classes  Conv2d net pretrained on the digits 0-4, adapted to 5-9 with a new head, 60 images
rows     as ``rotated``, with a Conv1d net: the rows of an image are its channels

A seed is a split, a pretraining, an initialization and an order of the batches, the same for every method, so
differences are paired. The learning rate of each method is the one of the best mean validation accuracy; a
grid whose best value is at its edge is extended, and made finer around the best. Everything else (steps,
batch, Adam, cosine) is equal, and the head is trained by all methods. Prints tables and writes
``results/adapters_accuracy.json``; runs found there are not repeated.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import torch
from lycoris.modules.locon import LoConModule
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks import record
from tenfac import tucker_adapter

CONVS = ("3", "6", "9")  # the adapted layers, by their place in the net; the head is "14"
LADDER = [float(f"{m}e{e}") for e in range(-5, 2) for m in (1, 2, 5)]
FINE = [float(f"{m}e{e}") for e in range(-5, 2) for m in (1, 1.5, 2, 3, 5, 7)]
GRID = [5e-3, 1e-2, 2e-2, 3e-2, 5e-2]  # of every method, at first
BATCH = 20
SCREENED, BEHIND = 4, 5.0  # seeds that a rate is tried on first, points of accuracy to be left out

Split = dict[str, tuple[Tensor, Tensor]]


# --- nets and data --------------------------------------------------------------------------------------


def conv_net(d: int, n_classes: int) -> nn.Sequential:
    """Four convolutions with GroupNorm and a head: 66,000 numbers for 8 x 8 images (``d = 2``)."""
    conv, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if d == 2 else (nn.Conv1d, nn.AdaptiveAvgPool1d)
    channels = (1 if d == 2 else 8, 32, 32, 64, 64)
    layers: list[nn.Module] = []
    for n, stride in enumerate((1, 2, 1, 1)):
        layers += [conv(channels[n], channels[n + 1], 3, padding=1, stride=stride)]
        layers += [nn.GroupNorm(8, channels[n + 1]), nn.ReLU()]
    return nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(64, n_classes))


def images() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)


def changed(x: Tensor) -> Tensor:
    """Rotated by 90 degrees, dark and bright exchanged."""
    return 1 - torch.rot90(x, 1, (-2, -1))


def rotated(seed: int, rows: bool = False) -> Split:
    x, y = images()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    shape = (lambda x: x[:, 0]) if rows else (lambda x: x)
    first, rest = order[:800], order[800:]
    split = {"pretrain": (shape(x[first]), y[first])}
    for name, index in zip(
        ("train", "validation", "test"), rest.split([200, 300, len(rest) - 500]), strict=True
    ):
        split[name] = shape(changed(x[index])).contiguous(), y[index]
    return split


def classes(seed: int) -> Split:
    x, y = images()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))
    first, rest = order[y[order] < 5], order[y[order] >= 5]
    split = {"pretrain": (x[first], y[first])}
    for name, index in zip(
        ("train", "validation", "test"), rest.split([60, 300, len(rest) - 360]), strict=True
    ):
        split[name] = x[index], y[index] - 5
    return split


# Data, modes of the net, number of classes, whether the head starts anew, LoRA's and Tucker's rank, steps.
TASKS: dict[str, dict[str, Any]] = {
    "rotated": {"data": rotated, "d": 2, "n": 10, "new_head": False, "lora": 1, "tucker": 3, "steps": 150},
    "classes": {"data": classes, "d": 2, "n": 5, "new_head": True, "lora": 1, "tucker": 3, "steps": 100},
    "rows": {
        "data": lambda seed: rotated(seed, rows=True),
        "d": 1,
        "n": 10,
        "new_head": False,
        "lora": 2,
        "tucker": 3,
        "steps": 150,
    },
}


# --- methods --------------------------------------------------------------------------------------------
# Each makes a pretrained net trainable its way, in place; the head is made trainable afterwards.


def layers_of(net: nn.Module) -> list[nn.Module]:
    return [net.get_submodule(name) for name in CONVS]


def full(net: nn.Module, *_: Any) -> None:
    net.requires_grad_(True)


def head_only(net: nn.Module, *_: Any) -> None:
    net.requires_grad_(False)


def lora(net: nn.Module, task: dict[str, Any], _data: Split, seed: int, alpha: int | None = None) -> None:
    """PEFT's LoRA. ``alpha`` is the rank unless given: scale 1, as everywhere else."""
    rank = task["lora"]
    net.requires_grad_(False)
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=list(CONVS))
    peft.inject_adapter_in_model(config, net)


def lycoris_tucker(net: nn.Module, task: dict[str, Any], _data: Split, seed: int) -> None:
    net.requires_grad_(False)
    torch.manual_seed(seed)
    rank = task["tucker"]
    for name, layer in zip(CONVS, layers_of(net), strict=True):
        adapter = LoConModule(f"a{name}", layer, lora_dim=rank, alpha=rank, use_tucker=True, bypass_mode=True)
        adapter.apply_to()
        layer.add_module("lycoris", adapter)


def tucker(net: nn.Module, task: dict[str, Any], data: Split, seed: int, **how: Any) -> None:
    gradients = [None] * len(CONVS)
    if how.get("init") == "gradient":
        loss = cross_entropy(net(data["train"][0]), data["train"][1])
        gradients = torch.autograd.grad(loss, [layer.weight for layer in layers_of(net)])
    net.requires_grad_(False)
    for n, (layer, gradient) in enumerate(zip(layers_of(net), gradients, strict=True)):
        tucker_adapter(layer, task["tucker"], data=gradient, random_state=10 * seed + n, **how)


Method = Callable[[nn.Module, dict[str, Any], Split, int], None]
METHODS: dict[str, Method] = {
    "full fine-tuning": full,
    "head only": head_only,
    "PEFT LoRA": lora,
    "PEFT LoRA, lora_alpha=8": lambda *args: lora(*args, alpha=8),
    "LyCORIS Tucker": lycoris_tucker,
    "tenfac": tucker,
    "tenfac init='weight'": lambda *args: tucker(*args, init="weight"),
    "tenfac init='weight-minor'": lambda *args: tucker(*args, init="weight-minor"),
    "tenfac init='gradient'": lambda *args: tucker(*args, init="gradient"),
    "tenfac structure='flora'": lambda *args: tucker(*args, structure="flora"),
    "tenfac structure='flora', init='orthonormal'": lambda *args: tucker(
        *args, structure="flora", init="orthonormal"
    ),
}
BASELINE = "PEFT LoRA"


# --- training -------------------------------------------------------------------------------------------


def train(net: nn.Module, x: Tensor, y: Tensor, lr: float, steps: int, batch: int, seed: int) -> None:
    """Adam with a cosine schedule over what is trainable."""
    trainable = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
    net.train()
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(y), generator=rng)
        index, order = order[:batch], order[batch:]
        optimizer.zero_grad()
        cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return round(100 * float((net.eval()(x).argmax(1) == y).double().mean()), 3)


def pretrained(task: dict[str, Any], data: Split, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = conv_net(task["d"], task["n"])
    train(net, *data["pretrain"], lr=3e-3, steps=250, batch=40, seed=seed)
    if task["new_head"]:
        net[14] = nn.Linear(64, task["n"])
    return net


def run(
    name: str, task: dict[str, Any], net: nn.Module, data: Split, lr: float, seed: int
) -> tuple[float, float, int]:
    """Validation and test accuracy in percent, and the number of trainable numbers but the head's."""
    net = copy.deepcopy(net)
    METHODS[name](net, task, data, seed)
    net.get_submodule("14").requires_grad_(True)
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    count -= sum(p.numel() for p in net.get_submodule("14").parameters())
    train(net, *data["train"], lr=lr, steps=task["steps"], batch=BATCH, seed=seed)
    return accuracy(net, *data["validation"]), accuracy(net, *data["test"]), count


# --- the search over learning rates -----------------------------------------------------------------------


class Runs:
    """Results of all runs, ``{task: {method: {lr: {"validation": [...], "test": [...]}}}}``, in a file."""

    def __init__(self, seeds: int) -> None:
        self.seeds, self.document = seeds, record.read("adapters_accuracy")
        self.table: dict[str, Any] = self.document.setdefault("runs", {})
        self.nets: dict[tuple[str, int], tuple[Split, nn.Sequential]] = {}

    def save(self) -> None:
        record.write("adapters_accuracy", self.document)

    def start(self, task: str, seed: int) -> tuple[Split, nn.Sequential]:
        if (task, seed) not in self.nets:
            data = TASKS[task]["data"](seed)
            self.nets[task, seed] = data, pretrained(TASKS[task], data, seed)
        return self.nets[task, seed]

    def validation(self, task: str, method: str, lr: float, seeds: int) -> float:
        """Mean validation accuracy of a learning rate over the first seeds, run where it was not."""
        rates = self.table.setdefault(task, {}).setdefault(method, {})
        entry = rates.setdefault(f"{lr:g}", {"validation": [], "test": []})
        missing = range(len(entry["test"]), seeds)
        for seed in missing:
            data, net = self.start(task, seed)
            validation, test, entry["parameters"] = run(method, TASKS[task], net, data, lr, seed)
            entry["validation"].append(validation)
            entry["test"].append(test)
        if missing:
            self.save()
        return float(np.mean(entry["validation"][:seeds]))

    def search(self, task: str, method: str) -> float:
        """The learning rate of the best mean validation accuracy, inside a grid that is fine around it.

        Rates that are far behind on the first seeds are not run on the others.
        """
        grid = set(GRID)
        while True:
            screened = {lr: self.validation(task, method, lr, SCREENED) for lr in sorted(grid)}
            close = [lr for lr, value in screened.items() if value > max(screened.values()) - BEHIND]
            best = max(close, key=lambda lr: self.validation(task, method, lr, self.seeds))
            inside = min(grid) < best < max(grid)
            wanted = neighbours(best, FINE if inside else LADDER)
            if wanted <= grid:
                return best
            grid |= wanted


def neighbours(lr: float, ladder: list[float]) -> set[float]:
    return {max(rate for rate in ladder if rate < lr), min(rate for rate in ladder if rate > lr)}


def summary(runs: Runs, task: str, method: str, lr: float) -> dict[str, Any]:
    """Mean and deviation of the test accuracy, and the paired difference to LoRA with its 95 % interval."""
    entry = runs.table[task][method][f"{lr:g}"]
    test = np.array(entry["test"][: runs.seeds])
    return {
        "parameters": entry["parameters"],
        "lr": lr,
        "lr_grid": sorted(float(rate) for rate in runs.table[task][method]),
        "validation": round(float(np.mean(entry["validation"][: runs.seeds])), 2),
        "test": round(float(test.mean()), 2),
        "sd": round(float(test.std(ddof=1)), 2),
    }


def paired(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    difference = ours - theirs
    half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
    mean = float(difference.mean())
    return {"mean": round(mean, 2), "low": round(mean - half, 2), "high": round(mean + half, 2)}


def at_best(runs: Runs, task: str, method: str, lr: float) -> np.ndarray:
    return np.array(runs.table[task][method][f"{lr:g}"]["test"][: runs.seeds])


def run_task(runs: Runs, task: str, methods: list[str]) -> dict[str, Any]:
    rates = {method: runs.search(task, method) for method in methods}
    rows = {method: summary(runs, task, method, lr) for method, lr in rates.items()}
    lora_test = at_best(runs, task, BASELINE, rates[BASELINE])
    print(f"\n{task}, {runs.seeds} seeds: test accuracy in %, difference to {BASELINE} with 95 % interval")
    for method, row in sorted(rows.items(), key=lambda item: -item[1]["validation"]):
        row["minus_lora"] = paired(at_best(runs, task, method, row["lr"]), lora_test)
        difference = "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**row["minus_lora"])
        print(
            f"{method:45} {row['parameters']:6} lr {row['lr']:<6g} validation {row['validation']:.1f}  "
            f"test {row['test']:.1f} +- {row['sd']:.1f}  {difference}"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="which to run; all by default")
    parser.add_argument("--methods", nargs="*", help="only those whose name is given; and PEFT LoRA")
    parser.add_argument("--seeds", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)  # PEFT's and LyCORIS' on what is not used here
    runs, start = Runs(arguments.seeds), time.process_time()
    methods = [m for m in METHODS if not arguments.methods or m in arguments.methods or m == BASELINE]
    for task in arguments.tasks or TASKS:
        runs.document.setdefault("tasks", {}).setdefault(task, {}).update(run_task(runs, task, methods))
        runs.save()
    runs.document |= {
        "batch": BATCH,
        "seeds": arguments.seeds,
        "versions": record.versions("numpy", "torch", "peft", "lycoris-lora", threads=1),
    }
    runs.save()
    print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
