"""From HDF5 to an ASE database of one's own choosing: stable crystals in their conventional cells.

    python examples/analysis/to_ase_database.py runs/quickstart -o stable.db --stable 0.08
    ase db stable.db formula,e_hull,spacegroup -s e_hull

`hpcgen export RUN --format ase` writes all columns of a table; this shows how to choose and change on the way.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

import hpcgen


def main() -> None:
    """Select, standardise, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("stable.db"), help="the database")
    parser.add_argument("--stable", type=float, default=0.08, help="eV/atom that count as stable (default: 0.08)")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"{options.output} exists")
    with hpcgen.open(options.run) as run, connect(options.output) as database:
        table = run.joined().query("unique and novel and e_hull <= @options.stable").sort_values("e_hull")
        crystals = run.crystals("stability")
        for name, row in table.iterrows():
            structure = SpacegroupAnalyzer(crystals.structure(name), symprec=0.1).get_conventional_standard_structure()
            atoms = AseAtomsAdaptor.get_atoms(structure)
            facts = {key: float(row[key]) for key in ("e_hull", "formation_energy", "residual")}
            database.write(atoms, identity=f"hpcgen-{name}", spacegroup=int(row["spacegroup"]), **facts)
    print(f"{len(table)} crystals: {options.output}")


if __name__ == "__main__":
    main()
