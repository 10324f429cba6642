"""Whether a reference set says the same as the database that it is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpcgen.thermo.hull import Hulls
from hpcgen.thermo.reference import ReferenceSet, parse_formula

EQUAL = 1e-3  # eV/atom
ABOVE = 1e-6  # eV/atom


@dataclass(frozen=True)
class Agreement:
    """Computed energies above the hull beside the published ones.

    A set that lacks phases gives lower energies above the hull, never higher ones. Rows above the published value
    prove that the rows are not of one database: versions of it, or corrections, were mixed.

    Attributes:
        rows: rows with a published value.
        equal: of these, those that agree to 1 meV/atom.
        above: those that lie above the published value.
        largest: how far above it the worst of them lies, eV/atom.
        examples: ids of the worst of them.
    """

    rows: int
    equal: int
    above: int
    largest: float
    examples: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.equal} of {self.rows} published energies above the hull come out to 1 meV/atom"
        if not self.above:
            return f"{text}, none higher"
        return (
            f"{text}; {self.above} come out higher, by up to {self.largest:.3f} eV/atom ({', '.join(self.examples)}): "
            "their competitors are of another version of the database or carry other corrections"
        )


def against_published(reference: ReferenceSet, published: Mapping[str, float]) -> Agreement:
    """Hold the hull of a set against energies above the hull that its source published.

    Args:
        reference: the set; its elements must have entries.
        published: energy above the hull, eV/atom, by entry_id; entries without are left out.
    """
    hulls = Hulls(reference)
    equal, above = 0, []
    for e in reference.entries:
        if e.entry_id in published:
            difference = hulls.above(parse_formula(e.formula), e.energy_per_atom) - published[e.entry_id]
            equal += abs(difference) <= EQUAL
            if difference > ABOVE:
                above.append((-difference, e.entry_id))
    above.sort()
    rows = sum(e.entry_id in published for e in reference.entries)
    return Agreement(rows, equal, len(above), -above[0][0] if above else 0.0, tuple(name for _, name in above[:5]))
