"""Crystals as clouds of points (PCCD, iScience 28, 111659): encoding, decoding by clustering on the torus, polish."""
