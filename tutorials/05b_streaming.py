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
# # Watching a reaction: the next landscape before it arrives
#
# The fluorescence of a reacting mixture comes in as one landscape every 20 s: 12 emission x 10 excitation
# wavelengths. After five minutes the first 15 are there, and the reaction goes on for another fifteen. **What
# will the next landscape be, how sure are we, and can the model keep up without being fitted again each
# time?**
#
# `FunctionalTucker.partial_fit` takes rows as they come. Along the longest mode, here time, the model is a
# Kalman filter: a slice after the last one costs one step, and the posterior is that of all rows at once.
# The hyperparameters stay those of the first fit.

# %%
import copy
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tenfac import FunctionalTucker, datasets, plot

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
plt.rcParams.update({"grid.color": "0.9"})
data = datasets.load_kinetic().select("sample", [0])
cube = data.values[0]
emission, excitation, times = (mode.values for mode in data.modes[1:])
print(data)


def landscape(*numbers: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows of the landscapes with these numbers: index values by name, and what was read."""
    columns = np.meshgrid(emission, excitation, times[list(numbers)], indexing="ij")
    read = cube[:, :, list(numbers)]
    there = np.isfinite(read)
    names = ("emission", "excitation", "time")
    return {name: c[there] for name, c in zip(names, columns, strict=True)}, read[there]


# %% [markdown]
# ## Five minutes to learn from
#
# `checkpoint=` keeps every step of the search in a file. Were the process killed, the same line would go on
# where it was, to the same bits; here it is called twice, and the second call has nothing left to do.

# %%
first = range(15)
with tempfile.TemporaryDirectory() as folder:
    model = FunctionalTucker().fit(*landscape(*first), checkpoint=Path(folder) / "first.log")
    again = FunctionalTucker().fit(*landscape(*first), checkpoint=Path(folder) / "first.log")
print(model.info_)
print(f"noise {model.noise_:.1f} {data.unit}; time is mode {model.exact_mode_}, exact")
assert again.log_evidence_ == model.log_evidence_

# %% [markdown]
# ## Forecast, then look, then learn
#
# Each landscape is predicted before the model sees it. Three plain forecasts stand beside: the last
# landscape, a straight line through the last two, and the mean of all so far.

# %%
stream = np.arange(15, 60)
forecast, spread = np.full((2, *cube.shape), np.nan)
learner, seconds = copy.deepcopy(model), []
for t in stream:
    rows, read = landscape(t)
    there = np.isfinite(cube[:, :, t])
    start = time.process_time()
    forecast[there, t], spread[there, t] = learner.predict(rows, return_std=True, include_noise=True)
    learner.partial_fit(rows, read)
    seconds.append(time.process_time() - start)

past = np.nancumsum(cube, axis=2) / np.cumsum(np.isfinite(cube), axis=2)
rivals = {
    "running mean": past[..., stream - 1],
    "line through two": 2 * cube[..., stream - 1] - cube[..., stream - 2],
    "last landscape": cube[..., stream - 1],
    "FunctionalTucker": forecast[..., stream],
}
rmse = {name: np.sqrt(np.nanmean((guess - cube[..., stream]) ** 2)) for name, guess in rivals.items()}
for name, value in rmse.items():
    print(f"{name:16} RMSE {value:5.1f} {data.unit}")
assert rmse["FunctionalTucker"] < 0.85 * rmse["last landscape"]

# %% [markdown]
# Landscapes change little in 20 s once the reaction has slowed down, so the last one is a good forecast, but
# it repeats the noise of one reading. The filter has averaged that noise over wavelengths and over time.
#
# ## Are the bands right, all along the stream?

# %%
inside = np.abs(forecast - cube) < 1.96 * spread
there = np.isfinite(cube[..., stream])
coverage = inside[..., stream][there].mean()
by_part = [inside[..., part][np.isfinite(cube[..., part])].mean() for part in np.split(stream, 3)]
print(f"95 % bands hold {100 * coverage:.1f} % of the next readings; by thirds:", np.round(by_part, 3))
assert 0.92 < coverage < 0.98
assert min(by_part) > 0.9

fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(2, 1))
i, j = np.unravel_index(np.argmax(np.nanmean(cube, axis=2)), cube.shape[:2])
low, high = (forecast[i, j, stream] + sign * 1.96 * spread[i, j, stream] for sign in (-1, 1))
axes[0].fill_between(times[stream], low, high, color="#0072B2", alpha=0.22, lw=0, step="mid")
axes[0].step(times[stream], forecast[i, j, stream], where="mid", color="#0072B2", label="forecast, 95 % band")
axes[0].plot(times[:15], cube[i, j, :15], "o", ms=3.5, color="0.6", label="learned from first")
axes[0].plot(times[stream], cube[i, j, stream], ".", ms=5, color="0.2", label="what came")
axes[0].set(xlabel="time (min)", ylabel=f"fluorescence ({data.unit})")
axes[0].set_title(f"emission {emission[i]:g} nm, excitation {excitation[j]:g} nm")
axes[0].legend(frameon=False, loc="lower right")
future = cube[..., stream][there]
plot.calibration(future, forecast[..., stream][there], spread[..., stream][there], ax=axes[1])
axes[1].set_title("all forecasts")

# %% [markdown]
# ## The same as all at once
#
# Given the hyperparameters, nothing is lost by taking one slice at a time. Two other models get the same 45
# landscapes in one call, and the later ones before the earlier ones. The stream forecasts from its filter
# alone; the others are first asked for the past, so that they solve for all times anew.

# %%
at_once = copy.deepcopy(model).partial_fit(*landscape(*stream))
swapped = copy.deepcopy(model).partial_fit(*landscape(*stream[25:])).partial_fit(*landscape(*stream[:25]))
rows, read = landscape(59)
rows["time"] = rows["time"] + 1 / 3  # 20 s after the last one
mean, std = learner.predict(rows, return_std=True)
for name, other in (("in one call", at_once), ("swapped", swapped)):
    other.predict(landscape(*range(60))[0])
    mean_2, std_2 = other.predict(rows, return_std=True)
    apart = max(np.abs(mean_2 / mean - 1).max(), np.abs(std_2 / std - 1).max())
    evidence = abs(other.log_evidence_ / learner.log_evidence_ - 1)
    print(f"{name:11}: the next forecast differs by {apart:.0e}, log evidence by {evidence:.0e}")
    assert apart < 1e-8
    assert evidence < 1e-8

# %% [markdown]
# ## What fitting again would cost, and bring
#
# A new fit learns the hyperparameters from all rows so far. Those of the first five minutes were nearly
# right.

# %%
gains, again_seconds = [], []
for t in (30, 45, 59):
    start = time.process_time()
    fitted = FunctionalTucker().fit(*landscape(*range(t)))
    again_seconds.append(time.process_time() - start)
    rows, read = landscape(t)
    ours = forecast[..., t][np.isfinite(cube[..., t])]
    gains.append(np.sqrt(np.mean((fitted.predict(rows) - read) ** 2) / np.mean((ours - read) ** 2)))
    print(f"landscape {t + 1}: error of a new fit / error of the stream {gains[-1]:.2f}")
ratio = np.mean(again_seconds) / np.mean(seconds)
print(f"a new fit takes {ratio:.0f} times as long as a forecast and an update")
assert ratio > 10

# %% [markdown]
# ## What would make this fail
#
# * **A start that is not like the rest.** Lengthscales, noise and scaling stay those of the first fit. If the
#   reaction were to do something new after five minutes, the bands would stay too narrow: watch the coverage,
#   and fit again when it falls.
# * **Far forecasts.** One step ahead, the band is hardly wider than the noise. Ten steps ahead the forecast
#   goes back to the average, and the band opens.
# * **Rows that arrive late.** They are taken, but the filter runs again from their time on; only rows at the
#   end cost one step.
# * **Other noise.** `partial_fit` needs Gaussian noise, alike in all rows; counts and Student's noise have to
#   be fitted again.
# * **A mode other than time that grows.** New labels are taken in the exact mode only.
