"""Samples of the family `pointcloud`: the record that samples.h5 holds, and the attributes to read it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import store
from hpcgen.errors import StoreError
from hpcgen.flow import array
from hpcgen.pointcloud.cloud import CloudScales

_GROUP = "cloud"


@dataclass(frozen=True, eq=False)
class CloudSample:
    """One generated point cloud in the units of `hpcgen.pointcloud.cloud.Cloud`, usable without the model."""

    id: str
    position: NDArray[np.float32] = array(
        "f4", "fractional coordinates of the points, in [0, 1)", shape=("P", 3), unit="1", group=_GROUP
    )
    element: NDArray[np.float32] = array(
        "f4", "which of the elements each point is, as generated: about 0 or 1", shape=("P", "E"), group=_GROUP
    )
    lattice: NDArray[np.float32] = array(
        "f4",
        "first half of the rows: alpha, beta, gamma in units of 180 degrees; the others: a, b, c in units of the "
        "attribute `length_unit`, angstrom",
        shape=("P", 3),
        group=_GROUP,
    )
    elements: NDArray[np.uint8] = array(
        "u1", "atomic numbers of the columns of `element`, as given; 0 where there is none", shape=("E",), group=_GROUP
    )


store.register(CloudSample, "hpcgen.samples")


def cloud_attrs(scales: CloudScales) -> dict[str, Any]:
    """Attributes of samples.h5."""
    return {
        "points": scales.points,
        "max_elements": scales.elements,
        "max_sites": scales.max_sites,
        "length_unit": scales.length_unit,
    }


def cloud_scales(attrs: Mapping[str, Any]) -> CloudScales:
    """Sizes and unit as `cloud_attrs` wrote them; the statistics, which only the network needs, are left open.

    Raises:
        StoreError: if the attributes are not those of this family's samples.
    """
    try:
        return CloudScales(
            points=int(attrs["points"]),
            elements=int(attrs["max_elements"]),
            max_sites=int(attrs["max_sites"]),
            length_unit=float(attrs["length_unit"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the attributes of the samples do not fit the family `pointcloud`: {error}",
            expected="`points`, `max_elements`, `max_sites` and `length_unit` as `hpcgen sample` writes them",
        ) from None
