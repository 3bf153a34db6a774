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
# # Which muteins act alike? A CP decomposition with missing cells
#
# Interleukin-2 tells several kinds of immune cells to grow. Thirteen ligands (IL-2, IL-15 and muteins of
# IL-2, once or twice on an antibody) were given to eight cell types in twelve doses, and the response was
# read at four times: 13 x 4 x 12 x 8 cells, 4 % of them missing. **Which muteins act alike, on which cells,
# and from which dose on?**
#
# A CP decomposition writes the response as a sum of a few terms, each a product of one profile per mode. The
# questions are how many terms the data support, and what to do about the holes. Both have the same answer:
# fit observed cells only, and judge on cells that were hidden.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.cluster.hierarchy import average as average_linkage
from scipy.cluster.hierarchy import leaves_list
from scipy.spatial.distance import squareform

from tenfac import cp, cp_complete, datasets, factor_match_score

data = datasets.load_il2()
X = data.values
missing = np.isnan(X)
print(data)
print(f"{missing.sum()} of {X.size} cells missing ({100 * missing.mean():.0f} %)")

# %% [markdown]
# ## How many terms? Hide a tenth, predict it
#
# The error on hidden cells falls while terms describe the biology and rises when they describe noise. Two
# plain answers stand beside it: the mean of all cells, and the mean over muteins at the same time, dose and
# cell type.

# %%
ranks = range(1, 9)
held_out = np.full((3, len(ranks)), np.nan)
baseline = {"mean": [], "mean over muteins": []}
for repeat in range(3):
    hidden = ~missing & (np.random.default_rng([1, repeat]).random(X.shape) < 0.1)
    seen = np.where(hidden, np.nan, X)
    over_muteins = np.broadcast_to(np.nanmean(seen, axis=0), X.shape)
    for name, guess in (("mean", np.full(X.shape, np.nanmean(seen))), ("mean over muteins", over_muteins)):
        baseline[name].append(np.sqrt(np.mean((guess - X)[hidden] ** 2)))
    for k, rank in enumerate(ranks):
        fit = cp_complete(seen, rank, random_state=repeat)
        held_out[repeat, k] = np.sqrt(np.mean((fit.to_tensor() - X)[hidden] ** 2))
for name, values in baseline.items():
    print(f"{name:18} {np.mean(values):.4f}")
for rank, values in zip(ranks, held_out.T, strict=True):
    print(f"rank {rank}             {values.mean():.4f} +- {values.std():.4f}")
assert held_out.mean(axis=0)[2:].max() < 0.5 * np.mean(baseline["mean over muteins"])  # from three terms on

# %%
fig, ax = plt.subplots(figsize=(5.6, 3.6))
ax.plot(ranks, held_out.T, "o-", color="C0", alpha=0.5, lw=1)
ax.plot(ranks, held_out.mean(axis=0), color="C0", lw=2, label="CP from observed cells")
ax.axhline(np.mean(baseline["mean over muteins"]), color="0.5", ls="--", label="mean over muteins")
ax.set(xlabel="rank", ylabel="RMSE at hidden cells", title="IL-2: how many terms", ylim=(0, None))
ax.legend(frameon=False)
fig.tight_layout()

# %% [markdown]
# Every further term helps to predict, and all of them beat the plain answers by far: three terms leave less
# than half the error of the better one. For filling the holes, take many.
#
# ## How many terms are facts?
#
# For *reading*, a term must be a property of the data, not of the random start. Fit each rank from several
# starts, compare with the best fit by the factor match score: 1 means the same terms, whatever their order
# and sign.

# %%
print("rank  errors of five starts                     match with the best of them")
unconstrained = {}
for rank in (1, 2, 3, 4):
    fits = [cp_complete(X, rank, random_state=seed) for seed in range(5)]
    errors = [fit.info.rel_error for fit in fits]
    best = fits[int(np.argmin(errors))]
    scores = sorted(factor_match_score(best, fit) for fit in fits)
    unconstrained[rank] = scores
    print(f"{rank}    ", *(f"{e:.4f}" for e in errors), "   ", *(f"{score:.2f}" for score in scores))
assert np.median(unconstrained[1]) > 0.99
assert np.median(unconstrained[3]) < 0.9

# %% [markdown]
# From three terms on, fits of nearly the same error have different terms: pairs of large terms of opposite
# sign, whose difference fits the data. They predict well and mean nothing. But a response is not negative:
# cells answer or they do not. Asking the terms to be nonnegative as well takes the freedom to cancel away.
# Holes are filled by the fit that predicted hidden cells best.

# %%
filler = cp_complete(X, int(ranks[int(held_out.mean(axis=0).argmin())]))
filled = np.maximum(np.where(missing, filler.to_tensor(), X), 0.0)
print("rank  errors of five starts                     match with the best of them")
nonnegative = {}
for rank in (2, 3, 4):
    fits = [cp(filled, rank, nonnegative=True, random_state=seed) for seed in range(5)]
    errors = [fit.info.rel_error for fit in fits]
    best = fits[int(np.argmin(errors))]
    scores = sorted(factor_match_score(best, fit) for fit in fits)
    nonnegative[rank] = best, scores
    print(f"{rank}    ", *(f"{e:.4f}" for e in errors), "   ", *(f"{score:.2f}" for score in scores))
rank = 3
fit, scores = nonnegative[rank]
print(fit)
print(fit.info)
assert min(scores) > 0.9

# %% [markdown]
# Three terms cost little error against the unconstrained fit, and every start finds them.
#
# ## What the terms say
#
# The profiles of time, dose and cell type have unit length; that of the ligands carries the strength.

# %%
ligands, times, doses, cells = (np.array(factor) for factor in fit.factors)
ligands *= fit.weights

concentration = np.asarray(data.modes[2].values, dtype=float)
fig, axes = plt.subplots(2, 2, figsize=(10, 7))
for r in range(rank):
    axes[0, 0].semilogx(concentration, doses[:, r], "o-", label=f"term {r + 1}")
axes[0, 0].set(xlabel=f"dose ({data.modes[2].unit})", ylabel="profile, unit length", title="against dose")
axes[0, 0].legend(frameon=False)
axes[0, 1].plot(np.asarray(data.modes[1].values, dtype=float), times, "o-")
axes[0, 1].set(xlabel=f"time ({data.modes[1].unit})", title="against time", ylim=(0, None))
for ax, factor, mode in ((axes[1, 0], cells, "cell type"), (axes[1, 1], ligands, "ligand")):
    labels = data.modes[3].values if mode == "cell type" else data.modes[0].values
    height = 0.8 / rank
    for r in range(rank):
        ax.barh(np.arange(len(labels)) + r * height, factor[:, r], height=height)
    ax.set(yticks=np.arange(len(labels)) + height, yticklabels=labels, title=f"of each {mode}")
    ax.set_xlabel("strength" if mode == "ligand" else "profile, unit length")
    ax.invert_yaxis()
fig.tight_layout()

# %% [markdown]
# One term is what the field is after: the response of regulatory T cells, more the more receptor they carry,
# from doses far below those that the others need, strongest for IL-2 itself and the bivalent muteins. It is
# gone at high doses, where the other terms take over, in which every cell type takes part.

# %%
half = [float(np.interp(0.5, np.maximum.accumulate(d / d.max()), np.log10(concentration))) for d in doses.T]
early = int(np.argmin(half))
share = cells[:, early] / cells[:, early].sum()
for name, value in sorted(zip(data.modes[3].values, share, strict=True), key=lambda pair: -pair[1])[:3]:
    print(f"term {early + 1}: {value:.0%} on {name}")
print("log10 of the dose at which each term reaches half its height:", np.round(half, 1))
assert share[:3].sum() > 0.6  # the three kinds of regulatory T cells stand first
alike = (times.T @ times) * (doses.T @ doses) * (cells.T @ cells)

# %% [markdown]
# ## Which muteins act alike
#
# Two muteins act alike when their profiles over the terms point the same way. The cosine ignores strength;
# what the terms share is counted once, by their likeness above.

# %%
inner = ligands @ alike @ ligands.T
cosine = inner / np.sqrt(np.outer(np.diag(inner), np.diag(inner)))
order = leaves_list(average_linkage(squareform(1 - cosine, checks=False)))
labels = [str(data.modes[0].values[i]) for i in order]
fig, ax = plt.subplots(figsize=(6.2, 5.2))
image = ax.imshow(cosine[np.ix_(order, order)], vmin=cosine.min(), vmax=1, cmap="viridis")
ax.set_xticks(range(len(labels)), labels, rotation=90)
ax.set_yticks(range(len(labels)), labels)
ax.set_title("Cosine between responses")
fig.colorbar(image, shrink=0.8, label="cosine")
fig.tight_layout()

pairs = [(cosine[i, j], i, j) for i in range(len(labels)) for j in range(i)]
for value, i, j in sorted(pairs, reverse=True)[:4]:
    print(f"{data.modes[0].values[i]!s:20} ~ {data.modes[0].values[j]!s:20} {value:.3f}")

# %% [markdown]
# The same cosines can be read off the raw data where two muteins were both measured. If the decomposition
# invented the likeness, the two would part.

# %%
raw = np.full(cosine.shape, np.nan)
for i in range(len(raw)):
    for j in range(len(raw)):
        both = ~missing[i] & ~missing[j]
        a, b = X[i][both], X[j][both]
        raw[i, j] = a @ b / np.sqrt((a @ a) * (b @ b))
upper = np.triu_indices(len(raw), 1)
agreement = np.corrcoef(raw[upper], cosine[upper])[0, 1]
print(f"correlation of the cosines from raw data with those from {rank} terms: {agreement:.2f}")
assert agreement > 0.8

# %% [markdown]
# ## What would make this fail
#
# * **A mutein with a whole block missing.** Its profile comes from what is left. `fit.info.warnings` names
#   indices with no observation at all; a block that is missing for a reason (the strongest doses, say) biases
#   everything.
# * **Too many terms.** The error at hidden cells rises, and other starts find other terms: both checks are
#   above.
# * **Reading bands into it.** CP gives a best fit, not how sure it is. For bands, and for doses nobody
#   measured, see `FunctionalTucker`.
