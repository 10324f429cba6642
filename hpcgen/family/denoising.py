"""Real structures under noise, denoised and compared with what they were: the experiment of PCCD.

The paper adds all 1000 steps of noise and takes them off again (iScience 28, 111659, figure 1: number of atoms right
in 67.81 % of 1,280 structures). After 1000 steps nothing is left of the structure, so that number says what the
condition and the memory of the training data give. Here noise ends at any step: the curve over it says what the
network can do with what is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from hpcgen.config import Config
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.diffusion.sampling import PartSampler
from hpcgen.errors import ConfigError, Failure
from hpcgen.family.conditions import ELEMENTS
from hpcgen.family.draw import Trained
from hpcgen.family.pointcloud_generator import to_samples
from hpcgen.flow import Candidate, Entry, seed_of
from hpcgen.represent.composition import order_elements
from hpcgen.screen.matching import Matcher

if TYPE_CHECKING:
    from hpcgen.family.pointcloud import PointCloudFamily

CONDITION_ALONE = 0  # in place of a starting step: noise without any structure below it
LENGTH_LIMIT = 0.05  # relative error of a lattice length that still counts as right
NEAR = 0.5  # angstrom: an atom that lies so near to where it was is found
_IMAGES = np.array(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij")).reshape(3, -1).T


@dataclass(frozen=True, eq=False)
class Denoised:
    """One structure from one starting step; what cannot be said is NaN.

    Attributes:
        id: of the entry.
        start: steps of noise that were added; 0: pure noise, so that only the condition is known.
        formula: of the real structure.
        atoms: in its cell.
        found: atoms decoded, 0 where nothing could be.
        atoms_right: as many atoms as there were.
        composition_right: as many of each element.
        elements_present: every element of the condition occurs.
        lengths_right: lattice lengths within 5 %, of three.
        length_error: largest relative error of a length.
        displacement: root mean square over the atoms, angstrom, in the real cell; only with the right composition.
        near: share of the atoms within half an angstrom of where they were, likewise.
        matched: StructureMatcher's default tolerances take both for the same crystal.
        reason: why nothing was decoded; empty if something was.
        pair: the real crystal and the decoded one, if there is one; not in the table.
    """

    id: str
    start: int
    formula: str
    atoms: int
    found: int = 0
    atoms_right: bool = False
    composition_right: bool = False
    elements_present: bool = False
    lengths_right: int = 0
    length_error: float = math.nan
    displacement: float = math.nan
    near: float = math.nan
    matched: bool = False
    reason: str = ""
    pair: tuple[Crystal, Crystal] | None = None


COLUMNS = tuple(f.name for f in fields(Denoised) if f.name != "pair")


def denoise(
    family: PointCloudFamily,
    trained: Trained,
    entries: Sequence[Entry],
    starts: Sequence[int],
    config: Config,
    device: torch.device | str = "cpu",
) -> Iterator[Denoised]:
    """Every structure from every starting step, told nothing but its elements; structure by structure within a step.

    The noise of a structure is the same at every step, and the same whatever else is denoised.

    Args:
        family: as fitted.
        trained: its network.
        entries: structures that fit the family.
        starts: steps of noise, 1 to those of the model, or `CONDITION_ALONE`.
        config: seed and the sections sample and reconstruct.
        device: of the network.

    Raises:
        ConfigError: for a starting step that the model does not have.
    """
    part, size = trained.part, config.sample.micro_batch
    if bad := [s for s in starts if not 0 <= s <= part.schedule.steps]:
        raise ConfigError(
            f"there is no starting step {bad[0]}", expected=f"1 to {part.schedule.steps}, or 0 for the condition alone"
        )
    try:
        sampler = PartSampler(part, trained.network, config.sample, config.seed, (trained.lower, trained.upper), device)
    except ValueError as error:
        raise ConfigError(f"sample.steps: {error}", expected=f"at most {part.schedule.steps}") from None
    decoder = family.reconstructor(family.sample_attrs(), config)
    for start in starts:
        for first in range(0, len(entries), size):
            block = entries[first : first + size]
            ids = [e.id for e in block]
            slots = [order_elements(e.crystal.numbers.tolist()) for e in block]
            c = torch.from_numpy(np.stack([family.conditions.ask({ELEMENTS: z}) for z in slots]))
            if start == CONDITION_ALONE:
                x = sampler.draw(ids, c)
            else:
                x0 = torch.from_numpy(family.encode([e.crystal for e in block]))
                x = sampler.redraw(ids, x0, start - 1, c)
            samples = to_samples(family, ids, slots, x.cpu().numpy()[: len(ids)])
            for entry, sample in zip(block, samples, strict=True):
                built: Candidate | Failure = (
                    sample
                    if isinstance(sample, Failure)
                    else decoder.reconstruct(sample, sample.id, seed_of(config.seed, sample.id, "denoising"))
                )
                yield compare(entry, start, built)


def compare(entry: Entry, start: int, built: Candidate | Failure) -> Denoised:
    """What became of a structure."""
    real = entry.crystal
    row = Denoised(entry.id, start, real.formula, len(real))
    if isinstance(built, Failure):
        return replace(row, reason=built.kind)
    ours = built.crystal
    errors = np.abs(ours.parameters[:3] / real.parameters[:3] - 1)
    same = sorted(ours.numbers.tolist()) == sorted(real.numbers.tolist())
    apart = displacements(real, ours) if same else None
    matcher = Matcher()
    return replace(
        row,
        found=len(ours),
        atoms_right=len(ours) == len(real),
        composition_right=same,
        elements_present=set(ours.numbers.tolist()) == set(real.numbers.tolist()),
        lengths_right=int((errors <= LENGTH_LIMIT).sum()),
        length_error=float(errors.max()),
        displacement=math.nan if apart is None else float(np.sqrt((apart**2).mean())),
        near=math.nan if apart is None else float((apart <= NEAR).mean()),
        matched=ours.formula == real.formula and matcher.equal(matcher.reduce(real), matcher.reduce(ours)),
        pair=(real, ours),
    )


def displacements(real: Crystal, ours: Crystal) -> FloatArray:
    """(n,) angstrom in the real cell: how far each atom lies from its partner, see `paired`."""
    return np.linalg.norm(paired(real, ours)[1] @ real.lattice, axis=1)


def paired(real: Crystal, ours: Crystal) -> tuple[NDArray[np.int64], FloatArray]:
    """Atoms of an element paired so that squared distances in the real cell are least: (n,) partners, (n, 3) ways.

    Fractional coordinates are compared as they are, with periodic images, for denoising keeps origin and cell. A way is
    the difference of fractional coordinates, ours less the real ones, to the nearest image.

    Raises:
        ValueError: if the compositions differ.
    """
    partner, away = np.zeros(len(real), dtype=np.int64), np.zeros((len(real), 3))
    for z in np.unique(real.numbers):
        mine, theirs = np.flatnonzero(real.numbers == z), np.flatnonzero(ours.numbers == z)
        if len(mine) != len(theirs):
            raise ValueError(f"{len(mine)} atoms of Z = {z} cannot be paired with {len(theirs)}")
        delta = ours.frac[theirs][None] - real.frac[mine][:, None]
        images = (delta - np.rint(delta))[:, :, None] + _IMAGES
        square = ((images @ real.lattice) ** 2).sum(-1)
        rows, columns = linear_sum_assignment(square.min(-1))
        partner[mine[rows]] = theirs[columns]
        away[mine[rows]] = images[rows, columns, square[rows, columns].argmin(-1)]
    return partner, away


def curve(rows: Sequence[Denoised]) -> dict[int, dict[str, float]]:
    """Of each starting step, the condition alone last: shares of all structures, and of those with the atoms right.

    `n`, `decoded`, `atoms_right`, `composition_right`, `elements_present`, `matched`: of all structures.
    `lengths`: lattice lengths within 5 % of those with the right number of atoms, as the paper counts. `coordinates`:
    atoms within half an angstrom of those with the right composition; `displacement`: their median, angstrom.
    """
    starts = sorted({r.start for r in rows}, key=lambda s: s or math.inf)
    return {start: _summary([r for r in rows if r.start == start]) for start in starts}


def _summary(rows: Sequence[Denoised]) -> dict[str, float]:
    counted = [r for r in rows if r.atoms_right]
    placed = [r for r in rows if r.composition_right]
    return {
        "n": len(rows),
        "decoded": _mean([not r.reason for r in rows]),
        **{
            name: _mean([getattr(r, name) for r in rows])
            for name in ("atoms_right", "composition_right", "elements_present", "matched")
        },
        "lengths": _mean([r.lengths_right / 3 for r in counted]),
        "coordinates": _mean([r.near for r in placed]),
        "displacement": float(np.median([r.displacement for r in placed])) if placed else math.nan,
    }


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values)) if values else math.nan


def summary_json(found: Mapping[int, Any]) -> dict[str, Any]:
    """Numbers by starting step with `condition_alone` for its name, and None for what is not known: as JSON holds them.

    Args:
        found: by starting step trees of numbers with names.
    """
    return {"condition_alone" if start == CONDITION_ALONE else str(start): _rounded(of) for start, of in found.items()}


def _rounded(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _rounded(value) for name, value in tree.items()}
    return None if math.isnan(tree) else round(tree, 4)
