"""What moves in a crystal, by the calculator that relaxed it: phonons."""

from hpcgen.dynamics.phonons import Spectrum, spectrum, supercell_of

__all__ = ["Spectrum", "spectrum", "supercell_of"]
