"""`hpcgen stability`: relaxed-vasp.h5, reference.h5 and dataset.h5 to stability.h5: the hull again, by VASP.

Raw energies of Materials Project's PBE settings get the MP2020 corrections here, once. What they do not hold for is a
failure with the reason. Energies of another scale meet a reference of the same scale only, uncorrected.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from hpcgen import provenance, store
from hpcgen.errors import Failure
from hpcgen.flow import DftRelaxation, Stability
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.data import training_structures
from hpcgen.stages.hull import judge
from hpcgen.thermo import ReferenceSet, compare
from hpcgen.thermo.corrections import RefusedError, corrected
from hpcgen.thermo.scales import VASP_MP2020

STAGE = "stability"


def run(ctx: Context) -> Balance:
    """Judge every crystal that VASP relaxed and write stability.h5.

    Raises:
        ThermoError: if the energies of VASP and the reference may not meet on one hull.
    """
    files = [ctx.path(name) for name in ("relaxed-vasp.h5", "reference.h5", "dataset.h5")]
    with store.open(files[0], DftRelaxation) as f:
        relaxations = list(f)
        scale = str(f.attrs["scale"])
    reference = ReferenceSet.read(files[1])
    comparison = compare(scale, reference.scale)
    good, refused = correct(relaxations, scale)
    training = [crystal for _, crystal in training_structures(ctx)]
    verdicts = judge(good, reference, training, comparison.label, ctx.config.identity(STAGE))
    stable = [v for v in verdicts if isinstance(v, Stability)]
    failures = refused + [replace(v, stage=STAGE) for v in verdicts if isinstance(v, Failure)]
    balance = Balance.of(STAGE, len(relaxations), len(stable), failures)
    store.write(
        ctx.path("stability.h5"),
        Stability,
        stable,
        failures=failures,
        header=provenance.header(ctx.config, {p.name: store.content_digest(p) for p in files}),
        attrs={
            "balance": balance.to_json(),
            "label": comparison.label,
            "comparison": comparison.reason,
            "scale": scale,
            "reference_scale": reference.scale,
            "reference_digest": reference.digest,
            "source": reference.source,
        },
    )
    return balance


def correct(relaxations: Sequence[DftRelaxation], scale: str) -> tuple[list[DftRelaxation], list[Failure]]:
    """The relaxations with energies that may meet the reference, and those that have none such."""
    if scale != VASP_MP2020:
        return list(relaxations), []
    good: list[DftRelaxation] = []
    refused: list[Failure] = []
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
    return good, refused
