from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_run import known_crystals, make_run  # type: ignore[import-not-found]

from hpcgen import report
from hpcgen.crystal import Crystal, to_structure
from hpcgen.report import funnel, svg
from hpcgen.report.data import collect
from hpcgen.report.headline import best_row, lines, numbers, reference, stable_limit, thresholds
from hpcgen.report.render import picture
from hpcgen.report.scene import scene
from hpcgen.report.training import read_curve


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    return collect(folder, make_run(folder))


def test_thresholds_count_everything_generated(data):
    # energies of the fixture: -0.02, 0, 0.05, 0.08 (equal counts), 0.2, 0.3 and above; 20 samples, 13 relaxed
    counted = [(t.e_hull, t.relaxed, t.unique, t.sun) for t in thresholds(data)]
    assert counted == [(0.0, 2, 1, 0), (0.08, 4, 3, 2), (0.25, 5, 4, 3)]
    middle = thresholds(data)[1]
    assert (middle.of_generated, middle.sun_of_generated) == (4 / 20, 2 / 20)
    assert middle.of_relaxed == 4 / 13
    assert stable_limit(data) == 0.08


def test_five_lines(data):
    text = lines(data)
    assert len(text) == 5
    assert "20 samples generated, 13 reconstructed, 13 passed screening" in text[0]
    assert "13 crystals relaxed by chgnet 0.3.0, 12 converged" in text[1]
    assert "2 (10.0 % of all generated)" in text[3]
    assert "NOT Materials Project" in text[4]


def test_funnel_balances_from_end_to_end(data):
    steps = funnel.chain(data)
    assert [s.label for s in steps][-1] == "and novel"
    for step in steps:
        assert step.entered == step.left + sum(step.losses.values())
    for before, after in itertools.pairwise(steps):
        assert after.entered == before.left
    assert [s.stage for s in funnel.side(data)] == ["data", "train", "reference"]


def test_samples_of_other_runs_are_generated_too(data):
    """10 more entered the reconstruction than this run has drawn: every share is of 30, and the funnel says so."""
    flows = [
        replace(f, entered=f.entered + 10, left=f.left + 10) if f.stage == "reconstruct" else f for f in data.flows
    ]
    mixed = replace(data, flows=flows)
    assert (data.other_samples, mixed.other_samples, mixed.generated_count) == (0, 10, 30)
    assert thresholds(mixed)[1].of_generated == 4 / 30
    assert "30 samples generated" in lines(mixed)[0]
    first, others, rebuilt = funnel.chain(mixed)[:3]
    assert (first.entered, others.label, others.left) == (20, "with 10 samples of other runs", first.left + 10)
    assert rebuilt.entered == others.left


def test_summary_is_that_of_the_finished_report(tmp_path):
    config = make_run(tmp_path, relaxed=2)
    assert report.summary(tmp_path) == []
    report.build(tmp_path, config, tmp_path / "report")
    assert report.summary(tmp_path) == lines(collect(tmp_path, config))
    content = json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))
    assert (content["schema"], content["generated"], content["relaxed"]) == ("hpcgen.report", 20, 2)


def test_numbers_without_crystals_are_null_not_nan(tmp_path):
    config = make_run(tmp_path, relaxed=0)
    text = json.dumps(numbers(collect(tmp_path, config)), allow_nan=False)
    assert json.loads(text)["e_hull_min"] is None


def test_a_reference_from_a_file_is_not_called_the_same_potential(tmp_path):
    config = make_run(tmp_path, overrides=["hull.reference=mp.csv.gz"])
    found = reference(collect(tmp_path, config))
    assert not found.same_potential
    assert "same potential" not in found.headline
    assert "No crystal here was computed by DFT" in found.text


def test_curve_survives_empty_cells_and_a_missing_file(tmp_path):
    assert read_curve(tmp_path / "train.csv") == {}
    (tmp_path / "train.csv").write_text("step,train_loss,validation_loss\n1,0.5,\n2,oops,0.25\n")
    curve = read_curve(tmp_path / "train.csv")
    np.testing.assert_equal(curve["train_loss"], [0.5, np.nan])
    chart = svg.curves(curve["step"], {k: v for k, v in curve.items() if "loss" in k}, "step", "loss")
    assert chart.count("<polyline") == 2
    assert "nan" not in chart


def test_histogram_counts_every_crystal():
    values = np.concatenate([np.linspace(-0.05, 0.4, 37), [5.0, np.nan, -2.5]])
    chart = svg.energy_histogram(values, [0.0, 0.08, 0.25])
    counts = [int(t.rsplit(": ", 1)[1]) for t in _titles(chart)]
    assert sum(counts) == 39  # the outliers are in the last and the first bar, and said
    assert "1 beyond" in chart
    assert "1 below" in chart
    assert chart.count('class="limit"') == 3
    assert svg.energy_histogram([], [0.0]) == ""


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], [1.0, 400.0], [-1e-9]])
def test_charts_of_degenerate_data(values):
    for chart in (
        svg.comparison(values, [], "x"),
        svg.comparison(values, values, "x", whole=True),
        svg.energy_histogram(values, []),
    ):
        assert "nan" not in chart
        assert 'height="-' not in chart
        assert _titles(chart)


def test_shares_add_up_to_one():
    rng = np.random.default_rng(0)
    chart = svg.comparison(rng.integers(1, 6, 200), rng.integers(1, 6, 300), "atoms", whole=True)
    assert sum(float(t.rsplit(": ", 1)[1].removesuffix(" %")) for t in _titles(chart)) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("crystal", known_crystals()[:8])
def test_scene_keeps_the_crystal(crystal):
    s = scene(crystal)
    distances = to_structure(crystal).distance_matrix
    gaps = np.linalg.norm(s.position[:, None] - s.position, axis=-1)
    assert gaps[gaps > 1e-6].min() == pytest.approx(crystal.smallest_distance(), rel=1e-6)
    assert set(s.numbers.tolist()) == set(crystal.numbers.tolist())
    assert len(s.position) >= len(distances)
    np.testing.assert_allclose(s.lattice @ s.lattice.T, crystal.lattice @ crystal.lattice.T, atol=1e-9)
    assert np.linalg.det(s.lattice) == pytest.approx(np.linalg.det(crystal.lattice))  # turned, never mirrored


def test_corner_atom_is_shown_eight_times_and_drawn():
    crystal = Crystal(np.eye(3) * 3, np.zeros((1, 3)), np.array([29]))
    assert len(scene(crystal).position) == 8
    image = picture(crystal, 60)
    assert image.shape == (60, 60, 4)
    assert 0.05 < (image[..., 3] > 0.5).mean() < 0.95
    assert image.min() >= 0
    assert image.max() <= 1


def _titles(chart: str) -> list[str]:
    import re

    return re.findall(r"<title>(.*?)</title>", chart)


def test_what_lies_far_below_the_hull_is_marked_ranked_last_and_never_the_headline(data):
    wild = replace(data.rows[0], stability=replace(data.rows[0].stability, e_hull=-0.7, unique=True, novel=True))
    tame = replace(data.rows[1], stability=replace(data.rows[1].stability, e_hull=-0.05, unique=True, novel=True))
    assert wild.doubtful
    assert not tame.doubtful
    rows = replace(data, rows=[tame, wild])
    assert best_row(rows) is tame
    assert best_row(replace(data, rows=[wild])) is wild
    assert "1 of the relaxed so far below the hull" in lines(rows)[3]
    assert "-0.700" not in lines(rows)[3]
    assert numbers(rows)["far_below_hull"] == 1
    assert "so far below" not in lines(replace(data, rows=[tame]))[3]
