"""Random walks of lithium through a framework that only vibrates: trajectories whose diffusivity is known."""

from __future__ import annotations

import numpy as np
from ase.build import bulk

from hpcgen.crystal import from_atoms
from hpcgen.dynamics import Trajectory

STEP, INTERVAL = 2.5, 20.0  # angstrom, fs


def walk(seed: int, chance: float, frames: int = 2000, temperature: float = 1000.0, drift: float = 0.0) -> Trajectory:
    """32 lithium ions, each of which hops along an axis in a frame with this chance; atoms vibrate by 0.15 angstrom.

    `drift`: angstrom by which everything moves in a frame, as without fixing the centre of mass.
    """
    rng = np.random.default_rng(seed)
    crystal = from_atoms(bulk("LiF", "rocksalt", a=4.0, cubic=True) * (2, 2, 2))
    ions = crystal.numbers == 3
    n = int(ions.sum())
    hops = np.zeros((frames, n, 3))
    size = rng.choice([-STEP, STEP], (frames, n)) * (rng.random((frames, n)) < chance)
    np.put_along_axis(hops, rng.integers(0, 3, (frames, n))[..., None], size[..., None], 2)
    positions = np.tile(crystal.cart, (frames, 1, 1)) + 0.15 / 3**0.5 * rng.standard_normal((frames, len(crystal), 3))
    positions[:, ions] += np.cumsum(hops, axis=0)
    positions += drift * np.arange(frames)[:, None, None]
    return Trajectory(crystal, positions, INTERVAL, temperature, temperature, 0.0)


def known_diffusivity(chance: float) -> float:
    """cm^2/s: a hop of `STEP` in every direction, D = rate * step^2 / 6."""
    return chance / INTERVAL * STEP**2 / 6 / 10
