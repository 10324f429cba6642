"""Energies of several calculators: a column each, the last hull leads, and nothing that was not selected is lost."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_run import make_run  # type: ignore[import-not-found]

from hpcgen import flow, provenance, report, store
from hpcgen.report.data import collect
from hpcgen.report.page import render
from hpcgen.report.table import columns, table_row
from hpcgen.stages.context import Balance

CHGNET, VASP = "chgnet 0.3.0", "VASP 6.4.2"
SELECTED = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose first hull is stability-mlip.h5; five of its crystals went to VASP, and stability.h5 is of these."""
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder)
    header = provenance.header(config, {})
    (folder / "stability.h5").rename(folder / "stability-mlip.h5")
    with store.open(folder / "stability-mlip.h5") as f, store.open(folder / "relaxed-mlip.h5") as g:
        first, relaxed = list(f)[:SELECTED], list(g)[:SELECTED]
    again = [
        replace(r, id=flow.make_id("x", "dft", i), calculator=VASP, scale="vasp-pbe-mp2020", energy=r.energy - 1)
        for i, r in enumerate(relaxed)
    ]
    store.write(folder / "relaxed-vasp.h5", flow.Relaxation, again, header=header)
    judged = [
        replace(s, id=flow.make_id("x", "hull2", i), relaxation_id=r.id, e_hull=0.01 * (SELECTED - i), scale=r.scale)
        for i, (s, r) in enumerate(zip(first, again, strict=True))
    ]
    attrs = {"balance": Balance.of("stability", SELECTED, SELECTED, []).to_json(), "scale": "vasp-pbe-mp2020"}
    store.write(folder / "stability.h5", flow.Stability, judged, header=header, attrs=attrs)
    return folder, config


def test_each_crystal_has_the_verdicts_of_all(run):
    folder, config = run
    data = collect(folder, config)
    with store.open(folder / "stability-mlip.h5") as f:
        before = {s.candidate_id: s.e_hull for s in f}
    assert data.calculators == [VASP, CHGNET]
    assert len(data.rows) == SELECTED
    assert len(data.rows) + len(data.rest) == len(before)
    assert [round(r.stability.e_hull, 3) for r in data.rows] == [0.01, 0.02, 0.03, 0.04, 0.05]
    for row in (*data.rows, *data.rest):
        assert row.others[CHGNET].e_hull == before[row.stability.candidate_id]
        assert row.final == (row.judged_by == VASP)
    assert {r.relaxation.calculator for r in data.rows} == {VASP}


def test_the_funnel_goes_on_after_the_first_hull(run):
    folder, config = run
    data = collect(folder, config)
    assert (data.flow("hull").left, data.flow("stability").entered) == (len(data.rows) + len(data.rest), SELECTED)
    assert [f.stage for f in data.flows][-2:] == ["hull", "stability"]


def test_the_table_has_a_column_for_each_and_a_dash_where_one_is_missing(run):
    folder, config = run
    data = collect(folder, config)
    table = columns(data)
    heads = [str(c.head) for c in table]
    own, other = heads.index(f"E<sub>hull</sub> {VASP}"), heads.index(f"E<sub>hull</sub> {CHGNET}")
    last = table_row(1, data.rows[-1], table, set())["cells"]
    assert last[own]["text"] == "+0.050"
    assert last[other]["text"] != "–"
    rest = table_row(9, data.rest[0], table, set())["cells"]
    assert rest[own]["text"] == rest[0]["text"] == "–"
    assert rest[other]["text"] != "–"


def test_files_name_the_calculator(run, tmp_path):
    folder, config = run
    report.build(folder, config, tmp_path / "report")
    with (tmp_path / "report/stability.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["final"] for line in lines] == ["True"] * SELECTED + ["False"] * (len(lines) - SELECTED)
    assert all((line[f"e_hull ({VASP})"] != "") == (line["final"] == "True") for line in lines)
    assert all(line[f"e_hull ({CHGNET})"] for line in lines)
    content = json.loads((tmp_path / "report/report.json").read_text())
    assert content["relaxed"] == SELECTED
    assert [c["rank"] for c in content["crystals"]] == [1, 2, 3, 4, 5] + [None] * (len(lines) - SELECTED)
    assert set(content["crystals"][0]["e_hull_by"]) == {VASP, CHGNET}
    for crystal in content["crystals"]:
        assert (tmp_path / "report" / crystal["cif"]).is_file()
    page = (tmp_path / "report/index.html").read_text()
    assert VASP in page
    assert CHGNET in page


@pytest.mark.skipif(not hasattr(flow, "Phonons"), reason="this version computes no phonons")
def test_phonons_have_a_column_and_a_sentence(tmp_path):
    config = make_run(tmp_path)
    with store.open(tmp_path / "stability.h5") as f:
        first, second = f[0], f[1]
    facts = {
        "formula": "X",
        "displacements": 2,
        "supercell_atoms": 8,
        "calculator": CHGNET,
        "settings_digest": "d",
        "seconds": 1.0,
        "lowest_q": np.zeros(3),
        "supercell": np.ones(3, dtype=int),
    }
    records = [
        flow.Phonons(
            id=flow.make_id("x", "phonons", i),
            crystal=s.crystal,
            candidate_id=s.candidate_id,
            imaginary=bool(i),
            lowest_frequency=-1.25 if i else 0.0,
            gamma=np.zeros((len(s.crystal), 3)),
            **facts,
        )
        for i, s in enumerate((first, second))
    ]
    store.write(tmp_path / "phonons.h5", flow.Phonons, records, header=provenance.header(config, {}))
    data = collect(tmp_path, config)
    table = columns(data)
    column = next(i for i, c in enumerate(table) if c.head == "imaginary modes")
    shown = {r.stability.candidate_id: table_row(1, r, table, set())["cells"][column]["text"] for r in data.rows}
    assert shown[first.candidate_id] == "no (0.00)"
    assert shown[second.candidate_id] == "yes (−1.25)"
    assert sorted(shown.values()).count("–") == len(data.rows) - 2
    assert "no minimum of the energy" in render(data)
