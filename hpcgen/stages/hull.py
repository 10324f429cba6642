"""`hpcgen hull`: relaxed-mlip.h5, reference.h5 and dataset.h5 to stability.h5, or stability-mlip.h5 if VASP follows.

Uniqueness and novelty are judged again, because relaxation makes different crystals equal.

A relaxation that did not converge gets its energy above the hull too. Relaxing further can only lower its energy, so
that number is an upper bound; the column `converged` of relaxed-mlip.h5 tells which they are, and the report marks
them. A crystal with an element that the reference does not know is a failure `no-element-reference`.

S.U.N. counts as MatterGen does: at most 0.1 eV/atom above the reference hull, the first of its equals in this run, and
no match among the known structures (training data and `screen.known`); the rate is over everything submitted, samples
that failed on the way included.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hpcgen import flow, provenance, store
from hpcgen.crystal import Crystal, composition_of, space_group
from hpcgen.errors import Failure, RunFolderError, ThermoError
from hpcgen.flow import Relaxation, Stability
from hpcgen.screen import Effort, find_duplicates, find_known, oxidation_balance
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.known import known_structures
from hpcgen.thermo import Hulls, MissingElementError, Programme, ReferenceSet, compare

log = logging.getLogger("hpcgen")

STAGE = "hull"
SUN_E_HULL = 0.1 + 1e-9  # eV/atom, MatterGen's threshold of stability; rounding must not decide
VERIFIED = 1e-8  # eV/atom that energies above the hull and linear programmes may differ by


def run(ctx: Context) -> Balance:
    """Judge every relaxed crystal and write the output of this stage (`pipeline.chain`).

    Raises:
        ThermoError: if the energies of candidates and reference may not meet on one hull.
    """
    with store.open(ctx.path("relaxed-mlip.h5"), Relaxation) as f:
        relaxations, scale = list(f), str(f.attrs["scale"])
    output = "stability.h5" if ctx.config.vasp is None else "stability-mlip.h5"
    return conclude(ctx, STAGE, "relaxed-mlip.h5", output, relaxations, scale)


def conclude(
    ctx: Context,
    stage: str,
    source: str,
    output: str,
    relaxations: Sequence[Relaxation],
    scale: str,
    *,
    refused: Sequence[Failure] = (),
    corrections: Mapping[str, float] | None = None,
) -> Balance:
    """Judge relaxed crystals and write the verdicts.

    Args:
        ctx: the campaign.
        stage: that asks, named in its failures.
        source: name of the file that the relaxations came from.
        output: name of the file to write.
        relaxations: with energies that may meet the reference.
        scale: of their energies.
        refused: relaxations of the source without such an energy.
        corrections: see `judge`.

    Raises:
        ThermoError: if the energies of candidates and reference may not meet on one hull.
    """
    files = [ctx.path(name) for name in (source, "reference.h5", "dataset.h5")]
    reference = ReferenceSet.read(ctx.path("reference.h5"))
    comparison = compare(scale, reference.scale)
    known = known_structures(ctx)
    uniqueness, novelty = Effort(), Effort()
    verdicts = judge(
        relaxations,
        reference,
        known.crystals,
        comparison.label,
        ctx.config.identity(stage),
        corrections=corrections,
        uniqueness=uniqueness,
        novelty=novelty,
    )
    stable = [v for v in verdicts if isinstance(v, Stability)]
    failures = [*refused, *(replace(v, stage=stage) for v in verdicts if isinstance(v, Failure))]
    balance = Balance.of(stage, len(relaxations) + len(refused), len(stable), failures)
    store.write(
        ctx.path(output),
        Stability,
        stable,
        failures=failures,
        header=provenance.header(ctx.config, {p.name: store.content_digest(p) for p in files} | known.inputs),
        attrs={
            "balance": balance.to_json(),
            "label": comparison.label,
            "comparison": comparison.reason,
            "scale": scale,
            "reference_scale": reference.scale,
            "reference_digest": reference.digest,
            "source": reference.source,
            "sun": sum(v.sun for v in stable),
            "new_stable": sum(v.new_stable for v in stable),
            "submitted": ctx.config.sample.n,
            "uniqueness": str(uniqueness),
            "novelty": str(novelty),
            "known": known.text,
        },
    )
    lowest = [v.formula for v in stable if v.new_stable]
    if lowest:
        log.info("%d below the reference hull: new stable phases, or errors: %s", len(lowest), ", ".join(lowest[:10]))
    return balance


def judge(
    relaxations: Sequence[Relaxation],
    reference: ReferenceSet,
    training: Sequence[Crystal],
    label: str,
    run_digest: str,
    *,
    corrections: Mapping[str, float] | None = None,
    uniqueness: Effort | None = None,
    novelty: Effort | None = None,
) -> list[Stability | Failure]:
    """The verdict on each relaxed crystal, in order.

    Args:
        relaxations: crystals and energies of this run.
        reference: competing phases on a scale that may meet theirs.
        training: the known crystals, which novelty is judged against.
        label: `same-scale` or `screening`, of `thermo.compare`.
        run_digest: for the ids of the records.
        corrections: eV that the energy of a relaxation (by id) already holds beside what its calculator computed.
        uniqueness, novelty: what was compared is added to them.
    """
    crystals = [r.crystal for r in relaxations]
    compositions = [composition_of(c.numbers) for c in crystals]
    energies = [r.energy / len(r.crystal) for r in relaxations]
    hulls = Hulls(reference, zip(compositions, energies, strict=True))
    earlier = find_duplicates(crystals, uniqueness)
    known = find_known(crystals, training, novelty)
    digest = reference.digest
    out: list[Stability | Failure] = []
    for i, r in enumerate(relaxations):
        try:
            verdict = hulls.judge(compositions[i], energies[i])
        except MissingElementError as error:
            text = f"{r.crystal.formula}: {error}; a larger reference (hull.reference) may have it"
            out.append(Failure(r.candidate_id, STAGE, "no-element-reference", text))
            continue
        charges = oxidation_balance(r.crystal.numbers)
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
                new_stable=verdict.new_stable,
                sun=verdict.e_hull <= SUN_E_HULL and earlier[i] < 0 and not known[i],
                competitors=verdict.competitors,
                correction=(corrections or {}).get(r.id, 0.0) / len(r.crystal),
                charge_balanced=charges.balanced,
                oxidation_states=charges.states,
            )
        )
    return out


def verify(ctx: Context, name: str = "stability.h5") -> str:
    """Hold every energy above the hull of a finished stage against HiGHS on all entries of the reference.

    Returns:
        a sentence with the largest difference.

    Raises:
        RunFolderError: if reference.h5 is not the one that was used.
        ThermoError: if an energy is off by more than 1e-8 eV/atom.
    """
    reference = ReferenceSet.read(ctx.path("reference.h5"))
    with store.open(ctx.path(name), Stability) as f:
        records = list(f)
        if f.attrs.get("reference_digest") != reference.digest:
            raise RunFolderError(
                f"{ctx.path(name)} was made with another reference than {ctx.path('reference.h5')}",
                expected=f"the digest {f.attrs.get('reference_digest')}, found {reference.digest}",
                remedy="run `hpcgen hull --redo`",
            )
    programme = Programme(reference)
    worst, where = 0.0, ""
    for r in records:
        expected = r.energy_per_atom - programme.hull_energy(composition_of(r.crystal.numbers).get_el_amt_dict())
        difference = abs(expected - r.e_hull)
        if not difference <= VERIFIED:
            raise ThermoError(
                f"{r.formula} ({r.id}) lies {r.e_hull:.10f} eV/atom above the hull in {name}, "
                f"and {expected:.10f} by linear programme",
                remedy="the file was changed, or this is a bug in hpcgen: please report it with reference.h5",
            )
        if difference > worst:
            worst, where = difference, f" ({r.formula})"
    return f"{len(records)} energies above the hull agree with linear programmes to {worst:.1e} eV/atom{where}"
