# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One net, two new tasks, a few hundred numbers each
#
# A convolutional net has learned the digits 0 to 4. Then two customers come. One has the digits 5 to 9, sixty
# labelled images of them. The other has 0 to 4, but from a camera that is mounted sideways and gives
# negatives, a hundred labelled images. **Must each get a net of his own?** An adapter leaves the net as it is
# and learns a small update of its weights. LoRA's is a product of two matrices; a convolution's weight has
# four modes (out, in, height, width), and tenfac's update of it is a small Tucker tensor. How accurate is
# each, for how many trained numbers? Then both adapters go to files, are switched on one net, merged, undone
# to the last bit, and read by PEFT.

# %%
import copy
import tempfile
import warnings
from collections import OrderedDict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import tenfac

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")  # of a progress bar that is not shown
    import peft

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
plt.rcParams.update({"grid.color": "0.9"})
torch.set_num_threads(1)

pixels, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)


def sideways_negative(x: torch.Tensor) -> torch.Tensor:
    """As the second camera sees it."""
    return 1 - torch.rot90(x, 1, (-2, -1))


def split(seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels 0..4: of the first task, and of the two new ones with what is kept for the test."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    low, high = order[labels[order] < 5], order[labels[order] >= 5]
    x, y = images[low], labels[low]
    turned, new, target = sideways_negative(x), images[high], labels[high] - 5
    return {
        "first": (x[:500], y[:500]),
        "digits 5-9": (new[:60], target[:60]),
        "digits 5-9, test": (new[60:], target[60:]),
        "sideways negatives": (turned[500:600], y[500:600]),
        "sideways negatives, test": (turned[600:], y[600:]),
    }


TASKS = "digits 5-9", "sideways negatives"
data = split(0)
fig, axes = plt.subplots(3, 10, figsize=(7.2, 2.4), layout="constrained")
for row, part, title in zip(axes, ("first", *TASKS), ("0-4", "5-9", "turned"), strict=True):
    for ax, image in zip(row, data[part][0], strict=False):
        ax.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(title)

# %% [markdown]
# ## The net
#
# Four convolutions with group normalization and a linear head, 66,000 numbers. The convolutions 2 to 4 will
# be adapted, and the head is trained by every method.


# %%
def conv_net() -> nn.Sequential:
    """A net for 8 x 8 images and five classes."""
    layers: list[tuple[str, nn.Module]] = []
    sizes = [(1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 1)]
    for n, (into, out, stride) in enumerate(sizes, start=1):
        layers.append((f"conv{n}", nn.Conv2d(into, out, 3, padding=1, stride=stride)))
        layers += [(f"norm{n}", nn.GroupNorm(8, out)), (f"relu{n}", nn.ReLU())]
    layers += [("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten()), ("head", nn.Linear(64, 5))]
    return nn.Sequential(OrderedDict(layers))


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, lr: float, steps: int, seed: int) -> None:
    """Adam with a cosine schedule over all numbers that are trainable, batches of 20."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(steps):
        batch = torch.randint(len(y), (20,), generator=rng)
        optimizer.zero_grad()
        cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers in percent."""
    return 100 * float((net(x).argmax(1) == y).double().mean())


def first_net(seed: int) -> nn.Sequential:
    """The net that knows 0 to 4."""
    torch.manual_seed(seed)
    net = conv_net()
    train(net, *split(seed)["first"], lr=3e-3, steps=200, seed=seed)
    return net


SEEDS = range(3)
nets = [first_net(seed) for seed in SEEDS]
for task in TASKS:
    print(f"{task}, as it is: {accuracy(nets[0], *data[task + ', test']):.1f} % right (guessing: 20 %)")

# %% [markdown]
# ## Three ways to adapt
#
# All the numbers; PEFT's LoRA; a Tucker update. The learning rate decides more than the method does. Those
# here come from trials on other splits, except those of tenfac's ranks 5 and 8, of which the end speaks.

# %%
LAYERS = ["conv2", "conv3", "conv4"]
RATES = {
    ("full fine-tuning", 0): 2e-3,
    ("head only", 0): 5e-1,
    **{("PEFT LoRA", rank): 3e-2 if rank < 4 else 2e-2 for rank in (1, 2, 4)},
    ("PEFT LoRA", 1, "digits 5-9"): 5e-2,
    **{("tenfac", rank): 3e-2 if rank < 4 else 2e-2 for rank in (1, 3, 5, 8)},
}


def adapted(method: str, rank: int, net: nn.Module, task: str, seed: int) -> nn.Module:
    """A copy of a net, adapted to a task and trained."""
    net = copy.deepcopy(net)
    torch.manual_seed(seed)
    if task == "digits 5-9":
        net.head.reset_parameters()
    net.requires_grad_(method == "full fine-tuning")
    if method == "PEFT LoRA":
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=LAYERS), net)
    elif method == "tenfac":
        tenfac.adapt(net, LAYERS, rank=rank, random_state=seed)
    net.head.requires_grad_(True)
    rate = RATES.get((method, rank, task), RATES[method, rank])
    train(net, *split(seed)[task], lr=rate, steps=100, seed=seed)
    return net


def trained_numbers(net: nn.Module) -> int:
    """Of the convolutions: the head is the same for all."""
    head = sum(p.numel() for p in net.head.parameters())
    return sum(p.numel() for p in net.parameters() if p.requires_grad) - head


results = {}  # task, method, rank: numbers, accuracies
for task in TASKS:
    for method, rank in (key for key in RATES if len(key) == 2):
        made = [adapted(method, rank, net, task, seed) for seed, net in zip(SEEDS, nets, strict=True)]
        scores = [accuracy(net, *split(seed)[f"{task}, test"]) for seed, net in zip(SEEDS, made, strict=True)]
        results[task, method, rank] = trained_numbers(made[0]), np.array(scores)

for task in TASKS:
    print(f"\n{task}: test accuracy in %, mean of {len(SEEDS)} seeds")
    for (of, method, rank), (numbers, scores) in results.items():
        if of == task:
            name = f"{method}, rank {rank}" if rank else method
            print(
                f"{name:18} {numbers:7,} trained numbers  {scores.mean():5.1f} (sd {scores.std(ddof=1):.1f})"
            )

# %%
COLORS = {"PEFT LoRA": "#D55E00", "tenfac": "#0072B2"}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.9), sharex=True, layout="constrained")
for ax, task in zip(axes, TASKS, strict=True):
    of_task = {key[1:]: value for key, value in results.items() if key[0] == task}
    for method, color in COLORS.items():
        points = [(numbers, scores) for (name, _), (numbers, scores) in of_task.items() if name == method]
        x, y = [numbers for numbers, _ in points], np.array([scores for _, scores in points])
        ax.plot(x, y.mean(axis=1), "o-", color=color, label=method)
        ax.plot(np.repeat(x, len(SEEDS)), y.ravel(), ".", color=color, alpha=0.35, ms=5)
    numbers, scores = of_task["full fine-tuning", 0]
    ax.plot(numbers, scores.mean(), "s", color="0.25", label="full fine-tuning")
    ax.plot(np.repeat(numbers, len(SEEDS)), scores, ".", color="0.25", alpha=0.35, ms=5)
    ax.axhline(of_task["head only", 0][1].mean(), color="0.5", ls="--", lw=1, label="head only")
    ax.set(xscale="log", xlabel="trained numbers, without the head", title=task)
axes[0].set_ylabel("test accuracy (%)")
axes[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.06))
fig.suptitle("Lines: mean of the seeds; dots: each seed")


def overall(method: str, rank: int = 0) -> float:
    """Mean accuracy over both tasks and all seeds."""
    return float(np.mean([results[task, method, rank][1] for task in TASKS]))


small, large = overall("tenfac", 3), overall("tenfac", 8)
print(f"1,107 numbers of tenfac: {small:.1f}; 1,312 of LoRA: {overall('PEFT LoRA', 1):.1f}")
print(f"4,032 numbers of tenfac: {large:.1f}; all 65,376: {overall('full fine-tuning'):.1f}")
assert small > overall("PEFT LoRA", 1)
assert small > overall("head only") + 8
assert large > overall("full fine-tuning") - 5

# %% [markdown]
# Single seeds are several points apart, so a point between two means is nothing. A few thousand numbers come
# close to all of them. Does the Tucker form need fewer than LoRA? In `benchmarks/adapters_accuracy.py`, with
# ten seeds, five or more rates for each and a validation set to choose by, 1,107 numbers beat LoRA's 1,312 by
# 4 points (95 % interval 1 to 7) on turned negatives, and are its equal on new classes.

# %% [markdown]
# ## One file for each task, switched on one net
#
# An adapter's file holds its cores and factors, and a fingerprint of the weights that it was made for. The
# head is a layer of its own; it is kept beside.

# %%
folder = Path(tempfile.mkdtemp())
experts = {task: adapted("tenfac", 3, nets[0], task, seed=0) for task in TASKS}
test = {task: data[f"{task}, test"][0] for task in TASKS}
with torch.no_grad():
    answers = {task: experts[task](test[task]) for task in TASKS}
net_size = sum(p.numel() * p.element_size() for p in nets[0].parameters())
for task in TASKS:
    tenfac.save_adapter(experts[task], folder / f"{task}.safetensors")
    size = (folder / f"{task}.safetensors").stat().st_size
    print(f"{task}: {size / 1000:.1f} kB in the file, the net has {net_size / 1000:.0f} kB")
print(tenfac.adapter_report(experts[TASKS[0]]))

# %%
served = copy.deepcopy(nets[0])
heads = {task: expert.head for task, expert in experts.items()}
for task in TASKS:
    tenfac.load_adapter(served, folder / f"{task}.safetensors", name=task, activate=False)
for task in (*TASKS, TASKS[0]):
    tenfac.activate(served, task)
    served.head = heads[task]
    with torch.no_grad():
        off = float((served(test[task]) - answers[task]).abs().max())
    print(f"{task}: outputs differ by {off:.1g} from those of the net that was trained")
    assert off == 0

# %% [markdown]
# ## Merged, and undone to the last bit
#
# `merge` adds the update to the weights: the net then costs what it cost before. `unmerge` puts the originals
# back, not the sum minus the update.


# %%
def relative(values: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest value."""
    return float((values - wanted).abs().max() / wanted.abs().max())


before = {name: value.clone() for name, value in nets[0].state_dict().items() if "head" not in name}
task = TASKS[0]
with torch.no_grad():
    tenfac.merge(served)
    merged = relative(served(test[task]), answers[task])
    for _ in range(100):
        tenfac.unmerge(served)
        tenfac.merge(served)
    tenfac.unmerge(served)
    same = all(torch.equal(served.state_dict()[name], value) for name, value in before.items())
print(f"merged: {merged:.1e} off, relative; all weights back, every bit, after 100 cycles: {same}")
assert merged < 1e-6
assert same

# %% [markdown]
# PEFT's own way, for comparison: the update is added, then subtracted.

# %%
peft_net = adapted("PEFT LoRA", 1, nets[0], task, seed=0)
layers = [peft_net.get_submodule(name) for name in LAYERS]
for _ in range(100):
    for layer in layers:
        layer.merge()
        layer.unmerge()
drift = max(
    float((layer.base_layer.weight - before[f"{name}.weight"]).abs().max())
    for name, layer in zip(LAYERS, layers, strict=True)
)
print(f"PEFT: weights {drift:.1e} off after 100 cycles")

# %% [markdown]
# ## Read by PEFT
#
# A Tucker update is also a LoRA, with a larger first matrix. `export_peft` writes PEFT's own files, and PEFT
# itself reads them here.

# %%
tenfac.export_peft(experts[task], folder / "peft")
base = copy.deepcopy(nets[0])
base.head = heads[task]
loaded = peft.PeftModel.from_pretrained(base, folder / "peft").eval()
with torch.no_grad():
    off = relative(loaded(test[task]), answers[task])
print(f"PEFT's outputs are {off:.1e} off, relative")
assert off < 1e-6

# %% [markdown]
# ## What would make this fail
#
# * **A learning rate taken over from another method.** Adapters here lose 5 to 10 points when it is off by a
#   factor of two. Try several, for every method that you compare; a thin grid makes any winner you like.
#   At 0.03, best for rank 8 on other splits, one of the three seeds above ended at 20 %: guessing. It and
#   rank 5 were then given 0.02, so their points are a little flattered.
# * **Layers without a kernel.** What the Tucker form saves is the kernel's share: LoRA repeats it in its
#   first matrix for every rank. For a linear layer both forms are products of matrices, of nearly one size.
# * **A task that is far from what the net knows.** A small update turns features; it does not make many new
#   ones. With enough images full fine-tuning wins: raise the rank, or train everything.
# * **Three seeds, one data set, small nets.** The dots show how far single seeds are apart. The benchmark has
#   more of them, and a case (convolutions over one dimension) where the gain is not there.
# * **Another base.** The file is refused on a net with other weights: the update would be of something else.
