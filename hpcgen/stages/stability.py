"""`hpcgen stability`: relaxed-vasp.h5, reference.h5 and dataset.h5 to stability.h5: the hull again, by VASP.

Raw energies of Materials Project's PBE settings get the MP2020 corrections here, once. What they do not hold for is a
failure with the reason. Energies of another scale meet a reference of the same scale only, uncorrected.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from hpcgen import store
from hpcgen.errors import Failure
from hpcgen.flow import DftRelaxation
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.hull import conclude
from hpcgen.thermo import ReferenceSet, compare
from hpcgen.thermo.corrections import RefusedError, corrected
from hpcgen.thermo.scales import VASP_MP2020

STAGE = "stability"


def run(ctx: Context) -> Balance:
    """Judge every crystal that VASP relaxed and write stability.h5.

    Raises:
        ThermoError: if the energies of VASP and the reference may not meet on one hull.
    """
    with store.open(ctx.path("relaxed-vasp.h5"), DftRelaxation) as f:
        relaxations, scale = list(f), str(f.attrs["scale"])
    compare(scale, ReferenceSet.read(ctx.path("reference.h5")).scale)  # before energies are corrected
    good, refused, corrections = correct(relaxations, scale)
    return conclude(
        ctx, STAGE, "relaxed-vasp.h5", "stability.h5", good, scale, refused=refused, corrections=corrections
    )


def correct(
    relaxations: Sequence[DftRelaxation], scale: str
) -> tuple[list[DftRelaxation], list[Failure], dict[str, float]]:
    """The relaxations with energies that may meet the reference, those that have none such, and what was added, eV."""
    if scale != VASP_MP2020:
        return list(relaxations), [], {}
    good: list[DftRelaxation] = []
    refused: list[Failure] = []
    corrections: dict[str, float] = {}
    for r in relaxations:
        try:
            mended = corrected(
                r.crystal,
                r.energy,
                run_type=r.run_type,
                hubbards=json.loads(r.hubbards),
                potcar_symbols=json.loads(r.potcars),
                name=r.candidate_id,
            )
        except RefusedError as error:
            refused.append(Failure(r.candidate_id, STAGE, error.kind, str(error)))
            continue
        good.append(replace(r, energy=mended.energy))
        corrections[r.id] = mended.correction
    return good, refused, corrections
