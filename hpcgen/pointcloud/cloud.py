"""A crystal as a cloud of points, and the scales between a cloud and the array that a network sees.

PCCD (Li et al., iScience 28, 111659, "Data expression") writes a crystal as an array of three channels by P points by
three columns:

    position (P, 3)   fractional coordinates; each of the n atoms is repeated P // n or P // n + 1 times
    element  (P, E)   one-hot: which of the E given elements, the *slots*, a point is
    lattice  (P, 3)   rows 0 .. P/2: alpha, beta, gamma; the other rows: a, b, c

Where this differs from the paper: the remainder P % n is spread over the atoms (one atom got it all), lengths have no
upper limit (15 angstrom), and the number of points, elements and sites are settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray, lattice_parameters

DEGREES = 180.0  # what angles are divided by in a cloud
ANGLE_FLOOR = 2.0  # degrees: angles that vary less are as good as fixed
LENGTH_FLOOR = 0.02  # of log length, about 2 %: likewise
POSITION_SCALE = 1 / np.sqrt(12.0)  # standard deviation of what is uniform in [0, 1)


class Cloud(NamedTuple):
    """One cloud, or a batch of them with leading dimensions, in scaled units; see `CloudCodec`.

    Attributes:
        position: (..., P, 3) fractional coordinates in [0, 1).
        element: (..., P, E) likelihood of each slot, 0 to 1; one-hot in an encoded cloud.
        lattice: (..., P, 3) rows 0 .. P // 2 angles / 180 degrees, the others lengths / `length_unit`.
    """

    position: NDArray[Any]
    element: NDArray[Any]
    lattice: NDArray[Any]


@dataclass(frozen=True)
class CloudScales:
    """Sizes of a cloud, and statistics of the training split that its lattice rows are scaled by.

    Attributes:
        points: P.
        elements: E, slots of a cloud.
        max_sites: atoms of the largest crystal that is meant.
        length_unit: angstrom, what lengths are divided by in a cloud: the geometric mean of the training lengths.
        angle_mean, angle_spread: (3,) degrees, of alpha, beta, gamma.
        length_mean, length_spread: (3,) of log(a, b, c / `length_unit`).

    Raises:
        ValueError: for sizes that no cloud has, or statistics that are not finite or positive.
    """

    points: int = 128
    elements: int = 3
    max_sites: int = 16
    length_unit: float = 6.0
    angle_mean: tuple[float, ...] = (90.0, 90.0, 90.0)
    angle_spread: tuple[float, ...] = (20.0, 20.0, 20.0)
    length_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    length_spread: tuple[float, ...] = (0.4, 0.4, 0.4)

    def __post_init__(self) -> None:
        if self.elements < 1 or not 1 <= self.max_sites <= self.points or self.points < 2:
            raise ValueError(f"no cloud: {self.points} points, {self.elements} elements, {self.max_sites} sites")
        numbers = (self.angle_mean, self.angle_spread, self.length_mean, self.length_spread)
        if not (all(len(v) == 3 for v in numbers) and np.isfinite(numbers).all() and np.isfinite(self.length_unit)):
            raise ValueError(f"the statistics of the lattice are not three finite numbers each: {numbers}")
        if min(*self.angle_spread, *self.length_spread, self.length_unit) <= 0:
            raise ValueError(f"spreads and unit of the lattice must be positive: {numbers}, {self.length_unit}")

    @classmethod
    def fit(cls, crystals: Sequence[Crystal], *, points: int, elements: int, max_sites: int) -> CloudScales:
        """The statistics of the training split.

        Raises:
            ValueError: if there is no crystal, or for impossible sizes.
        """
        if not crystals:
            raise ValueError("the statistics of a lattice need at least one crystal")
        parameters = lattice_parameters(np.array([c.lattice for c in crystals]))
        lengths, angles = np.log(parameters[:, :3]), parameters[:, 3:]
        unit = lengths.mean()
        return cls(
            points=points,
            elements=elements,
            max_sites=max_sites,
            length_unit=float(np.exp(unit)),
            angle_mean=_three(angles.mean(0)),
            angle_spread=_three(np.maximum(angles.std(0), ANGLE_FLOOR)),
            length_mean=_three(lengths.mean(0) - unit),
            length_spread=_three(np.maximum(lengths.std(0), LENGTH_FLOOR)),
        )

    def state(self) -> dict[str, Any]:
        """Numbers and lists of numbers."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CloudScales:
        """The scales as `state` saved them.

        Raises:
            KeyError, TypeError, ValueError: if they are not those of a cloud.
        """
        return cls(
            points=int(state["points"]),
            elements=int(state["elements"]),
            max_sites=int(state["max_sites"]),
            length_unit=float(state["length_unit"]),
            angle_mean=_three(state["angle_mean"]),
            angle_spread=_three(state["angle_spread"]),
            length_mean=_three(state["length_mean"]),
            length_spread=_three(state["length_spread"]),
        )


@dataclass(frozen=True)
class CloudCodec:
    """Encodes crystals as clouds, and maps clouds to arrays for a network and back.

    The array is (3, P, W) float32, W = max(3, E): channel 0 position, 1 element, 2 lattice; columns beyond 3 or E are
    zero. Position and element are centred on the middle of their range and the lattice is standardised: all columns in
    use have about unit variance. Lengths are standardised as logarithms, so that any number of a network is a length.
    """

    scales: CloudScales

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, P, W) of an array."""
        return (3, self.scales.points, max(3, self.scales.elements))

    @property
    def in_use(self) -> NDArray[np.bool_]:
        """(3, 1, W) which columns of each channel hold anything."""
        columns = np.arange(self.shape[2])
        return np.array([columns < width for width in (3, self.scales.elements, 3)])[:, None, :]

    def misfit(self, crystal: Crystal) -> str:
        """Why the crystal cannot be encoded, or nothing."""
        if len(crystal) > self.scales.max_sites:
            return f"{len(crystal)} sites, more than {self.scales.max_sites}"
        if (present := len(np.unique(crystal.numbers))) > self.scales.elements:
            return f"{present} elements, more than {self.scales.elements}"
        return ""

    def encode(
        self,
        crystal: Crystal,
        slots: Sequence[int],
        rng: np.random.Generator | None = None,
        *,
        shift: bool = False,
    ) -> Cloud:
        """The cloud of a crystal, float64.

        A left-handed cell is encoded as the same crystal in its right-handed one, since lattice parameters tell
        nothing of the hand.

        Args:
            crystal: at most `max_sites` atoms.
            slots: atomic number of each slot, at most E; slots left over are empty. All elements of the crystal.
            rng: draws which atoms get the remaining points, and the order of the points. Without it they are evenly
                spaced among the atoms, and points lie in the order of slots and atoms.
            shift: move the origin at random (needs `rng`).

        Raises:
            ValueError: if it does not fit, see `misfit`, or the slots do not.
        """
        if reason := self.misfit(crystal):
            raise ValueError(reason)
        numbers = crystal.numbers.astype(np.int64)
        if len(set(slots)) != len(slots) or len(slots) > self.scales.elements:
            raise ValueError(f"slots {list(slots)} must be at most {self.scales.elements} different elements")
        if strangers := sorted(set(numbers.tolist()) - {int(z) for z in slots}):
            raise ValueError(f"elements {strangers} (Z) are not among the slots {list(slots)}")
        slot_of = {int(z): slot for slot, z in enumerate(slots)}
        slot = np.array([slot_of[z] for z in numbers.tolist()])
        order = np.argsort(slot, kind="stable")
        frac = crystal.frac if np.linalg.det(crystal.lattice) > 0 else -crystal.frac
        if shift:
            if rng is None:
                raise ValueError("a random origin needs random numbers")
            frac = frac + rng.random(3)
        atom = np.repeat(order, repeats(len(crystal), self.scales.points, rng))
        if rng is not None:
            atom = rng.permutation(atom)
        parameters = lattice_parameters(crystal.lattice)
        half = self.scales.points // 2
        lattice = np.empty((self.scales.points, 3))
        lattice[:half] = parameters[3:] / DEGREES
        lattice[half:] = parameters[:3] / self.scales.length_unit
        return Cloud(wrapped(frac[atom]), np.eye(self.scales.elements)[slot[atom]], lattice)

    def forward(self, cloud: Cloud) -> NDArray[np.float32]:
        """Clouds (..., P, .) to arrays (..., 3, P, W)."""
        half = self.scales.points // 2
        angle_mean, angle_spread, length_mean, length_spread = self._rows()
        x = np.zeros((*cloud.position.shape[:-2], *self.shape), dtype=np.float32)
        x[..., 0, :, :3] = (cloud.position - 0.5) / POSITION_SCALE
        x[..., 1, :, : self.scales.elements] = 2 * cloud.element - 1
        x[..., 2, :half, :3] = (cloud.lattice[..., :half, :] - angle_mean) / angle_spread
        x[..., 2, half:, :3] = (np.log(cloud.lattice[..., half:, :]) - length_mean) / length_spread
        return x

    def inverse(self, x: NDArray[Any]) -> Cloud:
        """Arrays (..., 3, P, W) to clouds, float64: positions wrapped to [0, 1), nothing else cut off.

        A length too large for floating point becomes infinite, which `hpcgen.pointcloud.decode` rejects.
        """
        half = self.scales.points // 2
        angle_mean, angle_spread, length_mean, length_spread = self._rows()
        x = np.asarray(x, dtype=np.float64)
        lattice = np.empty((*x.shape[:-3], self.scales.points, 3))
        lattice[..., :half, :] = x[..., 2, :half, :3] * angle_spread + angle_mean
        with np.errstate(over="ignore"):
            lattice[..., half:, :] = np.exp(x[..., 2, half:, :3] * length_spread + length_mean)
        position = wrapped(x[..., 0, :, :3] * POSITION_SCALE + 0.5)
        return Cloud(position, (x[..., 1, :, : self.scales.elements] + 1) / 2, lattice)

    def _rows(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        s = self.scales
        angles = (np.array(s.angle_mean) / DEGREES, np.array(s.angle_spread) / DEGREES)
        return (*angles, np.array(s.length_mean), np.array(s.length_spread))


def repeats(n_atoms: int, points: int, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
    """(n,) points of each atom, summing to `points`: points // n, and one more for points % n of them.

    Those are drawn by `rng`, or evenly spaced without it.
    """
    each, left = divmod(points, n_atoms)
    extra = np.diff(np.arange(n_atoms + 1) * left // n_atoms)
    return each + (extra if rng is None else rng.permutation(extra))


def wrapped(frac: FloatArray) -> FloatArray:
    """Fractional coordinates in [0, 1)."""
    out = frac - np.floor(frac)
    out[out >= 1.0] = 0.0  # -1e-17 wraps to exactly 1.0
    return out


def _three(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
