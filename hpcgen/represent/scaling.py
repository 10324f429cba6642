"""Scalers between physical numbers and what the network sees, fitted on the training split alone.

Every block comes out with zero mean and about unit variance, which is what the noise schedules assume.
`state()` holds torch tensors and numbers only, so that it loads with `weights_only=True`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hpcgen.crystal import FloatArray


@dataclass(frozen=True, eq=False)
class Standard:
    """x -> (x - mean) / scale.

    Attributes:
        mean: (D,).
        scale: (D,), positive.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, values: FloatArray, floor: float) -> Standard:
        """Each dimension of (M, D) by its own standard deviation, which is taken as at least `floor`.

        The floor, in the unit of the values, keeps a dimension that hardly varies from being blown up.
        """
        return cls(values.mean(0), np.maximum(values.std(0), floor))

    @classmethod
    def fit_common(cls, values: FloatArray) -> Standard:
        """All dimensions of (M, D) by their common rms deviation: for one-hot bits, whose rare ones must stay rare."""
        mean = values.mean(0)
        rms = float(np.sqrt(((values - mean) ** 2).mean()))
        return cls(mean, np.full(values.shape[1], rms if rms > 1e-6 else 1.0))

    @property
    def length(self) -> int:
        """Network numbers of the block."""
        return len(self.mean)

    def forward(self, values: FloatArray) -> FloatArray:
        """(..., D) physical to (..., D) network."""
        return (values - self.mean) / self.scale

    def inverse(self, scaled: FloatArray) -> FloatArray:
        """(..., D) network to (..., D) physical."""
        return scaled * self.scale + self.mean

    def state(self) -> dict[str, Any]:
        """Tensors of mean and scale."""
        return _tensors(mean=self.mean, scale=self.scale)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Standard:
        """The scaler as `state` saved it; lists do as well as tensors."""
        return cls(_array(state["mean"]), _array(state["scale"]))


@dataclass(frozen=True, eq=False)
class HalfWhitenedPca:
    """Principal components, component i divided by sqrt(sigma_1 sigma_i), then all by their common rms.

    sigma_i is the standard deviation of component i. Not whitening drowns the small components in noise, whitening
    fully makes the unimportant ones as loud as the rest; half is measurably best.

    Attributes:
        mean: (D,) physical.
        unit: (D,) size of each dimension before the analysis; ones if all share a unit.
        components: (K, D) orthonormal rows, by falling variance; the largest entry of each is positive.
        scale: (K,) what component i is divided by.
        kept: share of the variance that the components hold, in these units.
    """

    mean: FloatArray
    unit: FloatArray
    components: FloatArray
    scale: FloatArray
    kept: float

    @classmethod
    def fit(cls, values: FloatArray, variance: float, *, same_unit: bool = True) -> HalfWhitenedPca:
        """The fewest components of (M, D) that keep `variance` (0-1) of the variance.

        Args:
            values: physical descriptors of the training split.
            variance: share to keep.
            same_unit: weigh dimensions as they are; otherwise standardise each first (those that never vary by 1).
        """
        x = np.asarray(values, dtype=np.float64)
        mean = x.mean(0)
        spread = x.std(0)
        alive = spread > 1e-9 * max(float(spread.max()), 1e-300)
        unit = np.ones(x.shape[1]) if same_unit else np.where(alive, spread, 1.0)
        centred = (x - mean) / unit
        eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(x))
        eigenvalues, components = eigenvalues[::-1], vectors[:, ::-1].T
        total = float(np.maximum(eigenvalues, 0.0).sum())
        if total <= 0.0:  # one structure, or all alike: one component that stays zero
            return cls(mean, unit, components[:1], np.ones(1), 1.0)
        share = np.cumsum(eigenvalues) / total
        above_noise = int((eigenvalues > 1e-12 * eigenvalues[0]).sum())
        count = min(int(np.searchsorted(share, variance - 1e-12)) + 1, above_noise)
        components = components[:count]
        largest = components[np.arange(count), np.abs(components).argmax(1)]
        components = components * np.sign(largest)[:, None]
        sigma = np.sqrt(eigenvalues[:count])
        scale = np.sqrt(sigma[0] * sigma)
        rms = float(np.sqrt(((sigma / scale) ** 2).mean()))
        return cls(mean, unit, np.ascontiguousarray(components), scale * rms, float(share[count - 1]))

    @property
    def length(self) -> int:
        """Network numbers of the block, K."""
        return len(self.scale)

    def forward(self, values: FloatArray) -> FloatArray:
        """(..., D) physical to (..., K) network."""
        return ((values - self.mean) / self.unit) @ self.components.T / self.scale

    def inverse(self, scaled: FloatArray) -> FloatArray:
        """(..., K) network to (..., D) physical."""
        return (scaled * self.scale) @ self.components * self.unit + self.mean

    def state(self) -> dict[str, Any]:
        """Tensors of the fields, and `kept`."""
        arrays = _tensors(mean=self.mean, unit=self.unit, components=self.components, scale=self.scale)
        return {**arrays, "kept": self.kept}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HalfWhitenedPca:
        """The scaler as `state` saved it; lists do as well as tensors."""
        mean, unit, components, scale = (_array(state[key]) for key in ("mean", "unit", "components", "scale"))
        return cls(mean, unit, components, scale, float(state["kept"]))


def _tensors(**arrays: FloatArray) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in arrays.items()}


def _array(value: ArrayLike) -> FloatArray:
    return np.asarray(value, dtype=np.float64)
