"""The benchmark of the cost of an evaluation: its crystals are crystals, and it counts what the loops do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hpcgen.config import PairSpectrumConfig
from hpcgen.represent.composition import species_channels
from hpcgen.represent.pair_spectrum import PairSpectrum

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_crystals_have_the_atoms_that_their_names_say() -> None:
    import evaluation_cost

    for name, crystal in evaluation_cost.crystals().items():
        assert len(crystal) == int(name.split(", ")[1].split()[0])
        assert crystal.smallest_distance() > 1.2
        assert 5 < crystal.volume / len(crystal) < 14


def test_images_and_bins_are_counted_as_the_kernel_visits_them() -> None:
    import evaluation_cost
    from evaluation_counts import DOUBLE, count_rdf

    crystal = evaluation_cost.crystals()["SrTiO3, 5 atoms"]
    tables, scale = PairSpectrum(PairSpectrumConfig()).prepare(crystal.lattice, 5)
    x = crystal.cart * scale
    visits = bins = 0
    for i in range(5):
        for j in range(i + 1, 5):
            d = x[j] - x[i]
            for a in range(3):
                d = d - np.rint(d @ tables.inverse[:, a]) * tables.cell[a]
            for t in tables.images:
                if math.sqrt(t @ t) > tables.cutoff + math.sqrt(d @ d):
                    break
                visits += 1
                r = math.sqrt((d + t) @ (d + t))
                if r < tables.cutoff:
                    bins += sum(abs(r - centre) <= 4.5 * tables.width for centre in tables.centres)
    assert visits > 400
    pairs, b = 10, len(tables.centres)
    work = count_rdf(tables, x, False, 336)
    assert work.traffic == DOUBLE * (3 * visits + 2 * bins + 3 * b * pairs)
    more = count_rdf(tables, x, True, 336)
    assert more.traffic == work.traffic + DOUBLE * (7 * bins + 15 * b * pairs)
    assert more.operations > 1.5 * work.operations
    assert more.memory == work.memory + DOUBLE * 15 * 336


def test_products_of_the_normal_equations_are_those_of_rows_that_share_a_channel() -> None:
    from evaluation_counts import count_normal

    species, elements = species_channels([38, 22, 22, 8, 8])
    products = 0
    for c in range(3):
        for d in range(c, 3):
            rows = [a for a in range(15) if species[a // 3] in (c, d)]
            products += sum(1 for a in rows for b in rows if b <= a) + len(rows)
    assert len(elements) == 3
    work = count_normal(species, 3, 56)
    assert (work.operations, work.traffic) == (2 * 56 * products, 16 * 56 * products)


def test_limits_are_of_the_working_set() -> None:
    from machine_peak import SIZES, bandwidth, cpu_seconds, peak

    curve = {size: 1.0 / size for size in SIZES}
    assert bandwidth(curve, 1) == curve[SIZES[0]]
    assert bandwidth(curve, SIZES[3] - 1) == curve[SIZES[3]]
    assert bandwidth(curve, 10 * SIZES[-1]) == curve[SIZES[-1]]
    assert 1e8 < peak(np.float64) < 1e12
    assert 0 < cpu_seconds(lambda: sum(range(1000)), 3) < 0.1
