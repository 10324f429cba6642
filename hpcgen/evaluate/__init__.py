"""Benchmark metrics of crystal generators, as their papers' code defines them. docs/evaluation.md lists them.

| file | metrics |
|---|---|
| `sources.py` | the sets: run folders, CIFs, extxyz, CDVAE's `.pt` |
| `measured.py`, `fingerprint.py`, `cache.py` | validity, density, elements and fingerprints of each crystal |
| `generation.py`, `coverage.py`, `distributions.py` | validity, COV, EMD, uniqueness, novelty of a set |
| `matching.py` | match rate and RMSE, METRe and cRMSE |
| `distances.py` | the distances of CSPBenchMetrics |
| `stability.py` | S.U.N. |
| `parallel.py`, `table.py` | processes, tables |
"""
