"""A small run folder, written through the store, whose numbers are known."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.spacegroup import crystal as spacegroup_crystal

from hpcgen import config as configuration
from hpcgen import flow, provenance, store
from hpcgen.crystal import Crystal, from_atoms, space_group
from hpcgen.errors import Failure
from hpcgen.screen import oxidation_balance
from hpcgen.stages.context import Balance

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'


@dataclass(frozen=True, eq=False)
class ReportTestSample:
    """Stands for a family's sample: the report reads only how many there are."""

    id: str
    descriptor: np.ndarray = flow.array("f4", "numbers", shape=("D",), group="representation")  # noqa: RUF009


store.register(ReportTestSample, "hpcgen.samples")


def known_crystals() -> list[Crystal]:
    """One-atom cells, salts, oxides."""
    perovskite = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    atoms: list[Any] = [bulk("Cu"), bulk("Fe", "bcc", a=2.87)]
    atoms += [bulk(f, "rocksalt", a=a) for f, a in (("NaCl", 5.6), ("MgO", 4.2), ("LiF", 4.0), ("KCl", 6.3))]
    atoms += [
        spacegroup_crystal([a, b, "O"], perovskite, spacegroup=221, cellpar=[x, x, x, 90, 90, 90])
        for a, b, x in (("Sr", "Ti", 3.9), ("Ba", "Zr", 4.2), ("Ca", "Ti", 3.85), ("K", "Nb", 4.0))
    ]
    atoms += [
        spacegroup_crystal([m, "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[a, a, c, 90, 90, 90])
        for m, a, c in (("Ti", 4.6, 2.96), ("Sn", 4.74, 3.19), ("Zr", 4.9, 3.1))
    ]
    return [from_atoms(a) for a in atoms]


def make_run(folder: Path, *, hostile: bool = False, relaxed: int | None = None, overrides: list[str] = ()) -> Any:  # type: ignore[assignment]
    """Write a whole run folder and return its configuration. `relaxed`: how many candidates reach the hull."""
    config = configuration.loads("{name: tiny, seed: 7}", overrides=list(overrides))
    digest = config.digest()
    label = "same-scale" if config.hull.reference == "self" else "screening"
    crystals = known_crystals()
    rng = np.random.default_rng(0)
    energies = [0.3, 0.0, -0.02, 0.05, 0.08, 0.2, *(0.3 + rng.gamma(1.5, 0.12, 20)).tolist()]
    kept = len(crystals) if relaxed is None else relaxed
    ids = {
        s: [flow.make_id(digest, s, i) for i in range(40)]
        for s in ("data", "sample", "reconstruct", "screen", "relax", "hull")
    }

    def write(
        name: str, kind: type, items: list[Any], balance: Balance, failures: list[Failure] = (), **attrs: Any
    ) -> None:  # type: ignore[assignment]
        store.write(
            folder / name,
            kind,
            items,
            failures=failures,
            header=provenance.header(config, {}),
            attrs={"balance": balance.to_json(), **attrs},
        )

    entries = [
        flow.Entry(id=ids["data"][i], crystal=c, source=f"row:{i}", split="train" if i % 4 else "test")
        for i, c in enumerate(crystals)
    ]
    broken = [Failure("row:99", "data", "broken-cif", HOSTILE if hostile else "no atoms")]
    write("dataset.h5", flow.Entry, entries, Balance.of("data", len(entries) + 1, len(entries), broken), broken)
    samples = [ReportTestSample(ids["sample"][i], np.zeros(3, np.float32)) for i in range(20)]
    write("samples.h5", ReportTestSample, samples, Balance.of("sample", 20, 20, []))

    candidates = [
        flow.Candidate(
            id=ids["reconstruct"][i],
            crystal=c,
            sample_id=ids["sample"][i],
            family="representation",
            residual=0.01 * (i + 1),
            iterations=10,
            stop_reason="converged",
            confidence=1.0,
            repair="",
            cell_strain=0.0,
            symmetry="",
            match_probability=0.9,
            residual_blocks=np.array([0.01, 0.0]),
            seconds=0.1,
        )
        for i, c in enumerate(crystals)
    ]
    lost = [
        Failure(ids["reconstruct"][20 + i], "reconstruct", "impossible-cell", "angles do not close")
        for i in range(20 - len(crystals))
    ]
    write("candidates.h5", flow.Candidate, candidates, Balance.of("reconstruct", 20, len(crystals), lost), lost)
    survivors = [
        flow.Survivor(
            id=ids["screen"][i],
            candidate_id=c.id,
            kept=i < kept,
            reason="" if i < kept else "duplicate",
            formula=c.crystal.formula,
            spacegroup=1,
            smallest_distance=2.0,
            density=c.crystal.density,
            composition_valid=True,
            duplicate_of="" if i < kept else candidates[0].id,
            novel=True,
        )
        for i, c in enumerate(candidates)
    ]
    write(
        "survivors.h5",
        flow.Survivor,
        survivors,
        Balance.of("screen", len(survivors), kept, [s.reason for s in survivors if not s.kept]),
    )

    relaxations = [
        flow.Relaxation(
            id=ids["relax"][i],
            crystal=c.crystal,
            candidate_id=c.id,
            energy=-5.0 * len(c.crystal),
            energy_initial=-4.9,
            max_force=0.04,
            max_stress=0.1,
            max_force_initial=0.8 + i,
            steps=12,
            converged=i != 3,
            calculator="chgnet 0.3.0",
            scale="chgnet-mp2020",
            settings_digest="abc",
            seconds=1.0,
            forces=np.zeros((len(c.crystal), 3)),
            stress=np.zeros((3, 3)),
            step_energy=(-5 + 0.3 * np.exp(-np.arange(13 if i else 0))).astype(np.float32),  # the first one knows none
            step_max_force=((0.8 + i) * 0.78 ** np.arange(13 if i else 0)).astype(np.float32),
        )
        for i, c in enumerate(candidates[:kept])
    ]
    write("relaxed-mlip.h5", flow.Relaxation, relaxations, Balance.of("relax", kept, kept, []))
    elements = [
        flow.ReferenceEntry(
            id=flow.make_id(digest, "reference", i), entry_id=f"e{i}", formula=f, energy_per_atom=-3.0, element=True
        )
        for i, f in enumerate(["Na", "Cl", "O"])
    ]
    write(
        "reference.h5",
        flow.ReferenceEntry,
        elements,
        Balance.of("reference", 3, 3, []),
        scale="chgnet-mp2020",
        source="elements and training structures by chgnet 0.3.0",
        date="2026-01-02",
    )
    stable = [
        flow.Stability(
            id=ids["hull"][i],
            crystal=r.crystal,
            candidate_id=r.candidate_id,
            relaxation_id=r.id,
            formula=HOSTILE if hostile and i == 0 else r.crystal.formula,
            spacegroup=space_group(r.crystal),
            energy_per_atom=-5.0,
            formation_energy=-2.0 + 0.1 * i,
            e_hull=energies[i],
            e_hull_self=0.1,
            decomposition=f"0.50 Na + 0.50 {HOSTILE}" if hostile else "0.50 NaCl + 0.50 MgO",
            reference_entries=3,
            scale="chgnet-mp2020",
            reference_scale="chgnet-mp2020",
            reference_digest="d" * 32,
            label=label,
            unique=i != 1,
            duplicate_of="" if i != 1 else relaxations[0].id,
            novel=i != 2,
            charge_balanced=oxidation_balance(r.crystal.numbers).balanced,
            oxidation_states=oxidation_balance(r.crystal.numbers).states,
        )
        for i, r in enumerate(relaxations)
    ]
    write(
        "stability.h5", flow.Stability, stable, Balance.of("hull", kept, kept, []), scale="chgnet-mp2020", label=label
    )

    with (folder / "train.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "train_loss", "validation_loss", "learning_rate", "samples_per_s", "seconds"])
        writer.writerows([[100 * i, 1 / i, 1.1 / i if i % 2 else "", 1e-3, 5000, i] for i in range(1, 20)])
    timings = [
        {"stage": s, "seconds": 2.5, "balance": None}
        for s in ("data", "train", "sample", "reconstruct", "screen", "relax")
    ]
    timings[1]["balance"] = Balance.of("train", 10, 10, []).__dict__
    (folder / "stages.json").write_text(json.dumps(timings))
    return config
