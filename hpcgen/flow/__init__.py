"""What flows from stage to stage: frozen records whose fields are the columns of the HDF5 files.

The store derives schemas, readers, writers and `docs/hdf5.md` from their declarations (`hpcgen.flow.columns`), so that
a column exists in one place only.
"""

from hpcgen.flow.beside import Dynamics, Phonons, RoundTrip, Simulation
from hpcgen.flow.chain import (
    Candidate,
    DftRelaxation,
    Entry,
    ReferenceEntry,
    Relaxation,
    Selected,
    Stability,
    Survivor,
)
from hpcgen.flow.columns import array, column, content, per_atom, per_step
from hpcgen.flow.ids import ID_LENGTH, make_id, seed_of

__all__ = [
    "ID_LENGTH",
    "Candidate",
    "DftRelaxation",
    "Dynamics",
    "Entry",
    "Phonons",
    "ReferenceEntry",
    "Relaxation",
    "RoundTrip",
    "Selected",
    "Simulation",
    "Stability",
    "Survivor",
    "array",
    "column",
    "content",
    "make_id",
    "per_atom",
    "per_step",
    "seed_of",
]
