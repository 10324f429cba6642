"""From samples of the family `pointcloud` back to crystals."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcgen.config import Config
from hpcgen.crystal import FloatArray, lattice_from_parameters
from hpcgen.errors import Failure
from hpcgen.family.pointcloud_samples import CloudSample, cloud_scales
from hpcgen.flow import Candidate
from hpcgen.pointcloud.cloud import Cloud
from hpcgen.pointcloud.decode import cell_parameters, decode, warm_up
from hpcgen.pointcloud.ordered import decode_ordered
from hpcgen.pointcloud.polish import polish
from hpcgen.store import File

SECONDS, POLISH = 1e-3, 1.5e-2  # of one cloud on one core, whatever it holds: decoding, and its polish


class PointCloudReconstructor:
    """A `hpcgen.family.Reconstructor`: decoding, which needs neither a search nor random numbers.

    Args:
        attrs: attributes of samples.h5.
        config: section `reconstruct`.

    Raises:
        StoreError: if the attributes are not those of this family's samples.
    """

    def __init__(self, attrs: Mapping[str, Any], config: Config) -> None:
        self.scales = cloud_scales(attrs)
        self.decode = {"order": decode_ordered, "clusters": decode}[config.reconstruct.decode]
        self.polish = config.reconstruct.polish

    def candidate_attrs(self) -> dict[str, Any]:
        """The name of the one block that `residual_blocks` gives."""
        return {"names_residual_blocks": ["position"]}

    def warm_up(self) -> None:
        """Compile the kernels, or load them from their cache."""
        warm_up()

    def costs(self, samples: File) -> FloatArray:
        """(M,) seconds: the same for all."""
        return np.full(len(samples), SECONDS + POLISH * self.polish)

    def reconstruct(self, sample: CloudSample, candidate_id: str, seed: int) -> Candidate | Failure:
        """The crystal that the cloud stands for.

        `residual` is the root mean square distance of the points from their atoms over (V/N)^(1/3), `confidence` the
        decoder's, `repair` says how many points belong to no atom. With `reconstruct.polish` the crystal gets the
        symmetry that the cloud allows, see `hpcgen.pointcloud.polish`. Failures: `wrong-shape`, `not-finite`,
        `no-elements`, `impossible-cell`, and `not-decoded` with the decoder's reason.
        """
        start = time.perf_counter()

        def failure(kind: str, message: str) -> Failure:
            return Failure(sample.id, "reconstruct", kind, message)

        cloud = Cloud(*(np.asarray(v, dtype=np.float64) for v in (sample.position, sample.element, sample.lattice)))
        points, columns = self.scales.points, self.scales.elements
        expected = ((points, 3), (points, columns), (points, 3))
        shapes = tuple(v.shape for v in cloud)
        if shapes != expected or np.shape(sample.elements) != (columns,):
            return failure("wrong-shape", f"position, element and lattice are {shapes}, not {expected}")
        if not all(np.isfinite(v).all() for v in cloud):
            return failure("not-finite", "a position, an element or a lattice row is not finite")
        slots = [int(z) for z in sample.elements if z]
        if not slots or len(set(slots)) < len(slots):
            return failure("no-elements", f"the elements of the cloud are {sample.elements.tolist()}")
        try:
            lattice_from_parameters(cell_parameters(cloud.lattice, self.scales.length_unit))
        except ValueError as error:
            return failure("impossible-cell", str(error))
        decoded = self.decode(cloud, slots, self.scales)
        if isinstance(decoded, str):
            return failure("not-decoded", decoded)
        crystal, symmetry, strain, apart = decoded.crystal, "", 0.0, decoded.spread_A
        if self.polish:
            polished = polish(decoded, cloud, slots)
            crystal, symmetry, strain = polished.crystal, polished.symmetry, polished.strain
            apart = math.sqrt(apart**2 + max(0.0, polished.polished_residual_A**2 - polished.residual_A**2))
        return Candidate(
            id=candidate_id,
            crystal=crystal,
            sample_id=sample.id,
            family="pointcloud",
            residual=apart / (crystal.volume / len(crystal)) ** (1 / 3),
            iterations=0,
            stop_reason="decoded",
            confidence=decoded.confidence,
            repair=f"{decoded.noise_points} points belong to no atom" if decoded.noise_points else "",
            cell_strain=strain,
            symmetry=symmetry,
            match_probability=math.nan,
            residual_blocks=np.ones(1),
            seconds=time.perf_counter() - start,
        )
