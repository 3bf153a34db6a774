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
# # The electric potential of a large molecule: one smooth tensor for all its charges
#
# **What is the potential around a large molecule, at any point, with its gradient, to six digits?** Adding up
# all charges answers it, at a cost that grows with the molecule for every single point. `Electrostatics`
# splits Coulomb's law exactly,
#
# $$\frac1r = \underbrace{\frac{\operatorname{erf}(\alpha r)}{r}}_\text{smooth} +
# \underbrace{\frac{\operatorname{erfc}(\alpha r)}{r}}_\text{short},$$
#
# writes the smooth parts of *all* charges as one Tucker tensor with Chebyshev polynomials for its axes, and
# adds the short parts of near neighbors. The rank of that tensor depends on $\alpha$, not on how many
# charges there are.
#
# No protein file comes with the package, so the molecule here is made up: a self-avoiding chain of 2,500
# atoms with partial charges, as dense as a folded protein. `read_charges("molecule.pqr")` reads a real one.

# %%
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import erf

from tenfac import Electrostatics


def chain(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A compact self-avoiding walk with steps of 1.5 angstrom, and residues of 8 partial charges each."""
    rng = np.random.default_rng(seed)
    radius = (3 * count / (4 * np.pi * 0.06)) ** (1 / 3)  # 0.06 atoms per cubic angstrom
    places = np.zeros((count, 3))
    n = 1
    while n < count:
        moves = rng.standard_normal((40, 3))
        new = places[n - 1] + 1.5 * moves / np.linalg.norm(moves, axis=1)[:, None]
        nearest = np.sqrt(((places[:n, None] - new) ** 2).sum(axis=2).min(axis=0))
        free = (nearest > 1.2) & (np.linalg.norm(new, axis=1) < radius)
        if free.any():
            places[n] = new[np.argmax(free)]
            n += 1
        else:
            n = max(n - int(rng.integers(1, 60)), 1)  # a dead end: go back
    charges = rng.uniform(-0.6, 0.6, count)
    for residue in np.array_split(np.arange(count), count // 8):
        charges[residue] += rng.choice([-1, 0, 0, 0, 1]) / len(residue) - charges[residue].mean()
    return places, charges


positions, charges = chain(2500)
distance = cKDTree(positions).query(positions, k=2)[0][:, 1].min()
print(f"{len(charges)} atoms, closest pair {distance:.2f} A, net charge {charges.sum():.1f} e")

# %% [markdown]
# ## Build, and compare with the direct sum

# %%
clock = time.process_time()
molecule = Electrostatics(positions, charges, alpha=0.25, tol=1e-6)
print(molecule)
seconds = time.process_time() - clock
print(f"built in {seconds:.2f} s; {molecule.long_range.n_params:,} numbers hold the smooth part")


def direct(positions: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Potential and field at every charge, by all pairs."""
    value, field = np.zeros(len(charges)), np.zeros((len(charges), 3))
    for n, place in enumerate(positions):
        delta = place - positions
        r = np.linalg.norm(delta, axis=1)
        r[n] = np.inf
        value[n] = charges @ (1 / r)
        field[n] = (charges / r**3) @ delta
    return value, field


value, field = direct(positions, charges)
energy, forces = value @ charges / 2, charges[:, None] * field
errors = {
    "potential": np.abs(molecule.potential() - value) / np.abs(value).max(),
    "forces": np.linalg.norm(molecule.forces() - forces, axis=1) / np.linalg.norm(forces, axis=1).max(),
}
energy_error = abs(molecule.energy() - energy) / abs(energy)
for name, error in errors.items():
    print(f"{name:10} largest relative error {error.max():.1e}")
print(f"energy     {float(molecule.energy()):.6f} e^2/A, relative error {energy_error:.1e}")
assert max(errors["potential"].max(), errors["forces"].max(), energy_error) < 1e-6

# %%
fig, ax = plt.subplots(figsize=(6.4, 3.4))
for name, error in errors.items():
    ax.hist(np.log10(error + 1e-16), bins=60, histtype="step", lw=1.6, label=name)
ax.axvline(-6, color="0.4", ls="--", label="tol")
ax.set(xlabel="log10 of the relative error", ylabel="atoms", xlim=(-12, -5.5))
ax.legend(frameon=False, loc="upper left")
fig.tight_layout()

# %% [markdown]
# ## A slice through the molecule
#
# The smooth part is a function: evaluate it anywhere. `molecule.potential(points)` adds the near charges.

# %%
(x0, x1), (y0, y1), _ = molecule.domain
x, y = np.meshgrid(np.linspace(x0, x1, 160), np.linspace(y0, y1, 160), indexing="ij")
grid = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
pictures = {
    "smooth part": molecule.long_range.at(*grid.T),
    "total": molecule.potential(grid),
}
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.9), sharey=True)
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    image = ax.pcolormesh(
        x, y, 14.4 * picture.reshape(x.shape), cmap="RdBu_r", vmin=-8, vmax=8, rasterized=True
    )
    ax.set(xlabel="x (Å)", title=name, aspect="equal")
axes[0].set_ylabel("y (Å)")
fig.colorbar(image, ax=axes, label="potential at z = 0 (V)", shrink=0.9)

# %% [markdown]
# ## What a point costs, beside the plain sum
#
# CPU time of one point: the whole potential at scattered points, with the split that `Electrostatics` chooses
# itself, and the smooth part on a grid of a million points, as a map for docking needs it. Beside both, the
# sum over all charges.


# %%
def summed(points: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Charges times a kernel of their distances, added up in blocks that stay in the cache."""
    return np.concatenate([kernel(cdist(block, positions)) @ charges for block in np.split(points, 20)])


def seconds_of(job: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """CPU seconds, the best of three runs, and the result."""
    best = np.inf
    for _ in range(3):
        clock = time.process_time()
        found = job()
        best = min(best, time.process_time() - clock)
    return best, found


built = Electrostatics(positions, charges, tol=1e-6)
points = np.random.default_rng(4).uniform(*np.transpose(built.domain), (2000, 3))
lines = [np.linspace(*pair, 100) for pair in molecule.domain]
spots = np.random.default_rng(5).integers(100, size=(2000, 3))
on_grid = np.stack([line[at] for line, at in zip(lines, spots.T, strict=True)], axis=1)
rows = {}
ours, got = seconds_of(lambda: built.potential(points))
plain, want = seconds_of(lambda: summed(points, lambda r: 1 / r))
rows["whole, scattered"] = ours / 2000, plain / 2000, np.abs(got - want).max() / np.abs(want).max()
ours, cube = seconds_of(lambda: molecule.long_range.on_grid(*lines))
plain, want = seconds_of(lambda: summed(on_grid, lambda r: erf(molecule.alpha * r) / r))
off = np.abs(cube[tuple(spots.T)] - want).max() / np.abs(want).max()
rows["smooth, on a grid"] = ours / cube.size, plain / 2000, off
for name, (ours, plain, off) in rows.items():
    print(f"{name:16} {1e9 * ours:7,.0f} ns, plain sum {1e9 * plain:7,.0f} ns; largest error {off:.0e}")
    assert off < 1e-6
assert rows["smooth, on a grid"][0] < 0.02 * rows["smooth, on a grid"][1]

# %% [markdown]
# For single values the plain sum is a match for it, at this size and up to some ten thousand charges. The
# gain is that the smooth part is a *function*: a grid of it costs next to nothing, and so do its derivatives
# and integrals.
#
# ## The rank does not grow
#
# Charges of a random gas in a fixed box, the chain cut to its first atoms, and rock salt, all split at the
# same $\alpha$ in units of the box: six per half box. A crystal repeats itself, and needs next to nothing.


# %%
def salt(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Rock salt, ``edge`` ions a side, 2.82 angstrom apart."""
    cells = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return 2.82 * cells, (-1.0) ** cells.sum(axis=1)


def rank_of(places: np.ndarray, z: np.ndarray) -> int:
    low, high = places.min(axis=0), places.max(axis=0)
    return max(Electrostatics(places, z, alpha=6 / (0.55 * (high - low).max()), tol=1e-6).long_range.rank)


rng = np.random.default_rng(1)
systems = {
    "random gas": [(rng.uniform(0, 1, (n, 3)), rng.choice([-1.0, 1.0], n)) for n in (200, 1000, 4000)],
    "chain": [(positions[:n], charges[:n]) for n in (300, 1000, 2500)],
    "rock salt": [salt(edge) for edge in (6, 10, 16)],
}
ranks = {name: [rank_of(*system) for system in row] for name, row in systems.items()}
fig, ax = plt.subplots(figsize=(6.0, 3.4))
for name, row in ranks.items():
    sizes = [len(z) for _, z in systems[name]]
    ax.semilogx(sizes, row, "o-", label=name)
    print(f"{name:10} N = {sizes}, rank {row}")
ax.set(xlabel="charges", ylabel="rank of the smooth part", ylim=(0, None))
ax.set_xticks([200, 500, 1000, 2000, 4000], ["200", "500", "1000", "2000", "4000"])
ax.minorticks_off()
ax.legend(frameon=False)
fig.tight_layout()
assert max(ranks["random gas"]) - min(ranks["random gas"]) <= 3
assert max(ranks["rock salt"]) <= 8

# %% [markdown]
# ## What would make this fail
#
# * **Long molecules in one box.** The shorter the reach of the short part against the box, the larger
#   $\alpha$ in units of the box, and the rank grows in proportion; storage then grows like the volume.
# * **Single values.** Up to some ten thousand charges a compiled double loop over them is hard to beat, as
#   measured above, also for one energy. The tensor pays where a fixed molecule is asked for maps, for
#   derivatives, or for a file of its field.
# * **Periodic boundaries.** Images are not summed: this is free space. Ewald methods are for crystals
#   without end.
# * **A solvent.** `kappa` screens like salt water in Debye and Hückel's theory; a dielectric boundary is
#   another equation.
