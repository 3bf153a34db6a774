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
# # An option price in four variables, computed once and looked up to ten digits
#
# **A model price is an integral, and calibration asks for it a hundred thousand times, with its
# derivatives. Can a table replace it without anybody noticing, and who says so?**
#
# Here the price is that of a call option in Heston's model, where the variance of the stock is random
# itself. As a share of the price of the stock, with log moneyness $k = \log(K/S)$, maturity $T$, variance
# today $v$ and correlation $\rho$, it is a Fourier integral of the known characteristic function
# $\varphi = e^{C + D v}$,
#
# $$c(k, T, v, \rho) = 1 - \frac{e^{k/2}}{\pi} \int_0^\infty
# \frac{\operatorname{Re}\, e^{-iuk}\, \varphi(u - i/2;\, T, v, \rho)}{u^2 + 1/4}\, du .$$
#
# `chebyshev_tucker` samples it where it must, finds the degrees and ranks that ten digits need, and says so
# if it cannot.

# %%
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import dblquad
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import least_squares

from tenfac import chebyshev_tucker, load, plot, save, split, to_xarray

KAPPA, THETA, SIGMA = 1.5, 0.06, 0.5  # speed, level and volatility of the variance
NAMES = ["log moneyness", "maturity", "variance", "correlation"]
LABELS = ["log moneyness", "maturity (years)", "variance (1 / year)", "correlation"]
BOX = [(-0.2, 0.2), (0.5, 2.0), (0.03, 0.12), (-0.9, -0.3)]


def characteristic(u, T, rho):
    """C and D of Heston's characteristic function exp(C + D v), in the form without branch cuts."""
    b = KAPPA - rho * SIGMA * 1j * u
    d = np.sqrt(b * b + SIGMA**2 * (1j * u + u * u))
    g, decay = (b - d) / (b + d), np.exp(-d * T)
    C = KAPPA * THETA / SIGMA**2 * ((b - d) * T - 2 * np.log((1 - g * decay) / (1 - g)))
    return C, (b - d) / SIGMA**2 * (1 - decay) / (1 - g * decay)


def fourier(k, T, v, rho, nodes=128, end=400.0):
    """Gauss points u (equal in asinh u / 2), D there, and terms whose real parts add up to the integral."""
    y, w = np.polynomial.legendre.leggauss(nodes)
    top = np.arcsinh(end / 2)
    s = ((y + 1) / 2 * top).reshape(-1, *(1,) * np.ndim(k))
    u, w = 2 * np.sinh(s), (w * top / 2).reshape(s.shape) * 2 * np.cosh(s)
    C, D = characteristic(u - 0.5j, T, rho)
    return u, D, np.exp(k / 2) / np.pi * w * np.exp(C + D * v - 1j * u * k) / (u * u + 0.25)


def price(k, T, v, rho, nodes=128):
    """Price of a call, as a share of the price of the stock."""
    _, _, terms = fourier(k, T, v, rho, nodes)
    return 1 - terms.real.sum(axis=0)


# %% [markdown]
# ## Build it, and count
#
# The count is of single prices. The check is at 4,000 points that the construction never saw, and at all 16
# corners, against a quadrature with twice as many nodes.

# %%
count = 0


def counted(k, T, v, rho):
    global count
    count += k.size
    return price(k, T, v, rho)


clock = time.perf_counter()
F = chebyshev_tucker(counted, BOX, tol=1e-10)
seconds = time.perf_counter() - clock
print(F)
print(f"{count:,} prices in {seconds:.1f} s; {F.info.reason}, estimated error {F.info.rel_error:.1e}")
assert F.info.converged
assert count == F.info.n_evals

low, high = np.array(BOX).T
rng = np.random.default_rng(1)
points = low[:, None] + (high - low)[:, None] * rng.random((4, 4000))
points[:, :16] = np.stack(np.meshgrid(*BOX, indexing="ij")).reshape(4, 16)
truth = price(*points, nodes=256)
error = np.abs(F.at(*points) - truth) / truth.max()
print(f"largest error {error.max():.1e} of the largest price, {truth.max():.3f} S")
assert error.max() < 1e-10

# %% [markdown]
# ## The plain baseline: a table with spline interpolation
#
# Splines on a regular grid gain a fixed power of the step, and in four variables the step shrinks with the
# fourth root of the number of prices. The last table has the storage of `F`, and nearly its number of prices.

# %%
side = int(F.n_params**0.25)
cost = {"tenfac": [], "cubic table": [], "linear table": []}
for tol in (1e-2, 1e-4, 1e-6, 1e-8):
    rough = chebyshev_tucker(price, BOX, tol=tol)
    cost["tenfac"].append((rough.info.n_evals, np.abs(rough.at(*points) - truth).max() / truth.max()))
cost["tenfac"].append((count, error.max()))
for size in (4, 7, side):
    axes = [np.linspace(*pair, size) for pair in BOX]
    table = price(*np.meshgrid(*axes, indexing="ij"))
    for method in ("linear", "cubic"):
        guess = RegularGridInterpolator(axes, table, method=method)(points.T)
        cost[f"{method} table"].append((table.size, np.abs(guess - truth).max() / truth.max()))

print(f"F holds {F.n_params:,} numbers from {count:,} prices, the last table {table.size:,} prices")
fig, ax = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
for name, row in cost.items():
    ax.loglog(*np.transpose(row), "o-", label=name)
    print(f"{name:13} largest error {row[-1][1]:.1e}")
ax.set(xlabel="prices computed", ylabel="largest error / largest price")
ax.legend(frameon=False)
assert cost["tenfac"][-1][1] < 1e-6 * cost["cubic table"][-1][1] < 1e-6 * cost["linear table"][-1][1]

# %% [markdown]
# ## Look at it
#
# A slice through the box, and two pictures of why so few numbers suffice: the Chebyshev coefficients and the
# singular values of every variable fall like straight lines, which means that the function is analytic.

# %%
fig, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
plot.function_slice(F, {2: 0.06, 3: -0.7}, axes[0], names=LABELS, label="price / S")
plot.coefficient_decay(F, axes[1], names=NAMES)
plot.singular_values(F, axes[2], names=NAMES)

# %% [markdown]
# ## Derivatives: the Greeks
#
# `value_and_grad` differentiates the polynomials exactly. The sensitivities to $k$ and $v$ have Fourier
# integrals of their own (a factor $iu - 1/2$, a factor $D$), those to maturity and correlation are compared
# with central differences of the quadrature, which have seven digits at best.

# %%
some = points[:, 16:1016]
value, gradient = F.value_and_grad(*some)
u, D, terms = fourier(*some)
exact = {
    "log moneyness": ((1j * u - 0.5) * terms).real.sum(axis=0),
    "variance": -(D * terms).real.sum(axis=0),
}
for n in (1, 3):
    step = np.zeros((4, 1))
    step[n] = 1e-4 * (high - low)[n]
    inside = np.clip(some, low[:, None] + step, high[:, None] - step)
    exact[NAMES[n]] = (price(*(inside + step)) - price(*(inside - step))) / (2 * step[n])
    gradient[:, n] = F.diff(n).at(*inside)
greeks = {}
for name, want in exact.items():
    greeks[name] = np.abs(gradient[:, NAMES.index(name)] - want).max() / np.abs(want).max()
    print(f"d price / d {name:13}  largest error {greeks[name]:.1e}")
assert max(greeks["log moneyness"], greeks["variance"]) < 5e-8
assert max(greeks["maturity"], greeks["correlation"]) < 1e-6

# %% [markdown]
# ## Integrals: a price when the model is not certain
#
# Averaged over a box of variances and correlations, the price is an integral over two of the variables:
# `restrict` to the box, `integrate` them away, and what is left is a function of moneyness and maturity.
# `scipy` needs a double integral for each single contract.

# %%
ranges = [None, None, (0.04, 0.09), (-0.8, -0.5)]
area = (0.09 - 0.04) * 0.3
mean = F.restrict(ranges).integrate([2, 3]) / area
print(mean)
for contract in ((-0.1, 1.0), (0.15, 0.6)):
    ordinary, _ = dblquad(lambda rho, v, c=contract: price(*c, v, rho), *ranges[2], *ranges[3], epsabs=1e-12)
    gap = abs(mean.at(*contract) - ordinary / area)
    print(f"k, T = {contract}: {mean.at(*contract):.12f}, apart from dblquad by {gap:.1e}")
    assert gap < 1e-11

# %% [markdown]
# ## What it is for: calibration
#
# Seventy quotes, made with $v = 0.052$, $\rho = -0.71$. Least squares with exact gradients finds both again.

# %%
k, T = (x.ravel() for x in np.meshgrid(np.linspace(-0.18, 0.18, 10), np.linspace(0.55, 1.95, 7)))
quotes = price(k, T, 0.052, -0.71)
clock = time.perf_counter()
fit = least_squares(
    lambda p: F.at(k, T, *p) - quotes,
    x0=[0.1, -0.4],
    jac=lambda p: F.value_and_grad(k, T, *p)[1][:, 2:],
    bounds=([0.03, -0.9], [0.12, -0.3]),
    x_scale=[0.05, 0.5],
    xtol=1e-14,
    ftol=1e-14,
    gtol=1e-14,
)
print(f"v = {fit.x[0]:.9f}, rho = {fit.x[1]:.8f}, {fit.nfev} steps, {time.perf_counter() - clock:.2f} s")
assert np.abs(fit.x - [0.052, -0.71]).max() < 1e-7

# %% [markdown]
# ## Smaller, faster, elsewhere
#
# `round` trades digits for storage, `split` trades storage for speed (boxes of smaller rank), `save` writes
# one file without pickle, `to_xarray` gives a table with names. Speeds are of this machine.

# %%
many = low[:, None] + (high - low)[:, None] * rng.random((4, 50_000))


def speed(call, size: int) -> str:
    clock = time.perf_counter()
    call(*many[:, :size])
    return f"{size / (time.perf_counter() - clock):10,.0f} prices / s"


small, boxes = F.round(tol=1e-6), split(F, [2, 2, 2, 2], tol=1e-10)
rounded = np.abs(small.at(*points) - truth).max() / truth.max()
print(f"quadrature           {speed(price, 2000)}")
print(f"F, 1e-10             {speed(F.at, 50_000)}, {F.n_params:,} numbers")
print(f"F.round(tol=1e-6)    {speed(small.at, 50_000)}, {small.n_params:,} numbers, error {rounded:.0e}")
print(f"split, 1e-10         {speed(boxes.at, 50_000)}, {boxes.n_params:,} numbers")
assert rounded < 1e-6
assert np.abs(boxes.at(*points) - truth).max() < 1e-10 * truth.max()

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "heston.tenfac"
    save(F, path)
    print(f"saved: {path.stat().st_size / 1024:.0f} kB")
    again = load(path)
assert (again.at(*points) == F.at(*points)).all()
sheet = to_xarray(
    F.fix({2: 0.06, 3: -0.7}),
    ("k", "T"),
    {"k": [-0.1, 0.0, 0.1], "T": [0.5, 1.0, 2.0]},
    name="price / S",
)
print(sheet.round(6))

# %% [markdown]
# ## Where it says no
#
# On the day of expiry the price is $\max(1 - e^k, 0)$: a kink, which no polynomial takes. The construction
# says so, with the variable and the place, after a few thousand values. A kink that lies *across one
# variable* is cut there: on each side the function is smooth, and a few hundred values are enough.


# %%
def at_expiry(k, notional):
    return notional * np.maximum(1 - np.exp(k), 0)


def attempt(f, box, tol):
    """Build, and keep the warning as text."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = chebyshev_tucker(f, box, tol)
    words = "; ".join(str(warning.message) for warning in said) or "converged"
    print(f"{made.info.n_evals:7,} values, degree {made.degree}, rank {made.rank}\n        {words}")
    return made


whole = attempt(at_expiry, [(-0.2, 0.3), (1, 2)], 1e-10)
left = attempt(at_expiry, [(-0.2, 0.0), (1, 2)], 1e-10)
right = attempt(at_expiry, [(0.0, 0.3), (1, 2)], 1e-10)
assert [made.info.converged for made in (whole, left, right)] == [False, True, True]
assert "mode 0" in whole.info.warnings[0]

# %% [markdown]
# A kink *along a diagonal*, or a cusp in a point such as $e^{-r}$, $r = \sqrt{x^2 + y^2 + z^2}$, cannot be
# cut away by intervals of $x$, $y$ and $z$. The remedy is a better variable: here $r$ itself, of which
# $e^{-r}$ is analytic. (In the same way the price above was written in $\log(K/S)$, not in $K$ and $S$.)


# %%
def cusp(x, y, z):
    return np.exp(-np.sqrt(x * x + y * y + z * z))


honest = attempt(cusp, [(-1, 1)] * 3, 1e-6)
radial = attempt(lambda r: np.exp(-r), [(0, np.sqrt(3))], 1e-12)
assert [honest.info.converged, radial.info.converged] == [False, True]

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
plot.coefficient_decay(whole, axes[0], names=["log moneyness", "notional"])
axes[0].set_title("a kink: coefficients fall like a power", fontsize=10)
plot.coefficient_decay(F, axes[1], names=NAMES)
axes[1].set_title("half a year before: they fall geometrically", fontsize=10)

# %% [markdown]
# ## What would make this fail
#
# * **A kink or step in the box**: maturities down to zero, barriers, early exercise. `info.converged` is
#   False; cut the domain there, or change variables so that the kink lies across one of them.
# * **Noise.** A Monte Carlo price has digits that are noise, and they cannot be resolved; ask for a `tol`
#   above the noise, or fit `FunctionalTucker`, which learns how large it is.
# * **A narrow peak that nobody points at.** What is as narrow as a thousandth of the box may be missed by
#   every sample: pass `hints=`.
# * **Many variables that all interact.** The core has as many axes as there are variables: in four it holds
#   most of the numbers here. Beyond four it becomes a tensor train, up to about ten variables; its ranks grow
#   where all of them interact.
# * **Outside the box** nothing is known: `at` refuses.
