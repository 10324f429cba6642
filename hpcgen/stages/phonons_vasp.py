"""`hpcgen phonons` with `phonons.forces: vasp`: finite displacements, every supercell a job of VASP in a slot.

A crystal is first relaxed by VASP to `phonons.max_force`, whatever relaxed it before: its forces must vanish where the
displaced ones are computed. From its relaxation follow the displaced supercells, each a task of its own; none has to
wait for another crystal. If one fails for good so do the phonons of its crystal, whose other supercells are not begun.

Ledger and folders lie in `vasp-phonons/`, as those of `hpcgen dft` in `vasp/`. The name of a task holds a digest of
structure and settings, so what is found there under a name is what would be computed: it is used again after a stop,
with `--redo` and with a larger `phonons.n`, and never for another displacement, cutoff or structure.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from hpcgen import provenance, slots, store
from hpcgen.config.dft import DECISIVE
from hpcgen.crystal import Crystal
from hpcgen.dynamics.phonons import Displaced, check_installed, displaced, supercell_of, symmetrised
from hpcgen.errors import EXIT_OK, EXIT_REQUEUE, Failure, RunFolderError
from hpcgen.flow import Phonons
from hpcgen.relax.minimise import UnphysicalError
from hpcgen.stages.context import Balance, Context
from hpcgen.stages.phonons_crystals import OUTPUT, STAGE, choose, record
from hpcgen.vasp import inputs, many

log = logging.getLogger("hpcgen")

FOLDER = "vasp-phonons"
GRID = 1e5  # to a part in so many do coordinates make a structure another one
ASIDE = 0.1234567  # so that fractions such as 1/64 do not lie between two numbers of the grid


def run(ctx: Context) -> Balance:
    """Compute the modes of every crystal within the limit and write phonons.h5.

    Raises:
        SystemExit: with EXIT_REQUEUE, if jobs are left.
        DependencyError, LaunchError: if VASP cannot be started here.
    """
    work = Work(ctx)
    summary = work.compute("0-of-1", work.rows)
    if summary.left:
        log.warning(
            "phonons: %d jobs are left, and what follows from them: %s; run again and it goes on",
            summary.left,
            summary.why,
        )
        raise SystemExit(EXIT_REQUEUE)
    return work.write()


def run_shard(ctx: Context, shard: int, shards: int) -> int:
    """Compute every `shards`-th crystal, from the `shard`-th on; several such parts may run at a time.

    Returns:
        EXIT_OK if the part is done, else EXIT_REQUEUE.
    """
    work = Work(ctx)
    s = work.compute(f"{shard}-of-{shards}", work.rows[shard::shards])
    log.info("phonons, part %d of %d: %d jobs done, %d failed, %d left", shard, shards, s.done, s.failed, s.left)
    return EXIT_REQUEUE if s.left else EXIT_OK


def costs(ctx: Context) -> list[str]:
    """What there is to compute: a line per crystal, and one of all. Writes nothing.

    Raises:
        DependencyError: if phonopy is not installed.
        RunFolderError: if the first hull is not there.
    """
    check_installed()
    if not ctx.path("stability-mlip.h5").exists():
        raise RunFolderError(f"{ctx.path('stability-mlip.h5')} is not there", remedy="run `hpcgen hull` first")
    return Work(ctx).costs()


class Work:
    """The crystals, their tasks, and what becomes of them.

    Attributes:
        source: the file of stability that they come from.
        rows: of the crystals that are computed, the most stable first.
    """

    def __init__(self, ctx: Context) -> None:
        config = ctx.config
        assert config.vasp is not None
        self.ctx, self.vasp, self.settings = ctx, config.vasp, config.phonons
        self.root = ctx.path(FOLDER)
        self.source = "stability.h5"
        if not ctx.path(self.source).exists():
            self.source = "stability-mlip.h5"
            log.info("phonons: there is no stability.h5 yet; crystals and hull are those of the ML potential")
        self._chosen = choose(ctx, self.source)
        self._failures = dict(self._chosen.refused)
        self._starts: dict[int, Crystal] = {}
        for i in self._chosen.wanted:
            start = symmetrised(self._chosen.crystals[i], self.settings.symmetry)
            atoms = int(supercell_of(start, self.settings.supercell_length).prod()) * len(start)
            if atoms > self.settings.max_atoms:
                text = f"a supercell has {atoms} atoms, more than phonons.max_atoms ({self.settings.max_atoms})"
                self._fail(i, "supercell-too-large", text)
            else:
                self._starts[i] = start
        self.rows = [i for i in self._chosen.wanted if i in self._starts]
        self._relaxations = {self._name(i, "relax", self._order_of_relaxation(i)): i for i in self.rows}
        self._supercells: dict[str, tuple[str, int]] = {}  # of which relaxation, which displacement
        self._names: dict[str, list[str]] = {}  # of the supercells that follow from a relaxation
        self._base = lru_cache(maxsize=4)(self._find_base)

    def costs(self) -> list[str]:
        """A line per crystal, and one of all: how many supercells by the symmetry that they have now."""
        lines, counts, atoms = [], [], []
        for i in self.rows:
            cells = displaced(self._starts[i], self.settings)
            counts.append(len(cells.cells))
            atoms.append(len(cells.origin))
            words = f"{counts[-1]} of {atoms[-1]} atoms ({'x'.join(map(str, cells.repeats))} cells)"
            lines.append(f"{self._chosen.candidates[i]} {self._starts[i].formula}: a relaxation; supercells: {words}")
        refused = (self._failures[i] for i in self._chosen.wanted if i not in self._starts)
        lines += [f"{failure.id} {failure.message}" for failure in refused]
        size = f" of {min(atoms)} to {max(atoms)} atoms" if atoms else ""
        n = len(self.rows)
        lines.append(f"{n} crystals, {n} relaxations, about {sum(counts)} supercells{size}")
        return lines

    def compute(self, shard: str, rows: list[int]) -> slots.Summary:
        """Do what is left of some crystals.

        Raises:
            DependencyError, LaunchError: if VASP cannot be started here.
        """
        if not self.root.exists():
            log.info("phonons by VASP: %s", self.costs()[-1])
        mine = set(rows)
        return many.compute(
            self.root,
            [task for task, i in self._relaxations.items() if i in mine],
            self._order_of,
            self.vasp,
            self.ctx.config.slots,
            elements={symbol for i in self.rows for symbol in self._starts[i].elements},
            shard=shard,
            then=self._then,
            in_vain=lambda task: self._names[self._supercells[task][0]] if task in self._supercells else (),
        )

    def write(self) -> Balance:
        """Judge what was computed, all of which has ended, and write phonons.h5."""
        config, chosen = self.ctx.config, self._chosen
        known = slots.standings(self.root)
        records = [self._judge(i, task, known) for task, i in self._relaxations.items()]
        kept = sorted((r for r in records if r is not None), key=lambda r: chosen.ids.index(r.id))
        failures = [self._failures[i] for i in sorted(self._failures)]
        balance = Balance.of(STAGE, len(chosen.candidates), len(kept), failures)
        read = {self.source: store.content_digest(self.ctx.path(self.source))}
        store.write(
            self.ctx.path(OUTPUT),
            Phonons,
            kept,
            failures=failures,
            header=provenance.header(config, read),
            attrs={
                "balance": balance.to_json(),
                "calculator": f"VASP, {self.vasp.input_set}",
                "identity": config.identity(STAGE),
            },
        )
        return balance

    def _judge(self, i: int, relaxation: str, known: Mapping[str, slots.Standing]) -> Phonons | None:
        """The record of a crystal, or None and a failure in the books."""
        tasks = [relaxation, *(self._then(relaxation) if self._result(relaxation) else ())]
        if i in self._failures:
            return None
        results = [self._result(task) for task in tasks]
        missing = [k for k, result in enumerate(results) if result is None]
        if missing:  # those that were not begun because of one that failed have not failed
            standings = {k: known.get(tasks[k], slots.Standing()) for k in missing}
            k, standing = max(standings.items(), key=lambda item: (item[1].state == "failed", item[1].attempts))
            what = f"displaced supercell {k} of {len(tasks) - 1}" if k else "relaxation"
            text = f"{what}: {standing.message} (its attempts are in {FOLDER}/{tasks[k]})"
            self._fail(i, standing.kind or "not-computed", text)
            return None
        forces = [np.array(result["forces"]) for result in results if result is not None][1:]
        relaxed, crystal, cells = self._base(relaxation)
        try:
            modes = cells.spectrum(forces)
        except Exception as error:
            self._bug(i, error)
            return None
        return record(
            self._chosen,
            i,
            crystal,
            modes,
            self.settings,
            calculator=f"VASP {relaxed['version']}, {self.vasp.input_set}",
            settings_digest=self.ctx.config.identity(STAGE),
            scale=self._scale(),
            max_force=float(np.linalg.norm(relaxed["forces"], axis=1).max()),
            seconds=sum(known[task].seconds for task in tasks),
        )

    def _scale(self) -> str:
        changed = {key: value for key, value in self.settings.incar.items() if key.upper() in DECISIVE}
        return self.vasp.energy_scale + "".join(f", {key} {value}" for key, value in sorted(changed.items()))

    def _result(self, task: str) -> dict[str, Any] | None:
        """The result of the attempt that counts, as `slots.standings` counts, without a look at all other tasks."""
        outcomes = (slots.read_outcome(folder) for folder in sorted((self.root / task).glob("[0-9]*")))
        return next((o.result for o in outcomes if o is not None and o.state == "done"), None)

    def _then(self, task: str) -> list[str]:
        """The supercells that follow from a relaxation; none, and a failure in the books, if there can be none."""
        i = self._relaxations.get(task)
        if i is None:
            return []
        if task not in self._names:
            try:
                count = len(self._base(task)[2].cells)
                names = [self._name(i, f"d{k + 1:03d}", self._order_of_cell(task, k)) for k in range(count)]
            except UnphysicalError as error:
                self._fail(i, error.kind, str(error))
                names = []
            except Exception as error:
                self._bug(i, error)
                names = []
            self._names[task] = names
            self._supercells |= {name: (task, k) for k, name in enumerate(names)}
        return self._names[task]

    def _find_base(self, relaxation: str) -> tuple[dict[str, Any], Crystal, Displaced]:
        """A relaxation's result, crystal and supercells; moments are rounded, so that like ones are equal."""
        result = self._result(relaxation)
        assert result is not None
        found = Crystal(np.array(result["lattice"]), np.array(result["frac"]), np.array(result["numbers"]))
        crystal = symmetrised(found, self.settings.symmetry)
        result["moments"] = result["moments"] and [round(m, 1) for m in result["moments"]]
        moments = result["moments"] if any(result["moments"] or ()) else None
        return result, crystal, displaced(crystal, self.settings, moments)

    def _order_of(self, task: str) -> dict[str, Any]:
        if task in self._relaxations:
            return self._order_of_relaxation(self._relaxations[task])
        return self._order_of_cell(*self._supercells[task])

    def _order_of_relaxation(self, i: int) -> dict[str, Any]:
        plan = inputs.minimum(self.vasp, self.settings.max_force, self.settings.incar)
        return many.order(self.vasp, self._starts[i], plan)

    def _order_of_cell(self, relaxation: str, k: int) -> dict[str, Any]:
        result, _, cells = self._base(relaxation)
        plan = inputs.forces(
            self.settings.incar,
            carry=result["corrections"],
            mesh=result["mesh"],
            repeats=cells.repeats.tolist(),
            moments=result["moments"] and [result["moments"][j] for j in cells.origin],
        )
        return many.order(self.vasp, cells.cells[k], plan)

    def _name(self, i: int, what: str, order: dict[str, Any]) -> str:
        settings = {"vasp": self.vasp.decisive(), "plan": order["plan"], "numbers": order["numbers"]}
        frac = np.floor(np.array(order["frac"]) * GRID + ASIDE) % GRID
        lattice = np.floor(np.array(order["lattice"]) * GRID + ASIDE)
        body = json.dumps(settings | {"frac": frac.tolist(), "lattice": lattice.tolist()}, sort_keys=True)
        digest = hashlib.blake2b(body.encode(), digest_size=5).hexdigest()
        return f"{self._chosen.candidates[i]}-{what}-{digest}"

    def _bug(self, i: int, error: Exception) -> None:
        """A bug, ours or phonopy's, must not end the jobs of the other crystals, nor take their results."""
        log.error("phonons of %s", self._chosen.candidates[i], exc_info=error)
        self._fail(i, "internal-error", f"{type(error).__name__}: {error}")

    def _fail(self, i: int, kind: str, text: str) -> None:
        self._failures[i] = Failure(
            self._chosen.candidates[i], STAGE, kind, f"{self._chosen.crystals[i].formula}: {text}"
        )
