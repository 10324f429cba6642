"""`hpcgen hull`: relaxed-mlip.h5, reference.h5 and dataset.h5 to stability.h5.

Uniqueness and novelty are judged again, because relaxation makes different crystals equal.

A relaxation that did not converge gets its energy above the hull too. Relaxing further can only lower its energy, so
that number is an upper bound; the column `converged` of relaxed-mlip.h5 tells which they are, and the report marks
them. A crystal with an element that the reference does not know is a failure `no-element-reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcgen import flow, provenance, store
from hpcgen.crystal import Crystal, composition_of, space_group
from hpcgen.errors import Failure
from hpcgen.flow import Relaxation, Stability
from hpcgen.screen import find_duplicates, find_known
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.data import training_structures
from hpcgen.thermo import Hulls, MissingElementError, ReferenceSet, compare

STAGE = "hull"


def run(ctx: Context) -> Balance:
    """Judge every relaxed crystal and write stability.h5.

    Raises:
        ThermoError: if the energies of candidates and reference may not meet on one hull.
    """
    files = [ctx.path(name) for name in ("relaxed-mlip.h5", "reference.h5", "dataset.h5")]
    relaxed_file, reference_file = files[:2]
    with store.open(relaxed_file, Relaxation) as f:
        relaxations = list(f)
        scale = str(f.attrs["scale"])
    reference = ReferenceSet.read(reference_file)
    comparison = compare(scale, reference.scale)
    training = [crystal for _, crystal in training_structures(ctx)]
    verdicts = judge(relaxations, reference, training, comparison.label, ctx.config.identity(STAGE))
    stable = [v for v in verdicts if isinstance(v, Stability)]
    failures = [v for v in verdicts if isinstance(v, Failure)]
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


def judge(
    relaxations: Sequence[Relaxation],
    reference: ReferenceSet,
    training: Sequence[Crystal],
    label: str,
    run_digest: str,
) -> list[Stability | Failure]:
    """The verdict on each relaxed crystal, in order.

    Args:
        relaxations: crystals and energies of this run.
        reference: competing phases on a scale that may meet theirs.
        training: the crystals that novelty is judged against.
        label: `same-scale` or `screening`, of `thermo.compare`.
        run_digest: for the ids of the records.
    """
    crystals = [r.crystal for r in relaxations]
    compositions = [composition_of(c.numbers) for c in crystals]
    energies = [r.energy / len(r.crystal) for r in relaxations]
    hulls = Hulls(reference, zip(compositions, energies, strict=True))
    earlier = find_duplicates(crystals)
    known = find_known(crystals, training)
    digest = reference.digest
    out: list[Stability | Failure] = []
    for i, r in enumerate(relaxations):
        try:
            verdict = hulls.judge(compositions[i], energies[i])
        except MissingElementError as error:
            text = f"{r.crystal.formula}: {error}; a larger reference (hull.reference) may have it"
            out.append(Failure(r.candidate_id, STAGE, "no-element-reference", text))
            continue
        out.append(
            Stability(
                id=flow.make_id(run_digest, STAGE, i),
                crystal=r.crystal,
                candidate_id=r.candidate_id,
                relaxation_id=r.id,
                formula=r.crystal.formula,
                spacegroup=space_group(r.crystal),
                energy_per_atom=energies[i],
                formation_energy=verdict.formation_energy,
                e_hull=verdict.e_hull,
                e_hull_self=verdict.e_hull_self,
                decomposition=verdict.decomposition,
                reference_entries=verdict.reference_entries,
                scale=r.scale,
                reference_scale=reference.scale,
                reference_digest=digest,
                label=label,
                unique=earlier[i] < 0,
                duplicate_of=relaxations[earlier[i]].id if earlier[i] >= 0 else "",
                novel=not known[i],
            )
        )
    return out
