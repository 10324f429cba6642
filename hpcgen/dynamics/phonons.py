"""Harmonic phonons by finite displacements (phonopy): is a crystal a minimum of the energy, or only a saddle point?

A relaxation keeps the symmetry it starts with and cannot leave a saddle point; its imaginary modes can. The supercell
is the smallest diagonal one whose faces are `phonons.supercell_length` apart. Modes are looked at where it makes them
exact, at the wave vectors commensurate with it; in between phonopy interpolates, and an interpolated imaginary mode is
often none. The splitting of longitudinal and transverse optical modes at Gamma is left out: it lifts modes only.

Forces that the relaxation left need no run of their own to be subtracted: phonopy displaces an atom to both sides where
they are not equal by symmetry, and what is the same in both drops out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import PhononsConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.errors import DependencyError
from hpcgen.reconstruct.refine_fit import deformation
from hpcgen.reconstruct.symmetry import find_group, symmetric_positions, symmetric_strain
from hpcgen.relax.minimise import Evaluation, UnphysicalError

EvaluateAll = Callable[[Sequence[Crystal]], Sequence[Evaluation | UnphysicalError]]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Modes of a crystal of n atoms at the Q wave vectors commensurate with its supercell.

    Attributes:
        supercell: (3,) repetitions of the cell.
        displacements: distinct ones that were evaluated.
        q_points: (Q, 3) in units of the reciprocal lattice; the first is Gamma.
        frequencies: (Q, 3 n) THz, ascending at each; imaginary ones negative.
    """

    supercell: NDArray[np.int64]
    displacements: int
    q_points: FloatArray
    frequencies: FloatArray

    def lowest(self) -> tuple[float, FloatArray]:
        """The lowest frequency (THz) and its wave vector, the three translations at Gamma left out.

        At Gamma those are the three modes nearest to zero: an imaginary optical mode lies below them.
        """
        at_gamma = self.frequencies[0][np.argsort(np.abs(self.frequencies[0]))[3:]]
        places = [(float(f), 0) for f in at_gamma]
        places += [(float(f.min()), q) for q, f in enumerate(self.frequencies[1:], 1)]
        frequency, q = min(places, default=(0.0, 0))
        return frequency, self.q_points[q]


def supercell_of(crystal: Crystal, length: float) -> NDArray[np.int64]:
    """(3,) repetitions after which opposite faces of the cell are at least `length` (angstrom) apart."""
    heights = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    return np.ceil(length / heights - 1e-6).astype(np.int64).clip(1)


def symmetrised(crystal: Crystal, tolerance: float) -> Crystal:
    """The nearest crystal with the symmetry that is found within `tolerance` (angstrom); 0: the crystal as it is.

    What is relaxed to a small force is symmetric to some 0.03 angstrom only, and each operation that an exact search
    misses costs supercells: a crystal without any needs six for each atom. Where forces are linear, those of the mean
    of equivalent positions are the mean of theirs, and so within the same limit.
    """
    group = find_group(crystal.lattice, crystal.frac, crystal.numbers, tolerance) if tolerance else None
    if group is None:
        return crystal
    lattice = crystal.lattice @ deformation(symmetric_strain(crystal.lattice, group))
    return Crystal(lattice, symmetric_positions(crystal.frac, group), crystal.numbers)


def check_installed() -> None:
    """Raise if phonopy is not there.

    Raises:
        DependencyError: naming the extra.
    """
    if find_spec("phonopy") is None:
        raise DependencyError("the package phonopy is not installed", remedy="pip install 'hpcgen[phonons]'")


@dataclass(frozen=True, eq=False)
class Displaced:
    """The supercells whose forces decide the modes of a crystal of n atoms.

    Attributes:
        repeats: (3,) cells along each lattice vector.
        cells: distinct displacements, each in a supercell; the same for the same crystal and version of phonopy.
        origin: (atoms of a supercell,) which atom of the crystal each is an image of.
    """

    repeats: NDArray[np.int64]
    cells: list[Crystal]
    origin: NDArray[np.int64]
    _phonopy: Any

    def spectrum(self, forces: Sequence[FloatArray]) -> Spectrum:
        """The modes.

        Args:
            forces: on the atoms of each of `cells`, eV/angstrom. Their mean, which a crystal at rest has not, is taken
                off: grids in space (VASP) leave one.
        """
        self._phonopy.forces = [f - f.mean(axis=0) for f in forces]
        self._phonopy.produce_force_constants()
        self._phonopy.symmetrize_force_constants()
        steps = [np.arange(n) / n for n in self.repeats]
        q_points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
        self._phonopy.run_qpoints(q_points)
        frequencies = np.sort(np.asarray(self._phonopy.qpoints.frequencies, dtype=np.float64), axis=1)
        return Spectrum(self.repeats, len(self.cells), q_points, frequencies)


def displaced(crystal: Crystal, config: PhononsConfig, moments: Sequence[float] | None = None) -> Displaced:
    """The displaced supercells of a relaxed crystal.

    Args:
        crystal: relaxed.
        config: supercell and displacement.
        moments: magnetic, of its atoms; operations that change them are no symmetries.

    Raises:
        UnphysicalError: `supercell-too-large` beyond `phonons.max_atoms` atoms.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    repeats = supercell_of(crystal, config.supercell_length)
    atoms = int(repeats.prod()) * len(crystal)
    if atoms > config.max_atoms:
        text = f"{atoms} atoms ({'x'.join(map(str, repeats))} cells), more than phonons.max_atoms ({config.max_atoms})"
        raise UnphysicalError("supercell-too-large", text)
    cell = PhonopyAtoms(
        numbers=crystal.numbers, cell=crystal.lattice, scaled_positions=crystal.frac, magnetic_moments=moments
    )
    phonopy = Phonopy(cell, np.diag(repeats), primitive_matrix=np.eye(3), log_level=0)
    phonopy.generate_displacements(distance=config.displacement)
    cells = [
        Crystal(cell.cell, cell.scaled_positions, cell.numbers) for cell in phonopy.supercells_with_displacements or []
    ]
    first = [phonopy.supercell.u2u_map[i] for i in phonopy.supercell.s2u_map]
    return Displaced(repeats, cells, np.array(first, dtype=np.int64), phonopy)


def spectrum(evaluate_all: EvaluateAll, crystal: Crystal, config: PhononsConfig) -> Spectrum:
    """The modes of a relaxed crystal by a potential.

    Args:
        evaluate_all: the potential.
        crystal: with forces near zero, else the modes mean nothing.
        config: supercell and displacement.

    Raises:
        UnphysicalError: as `displaced`; what the potential says of a displaced supercell.
    """
    supercells = displaced(crystal, config)
    forces = []
    for start in range(0, len(supercells.cells), config.batch):
        for result in evaluate_all(supercells.cells[start : start + config.batch]):
            if isinstance(result, UnphysicalError):
                raise result
            if not np.isfinite(result.forces).all():
                raise UnphysicalError("not-finite", "forces of a displaced supercell are not finite")
            forces.append(result.forces)
    return supercells.spectrum(forces)
