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
# # Compressing a hyperspectral image
#
# Indian Pines: an aircraft looked at farmland in Indiana in 200 bands of light, 145 x 145 pixels of 20 m.
# Neighbouring pixels and neighbouring bands tell nearly the same story, so the cube should be worth far fewer
# numbers than the 4,205,000 it has. **How many numbers buy how much quality, which modes carry the
# redundancy, and what does it cost?**
#
# The plain baseline is what everybody does with spectra: principal components of the pixels, band against
# band, which sees redundancy in one mode only.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
import tensorly
from tensorly.decomposition import tucker as tensorly_tucker

from tenfac import datasets, tucker

data = datasets.load_indian_pines()
X = data.values.astype(float)
print(data)

# %% [markdown]
# ## One tolerance instead of three ranks
#
# `tucker(X, tol=...)` asks for a relative error and finds the ranks. The error it reports comes from what it
# discarded, not from forming the difference, and is that of the result.

# %%
for tol in (0.1, 0.05, 0.02, 0.01):
    t = tucker(X, tol=tol)
    true = np.linalg.norm(t.to_tensor() - X) / np.linalg.norm(X)
    numbers = t.core.size + sum(factor.size for factor in t.factors)
    print(
        f"tol {tol:5.2f}  rank {t.rank!s:16}  reported {t.info.rel_error:.5f}  true {true:.5f}  "
        f"{X.size / numbers:7.1f} x smaller"
    )
    assert true <= tol
    assert abs(t.info.rel_error - true) < 0.01 * true

# %% [markdown]
# The ranks say where the redundancy is: a handful of spectra, but most of the rows and columns of the field.
# Fields have corners.
#
# ## Quality against size
#
# Quality is the peak signal-to-noise ratio in decibels: 10 dB more is ten times less squared error. PCA of
# the spectra keeps `r` components: `r (145 * 145 + 200)` numbers. Tucker gets the same number of components
# and compresses the two spatial modes as well, as far as the tolerance allows.


# %%
def psnr(relative_error: float) -> float:
    """Peak signal-to-noise ratio in dB of an approximation of X with this relative Frobenius error."""
    return 20 * np.log10(np.abs(X).max() * np.sqrt(X.size) / (relative_error * np.linalg.norm(X)))


tols = np.geomspace(0.15, 0.004, 14)
ours = []
for tol in tols:
    t = tucker(X, tol=tol)
    ours.append((t.core.size + sum(factor.size for factor in t.factors), psnr(t.info.rel_error), t.rank))

pixels = X.reshape(-1, X.shape[-1])
energy = np.linalg.svd(pixels, compute_uv=False) ** 2
components = (1, 2, 3, 5, 8, 12, 20, 30)
pca = [(r * sum(pixels.shape), psnr(np.sqrt(energy[r:].sum() / energy.sum()))) for r in components]

fig, ax = plt.subplots(figsize=(6.4, 4))
ax.semilogx([8 * n / 1e6 for n, _, _ in ours], [q for _, q, _ in ours], "o-", label="Tucker by tolerance")
ax.semilogx([8 * n / 1e6 for n, _ in pca], [q for _, q in pca], "s--", label="PCA of the spectra")
ax.axvline(8 * X.size / 1e6, color="0.6", lw=1)
ax.text(8 * X.size / 1e6, ax.get_ylim()[0] + 1, " the image itself", rotation=90, color="0.4")
ax.set(xlabel="size in MB (float64)", ylabel="PSNR in dB", title="Indian Pines: what a megabyte buys")
ax.legend(loc="upper left", frameon=False)
fig.tight_layout()

# %% [markdown]
# The smaller the file, the more the spatial modes give: at the quality of one principal component Tucker
# needs a tenth of the numbers, at that of three still a third less. Beyond about fifteen components PCA is
# the smaller one: the spatial ranks are then nearly full, there is nothing left to gain from them, and Tucker
# pays for its core all the same.

# %%
ratios = {}
for r, (size, quality) in zip(components, pca, strict=True):
    energy_left = 10 ** (-quality / 20) * np.abs(X).max() * np.sqrt(X.size) / np.linalg.norm(X)
    t = tucker(X, tol=energy_left)  # as good as PCA, or better
    ratios[r] = size / (t.core.size + sum(factor.size for factor in t.factors))
    print(f"PCA, {r:2} components: {8 * size / 1e6:5.2f} MB, {quality:.1f} dB, Tucker {ratios[r]:.2f} x less")
assert ratios[1] > 8
assert ratios[3] > 1.3
assert ratios[30] < 1

# %% [markdown]
# ## What the eye sees

# %%
t = tucker(X, tol=0.03)
numbers = t.core.size + sum(factor.size for factor in t.factors)
band = 120
shown = [
    (X[:, :, band], "original"),
    (t[:, :, band].to_tensor(), f"Tucker, {X.size / numbers:.0f} x smaller"),
]
fig, axes = plt.subplots(1, 3, figsize=(10.4, 3.6), layout="constrained")
low, high = np.percentile(X[:, :, band], [2, 98])
for ax, (image, title) in zip(axes[:2], shown, strict=True):
    ax.imshow(image, cmap="gray", vmin=low, vmax=high)
    ax.set(title=title, xticks=[], yticks=[])
difference = axes[2].imshow(
    shown[1][0] - shown[0][0], cmap="RdBu", vmin=-(high - low) / 4, vmax=(high - low) / 4
)
axes[2].set(title="Tucker - original, contrast x 2", xticks=[], yticks=[])
fig.colorbar(difference, ax=axes, shrink=0.8, label=f"difference in {data.value_name} ({data.unit})")
fig.suptitle(f"Band {band}: rank {t.rank}, relative error {t.info.rel_error:.3f}")

# %% [markdown]
# `t[:, :, band]` is a slice of the compressed format: the band is read without forming the cube.
#
# ## What it costs
#
# At fixed rank the same job for TensorLy, which iterates (HOOI) from a full SVD of every unfolding, and for
# ST-HOSVD, which passes over the data once. Both in CPU seconds of one process.


# %%
def seconds_of(job: object) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


rank = (60, 60, 12)
ours_seconds = min(seconds_of(lambda: tucker(X, rank=rank)) for _ in range(3))
start = time.process_time()
theirs = tensorly_tucker(X, rank=rank)
theirs_seconds = time.process_time() - start
error_ours = tucker(X, rank=rank).info.rel_error
error_theirs = np.linalg.norm(tensorly.tucker_to_tensor(theirs) - X) / np.linalg.norm(X)
report = {
    "seconds": [round(ours_seconds, 3), round(theirs_seconds, 3)],
    "error": [round(float(error_ours), 5), round(float(error_theirs), 5)],
    "ratio": round(theirs_seconds / ours_seconds, 1),
}
print(json.dumps(report))
assert error_ours <= 1.02 * error_theirs

# %% [markdown]
# ## What would make this fail
#
# * **High quality.** As the table above shows, at 45 dB this image is better kept as principal components.
# * **Nothing to share.** White noise in the bands has full rank in every mode; `tucker(X, tol=...)` then
#   answers with full ranks and saves nothing. The ranks it prints are the test.
# * **Edges across the grid.** A mode product sees rows and columns. A field whose borders run diagonally
#   needs high spatial ranks, which is why the spatial ranks above are far larger than the spectral one.
# * **An error that is not squared.** The tolerance is a Frobenius norm: one dead pixel may be smoothed away
#   unnoticed.
