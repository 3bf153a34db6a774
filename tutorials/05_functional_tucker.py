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
# # Seven landscapes instead of sixty: predictions between measurements, with error bars
#
# Mixtures of catecholamines react, and while they do, their fluorescence is read at 12 emission and 10
# excitation wavelengths: one landscape every 20 s, 60 in all. **Were sixty needed? And if the entries that
# were measured lie scattered, one in ten, what were the others, and how sure are we?**
#
# An array decomposition has one row of numbers per time: it cannot say anything of a time that was not
# measured. `FunctionalTucker` has a *function* of time, and of every other continuous index, with a
# Gaussian-process prior each. It learns from a table of observations, one row per entry, and answers at any
# index with a mean and a standard deviation. Plain baselines stand beside every number.

# %%
import warnings

import matplotlib.pyplot as plt
import numpy as np
import tensorly as tl
from scipy.interpolate import interp1d
from sklearn.neighbors import KNeighborsRegressor
from tensorly.decomposition import parafac

from tenfac import FunctionalTucker, cp_complete, datasets, nuts, plot

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
plt.rcParams.update({"grid.color": "0.9"})
warnings.filterwarnings("ignore", "IProgress not found")  # of a progress bar that is not shown
data = datasets.load_kinetic()
data = data.select("sample", np.arange(0, 59, 4))
names = [mode.name for mode in data.modes]
X, y = data.to_table()
times = data.axis("time").values
print(data)
print("columns:", names, " rows:", len(y))


def rmse(error: np.ndarray) -> float:
    """Root mean square of the entries that are there."""
    return float(np.sqrt(np.nanmean(error**2)))


# %% [markdown]
# ## Times that nobody measured
#
# Seven landscapes are kept, more of them early, when the reaction is fast. The other 53 are hidden, whole.

# %%
kept = np.array([0, 4, 9, 17, 28, 42, 59])
seen = np.isin(X[:, 3], times[kept])


def table(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Columns by name."""
    return dict(zip(names, X[rows].T, strict=True))


model = FunctionalTucker(discrete=["sample"]).fit(table(seen), y[seen])
print(model.info_)
print(f"noise {model.noise_:.1f} {data.unit}, lengthscale of time {model.lengthscales_['time']:.0f} min")

# %% [markdown]
# The baselines work on each fibre (one sample, emission and excitation): the mean of its seven values, the
# nearest, a line between neighbours, a cubic spline through all.

# %%
known, hidden = data.values[..., kept], np.setdiff1d(np.arange(60), kept)
truth = data.values[..., hidden]
grid = np.full(data.shape, np.nan)
grid[np.isfinite(data.values)] = model.predict(dict(zip(names, X.T, strict=True)))
whole = np.isfinite(known).all(axis=-1)[..., None]  # a lost value stops a spline
guesses = {"mean of the fibre": np.broadcast_to(known.mean(axis=-1, keepdims=True), truth.shape)}
for name, kind in (("nearest time", "nearest"), ("linear in time", "linear"), ("cubic spline", "cubic")):
    guesses[name] = interp1d(times[kept], np.nan_to_num(known), kind=kind)(times[hidden])
guesses["FunctionalTucker"] = grid[..., hidden]
error = {name: rmse(np.where(whole, guess - truth, np.nan)) for name, guess in guesses.items()}
for name, value in error.items():
    print(f"{name:18} RMSE {value:6.1f} {data.unit}")
assert error["FunctionalTucker"] < 0.85 * error["linear in time"]
assert error["FunctionalTucker"] < 0.95 * error["cubic spline"]

# %% [markdown]
# The noise of one reading is part of every number above. What seven landscapes leave to learn from the other
# 53 is little: the error is hardly above the noise. The model beats a spline because it looks at all fibres
# at once: their shapes in time are mixtures of a few.
#
# ## The functions it found, with bands
#
# `mode_posterior` is the function of one index averaged over the others. `mode_functions` are the factors of
# the Tucker form of the posterior: each is a fixed combination of all fibres, and their sizes say how much
# of the data it carries. For the dots the same average and the same kind of combination were formed from the
# raw landscapes, at all sixty times. The model never saw 53 of them.

# %%
_, curves, curves_std, sizes = model.mode_functions("time", times, rank=3)
_, level, level_std = model.mode_posterior("time", times)
fibres = data.values[np.isfinite(data.values).all(axis=-1)]
_, strength, weights = np.linalg.svd(fibres[:, kept].T - y[seen].mean(), full_matrices=False)
dots = (fibres.T - y[seen].mean()) @ (weights[:3] / strength[:3, None]).T
dots *= np.sign(np.sum(dots * curves, axis=0))
titles = ["average over the rest", *(f"function {r + 1}, size {sizes[r]:,.0f} {data.unit}" for r in range(3))]
raw = np.column_stack([fibres.mean(axis=0), dots])
found, band = np.column_stack([level, curves]), 1.96 * np.column_stack([level_std, curves_std])

fig, axes = plt.subplots(2, 4, figsize=(13, 4.6), sharex=True, layout="constrained", height_ratios=(2, 1))
for r, (top, bottom) in enumerate(axes.T):
    top.plot(times, found[:, r], color="#0072B2", lw=1.8)
    top.plot(times, raw[:, r], ".", ms=3.5, color="0.3")
    top.set_title(titles[r])
    bottom.fill_between(times, -band[:, r], band[:, r], color="#0072B2", alpha=0.22, lw=0)
    bottom.plot(times, raw[:, r] - found[:, r], ".", ms=3.5, color="0.3")
    bottom.plot(times[kept], np.zeros(len(kept)), "|", color="#D55E00", ms=9)
    bottom.set_xlabel("time (min)")
axes[0, 0].set_ylabel(f"fluorescence ({data.unit})")
axes[1, 0].set_ylabel("dots - curve")
fig.suptitle("Curves and 95 % bands: from seven landscapes (red marks). Dots: from all sixty")
cosines = np.sum(dots * curves, axis=0) / np.linalg.norm(dots, axis=0) / np.linalg.norm(curves, axis=0)
print("cosine between curve and dots:", np.round(cosines, 4))
assert cosines.min() > 0.99

# %% [markdown]
# Below each curve, what the dots leave over it. The bands open between the marks, most before the second one,
# where the reaction is fastest. There functions 1 and 3 leave them: their bands take the combination of
# fibres for known, and a smooth prior for true. `predict`, which has all functions together, is judged next.
#
# ## Do the error bars mean what they say?
#
# `calibration` scores the hidden rows: of a 95 % interval, 95 % should hold, also among the quarter of rows
# where the model is surest, and that where it is least sure. The probability integral transform, the
# predicted probability of a value below the one observed, should be uniform.

# %%
scores = model.calibration(table(~seen), y[~seen])
mean, std = model.predict(table(~seen), return_std=True, include_noise=True)
print(f"95 % intervals hold {100 * scores['coverage']:.1f} % of {len(mean):,} hidden values;")
print("by quarter of predicted sd:", np.round(scores["coverage_by_quartile"], 3))
print(f"CRPS {scores['crps']:.2f}, negative log density {scores['nll']:.3f}")
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
plot.calibration(y[~seen], mean, std, ax=axes[0])
axes[1].hist(scores["pit"], bins=20, range=(0, 1), density=True, color="#0072B2", alpha=0.55, ec="w")
axes[1].axhline(1, color="0.5", ls="--", lw=1)
axes[1].set(xlabel="probability integral transform", ylabel="density", xlim=(0, 1), axisbelow=True)
fig.suptitle("Values at hidden times")
assert 0.92 < scores["coverage"] < 0.98
assert scores["coverage_by_quartile"].min() > 0.9

# %% [markdown]
# Nearly straight, nearly flat: the bands are a little wide in the middle. The gray band is thin because it
# takes every value for independent; those of one time share an error and are not.
#
# ## One entry in ten
#
# Now one mixture, of which 10 % of the entries are known, scattered over wavelengths and times. The
# baselines: the mean of the same wavelengths, the nearest neighbours (the best number of them, judged on the
# hidden entries), and CP decompositions of the array with holes, TensorLy's and tenfac's, with the rank that
# is best on the hidden entries. `terms=()` keeps to the product over modes: what the evidence would put
# beside it here, an effect of every pair of wavelengths, has far too wide bands.

# %%
one = data.select("sample", [0])
X1, y1 = one.to_table()
X1, cube = X1[:, 1:], one.values[0]
few = np.random.default_rng(0).random(len(y1)) < 0.1
scattered = FunctionalTucker(terms=()).fit(X1[few], y1[few])
mean, std = scattered.predict(X1[~few], return_std=True, include_noise=True)

holes = np.full(cube.size, np.nan)
holes[np.flatnonzero(np.isfinite(cube.ravel()))[few]] = y1[few]
holes = holes.reshape(cube.shape)
asked = np.isfinite(cube) & np.isnan(holes)
scaled = X1 / X1.std(axis=0)
cells = np.where(np.isnan(holes).all(axis=2), np.nanmean(holes), np.nansum(holes, axis=2))
cells /= np.maximum(np.isfinite(holes).sum(axis=2), 1)
tensorly_fits = [
    parafac(np.nan_to_num(holes), r, mask=np.isfinite(holes), init="random", random_state=0, n_iter_max=500)
    for r in (1, 2, 3, 4)
]
candidates = {
    "mean over time": [np.broadcast_to(cells[..., None], cube.shape)[asked]],
    "nearest neighbours": [
        KNeighborsRegressor(k).fit(scaled[few], y1[few]).predict(scaled[~few]) for k in (1, 3, 5, 10)
    ],
    "TensorLy masked CP": [tl.cp_to_tensor(fit)[asked] for fit in tensorly_fits],
    "tenfac cp_complete": [cp_complete(holes, r).to_tensor()[asked] for r in (1, 2, 3, 4)],
    "FunctionalTucker": [mean],
}
errors = {name: min(rmse(guess - y1[~few]) for guess in tried) for name, tried in candidates.items()}
for name, value in errors.items():
    print(f"{name:18} RMSE {value:6.1f} {data.unit}")
coverage = np.mean(np.abs(mean - y1[~few]) < 1.96 * std)
print(f"{few.sum()} entries known, {asked.sum()} asked for; 95 % intervals hold {100 * coverage:.1f} %")
assert errors["FunctionalTucker"] < 0.6 * errors["nearest neighbours"]
assert errors["FunctionalTucker"] < 0.95 * errors["TensorLy masked CP"]
assert 0.92 < coverage < 0.98

# %%
where = np.unravel_index(np.argmax(cube.mean(axis=2)), cube.shape[:2])
emission, excitation = one.axis("emission").values[where[0]], one.axis("excitation").values[where[1]]
fine = np.linspace(times[0], times[-1], 200)
place = np.column_stack([np.full(200, emission), np.full(200, excitation), fine])
line, band = scattered.predict(place, return_std=True, include_noise=True)
fibre, at = cube[where], np.isfinite(holes[where])
fig, ax = plt.subplots(figsize=(6.8, 3.4), layout="constrained")
ax.fill_between(fine, line - 1.96 * band, line + 1.96 * band, color="#0072B2", alpha=0.22, lw=0)
ax.plot(fine, line, color="#0072B2", label="prediction, 95 % band of a reading")
ax.plot(times[at], fibre[at], "o", color="0.2", ms=5, label="known")
ax.plot(times[~at], fibre[~at], ".", color="#D55E00", ms=4, label="hidden")
ax.set(xlabel="time (min)", ylabel=f"fluorescence ({data.unit})")
ax.set_title(f"emission {emission:g} nm, excitation {excitation:g} nm")
ax.legend(frameon=False)

# %% [markdown]
# ## A second opinion: NUTS
#
# The numbers above come from formulas that are exact for given hyperparameters, or so it says. `nuts` writes
# the same model as a Pyro program and draws from its posterior, without any of tenfac's formulas for it. On
# 60 readings at one excitation both should agree, to the accuracy of some hundred draws.

# %%
slab = cube[:, where[1], :]
plane = np.array([(e, t) for e in one.axis("emission").values for t in times])
ok = np.flatnonzero(np.isfinite(slab.ravel()))
pick, rest = np.split(np.random.default_rng(0).permutation(ok), [60])
small = FunctionalTucker(noise="constant").fit(plane[pick], slab.ravel()[pick])
drawn = nuts(small, plane[pick], slab.ravel()[pick], fixed=True, num_samples=150, warmup=50, chains=1)
exact_mean, exact_std = small.predict(plane[rest], return_std=True)
drawn_mean, drawn_std = drawn.predict(plane[rest], return_std=True)
apart = rmse((drawn_mean - exact_mean) / exact_std)
wider = float(np.median(drawn_std / exact_std))
print(drawn.info)
print(f"means differ by {apart:.2f} sd, bands are {wider:.2f} times as wide, over {len(rest)} indices")
assert apart < 0.3
assert 0.85 < wider < 1.15

# %% [markdown]
# Without `fixed=True` the hyperparameters are drawn as well (a minute). With few rows the bands then become
# wider, because the smoother takes the learned ones for known.
#
# ## What would make this fail
#
# * **Times kept in the wrong places.** With nothing between 0 and 5 min the fast part is a guess. The bands
#   there grow, but they cannot know of a step that no other fibre shows.
# * **Extrapolation.** Beyond the last time the mean goes back to the average and the bands open. That is
#   honest, not useful. See the next tutorial for one step ahead.
# * **A new mixture.** Nothing is said of a sample that was never observed: labels have no neighbours.
# * **Noise that grows with the signal, or outliers.** The bands are then too wide in one place and too
#   narrow in another; `coverage_by_quartile` shows it. `likelihood="student_t"` and `noise="slice"` exist.
# * **A structure that is not a mixture of products**, such as a peak that moves through the wavelengths. It
#   needs many functions, and few readings cannot pay for them.
