"""Crystals as fixed-length vectors: descriptors, composition, lattice, and the scaling that a network sees."""
