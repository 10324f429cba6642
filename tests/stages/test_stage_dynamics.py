"""`hpcgen dynamics` on a small run: real simulations of a few steps by CHGNet."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hpcgen import config as configuration
from hpcgen import flow, pipeline, provenance, report, store
from hpcgen.config import DynamicsConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, DependencyError, Failure, RunFolderError
from hpcgen.flow import Dynamics, Simulation, Stability
from hpcgen.relax.minimise import UnphysicalError
from hpcgen.report.data import collect
from hpcgen.report.table import columns
from hpcgen.stages import dynamics as stage
from hpcgen.stages.context import Context

SHORT = """
name: warm
farm: {ranks: 1, launcher: none}
relax: {device: cpu}
dynamics: {n: 3, temperatures: [300, 900], equilibration: 0.01, time: 0.02, timestep: 2, interval: 4, width: 2.4}
"""


def record(i: int, crystal: Crystal, e_hull: float, **changes) -> Stability:
    facts = {
        "id": flow.make_id("x", "hull", i),
        "crystal": crystal,
        "candidate_id": flow.make_id("x", "reconstruct", i),
        "relaxation_id": flow.make_id("x", "relax", i),
        "formula": crystal.formula,
        "spacegroup": 225,
        "energy_per_atom": -3.0,
        "formation_energy": -1.0,
        "e_hull": e_hull,
        "e_hull_self": max(e_hull, 0.0),
        "decomposition": "1.00 NaCl",
        "reference_entries": 3,
        "scale": "s",
        "reference_scale": "s",
        "reference_digest": "d",
        "label": "same-scale",
        "unique": True,
        "duplicate_of": "",
        "novel": True,
    }
    return Stability(**(facts | changes))


def rocksalt(cation: int, anion: int, a: float) -> Crystal:
    lattice = np.array([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
    return Crystal(lattice, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([cation, anion]))


@pytest.fixture
def ctx(tmp_path):
    """A run folder whose stability.h5 holds salts, one of them in a tiny cell, and some that are not chosen."""
    config = configuration.loads(SHORT)
    tiny = Crystal(np.diag([1.2, 1.2, 1.2]), np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), np.array([19, 17]))
    records = [
        record(0, rocksalt(12, 8, 4.2), 0.05, novel=False),
        record(1, rocksalt(11, 17, 5.6), 0.02),
        record(2, tiny, 0.03),
        record(3, rocksalt(3, 9, 4.0), 0.5),
        record(4, rocksalt(3, 35, 5.5), 0.01, unique=False),
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    store.write(folder / "stability.h5", Stability, records, header=provenance.header(config, {}))
    (folder / "config.yaml").write_text(config.text())
    return Context(config, folder)


def test_who_is_chosen_and_what_comes_out(ctx):
    pytest.importorskip("chgnet")
    pytest.importorskip("pymatgen.analysis.diffusion.analyzer", reason="pip install 'hpcgen[dynamics]'")
    ctx = replace(
        ctx, config=ctx.config.model_copy(update={"dynamics": ctx.config.dynamics.model_copy(update={"max_atoms": 10})})
    )
    assert [s.formula for s in stage.candidates(ctx)] == ["NaCl", "KCl", "MgO"]
    balance = pipeline.run_stage(ctx, "dynamics")
    assert (balance.entered, balance.left, balance.failures) == (3, 2, {"cell-too-large": 1})
    with store.open(ctx.path("dynamics.h5"), Dynamics) as f:
        found = {d.formula: d for d in f}
        (failure,) = f.failures
    assert set(found) == {"NaCl", "MgO"}
    assert (failure.kind, failure.id) == ("cell-too-large", flow.make_id("x", "reconstruct", 2))
    salt = found["NaCl"]
    assert salt.temperature.tolist() == [300, 900]
    assert salt.stays
    assert salt.stays_up_to == 900
    assert salt.path_dimensions == 3
    assert salt.path_ratio == pytest.approx(salt.path / 1.16, rel=1e-3)  # Shannon's crystal radius of sixfold sodium
    assert found["MgO"].ion == "Mg"
    assert np.isnan(salt.conductivity)  # nothing hops in 20 fs
    assert not list(ctx.folder.glob("shards-*"))


def test_results_are_the_same_again_and_other_settings_are_refused(ctx):
    pytest.importorskip("chgnet")
    pytest.importorskip("pymatgen.analysis.diffusion.analyzer", reason="pip install 'hpcgen[dynamics]'")
    few = ctx.config.dynamics.model_copy(update={"n": 1, "temperatures": [300.0]})
    one = replace(ctx, config=ctx.config.model_copy(update={"dynamics": few}))
    pipeline.run_stage(one, "dynamics")
    first = store.content_digest(one.path("dynamics.h5"))
    stage.check(one)
    one.check()  # the folder is still this configuration's
    pipeline.run_stage(one, "dynamics", redo=True)
    assert store.content_digest(one.path("dynamics.h5")) == first
    other = replace(ctx, config=ctx.config.model_copy(update={"dynamics": few.model_copy(update={"time": 0.03})}))
    other.check()
    with pytest.raises(RunFolderError, match="--redo"):
        stage.check(other)

    data = collect(one.folder, one.config)
    assert [r.dynamics.formula for r in data.rows if r.dynamics] == ["NaCl"]
    assert "stays a crystal" in [c.head for c in columns(data)]
    report.build(one.folder, one.config, one.path("report"))
    page = one.path("report/index.html").read_text()
    assert "Molecular dynamics by CHGNet" in page
    assert "yes, 300 K" in page


def test_what_lies_implausibly_low_is_simulated_last(ctx):
    records = [record(i, rocksalt(11, 17, 5.6), e) for i, e in enumerate((-2.3, 0.05, -0.01))]
    store.write(ctx.path("stability.h5"), Stability, records, header=provenance.header(ctx.config, {}))
    assert [s.e_hull for s in stage.candidates(ctx)] == [-0.01, 0.05, -2.3]


def test_mistakes_are_named(ctx):
    s = record(9, rocksalt(3, 9, 4.0), 0.0)
    with pytest.raises(ConfigError, match="Xy"):
        stage.prepare(s, DynamicsConfig(ions=["Xy"]))
    too_large = stage.prepare(s, DynamicsConfig(width=20, max_atoms=50))
    assert isinstance(too_large, Failure)
    assert too_large.kind == "cell-too-large"
    assert too_large.id == s.candidate_id


@pytest.mark.parametrize(("min_path", "ion"), [(0.0, 3), (5.0, 0)])
def test_the_path_decides_whether_an_ion_is_looked_for(min_path, ion):
    case = stage.prepare(record(9, rocksalt(3, 9, 4.0), 0.0), DynamicsConfig(min_path=min_path, width=5))
    assert case.ion == ion
    assert case.path > 0


def simulated(temperature: float, diffusivity: float, *, stays: bool = True, measured: bool = True) -> Simulation:
    return Simulation(
        id=flow.make_id("x", f"t{temperature}", 0),
        candidate_id=flow.make_id("x", "reconstruct", 9),
        temperature=temperature,
        mean_temperature=temperature,
        displacement=1.0,
        shift=0.1,
        lindemann=0.05,
        stays=stays,
        diffusivity=diffusivity,
        diffusivity_error=0.1 * diffusivity,
        hops=100.0,
        measured=measured,
        seconds=1.0,
    )


def test_only_measured_diffusion_in_the_solid_counts():
    config = DynamicsConfig(min_path=0, width=5, conductivity_at=300)
    case = stage.prepare(record(9, rocksalt(3, 9, 4.0), 0.0), config)
    kt = 8.617333262e-5

    def d(t: float) -> float:
        return 1e-3 * np.exp(-0.3 / (kt * t))

    runs = [simulated(600, d(600)), simulated(900, d(900)), simulated(1200, 1.0, stays=False)]
    out = stage.summarise(case, runs, config, flow.make_id("x", "dynamics", 0), "potential")
    assert out.activation_energy == pytest.approx(0.3, rel=1e-6)
    assert not out.stays
    assert out.stays_up_to == 900
    density = 1 / (case.stability.crystal.volume * 1e-24)
    expected = d(300) * density * 1.602176634e-19**2 / (1.380649e-23 * 300)
    assert out.conductivity == pytest.approx(expected, rel=1e-4)
    assert out.conductivity_factor > 1.3
    few = [simulated(600, d(600), measured=False), simulated(900, d(900)), simulated(1200, 1.0, stays=False)]
    assert np.isnan(stage.summarise(case, few, config, flow.make_id("x", "dynamics", 0), "potential").conductivity)


def test_a_new_report_leaves_the_simulations_and_a_new_hull_takes_them_along(ctx):
    for name in ("dynamics.h5", "report"):
        ctx.path(name).write_text("")
    ctx.path("shards-dynamics").mkdir()
    pipeline.set_aside(ctx, pipeline.stage("report"))
    assert ctx.path("dynamics.h5").exists()
    assert ctx.path("shards-dynamics").exists()
    assert not ctx.path("report").exists()
    pipeline.set_aside(ctx, pipeline.stage("hull"))
    assert not ctx.path("dynamics.h5").exists()
    assert not ctx.path("shards-dynamics").exists()


def test_forces_come_from_whichever_method_a_calculator_has():
    crystal = rocksalt(11, 17, 5.6)
    result = SimpleNamespace(energy=-1.0, forces=np.zeros((2, 3)))
    assert stage.potential_of(SimpleNamespace(evaluate=lambda c: result), "one")(crystal) is result
    assert stage.potential_of(SimpleNamespace(evaluate_all=lambda cs: [result for _ in cs]), "many")(crystal) is result
    broken = SimpleNamespace(evaluate_all=lambda cs: [UnphysicalError("isolated-atom", "far") for _ in cs])
    with pytest.raises(UnphysicalError):
        stage.potential_of(broken, "many")(crystal)
    with pytest.raises(ConfigError, match="evaluates none"):
        stage.potential_of(SimpleNamespace(), "none")


def test_settings_of_the_dynamics_decide_about_nothing_else():
    plain, other = configuration.loads(SHORT), configuration.loads(SHORT, overrides=["dynamics.time=5"])
    assert plain.digest() == other.digest()
    assert plain.identity("hull") == other.identity("hull")
    assert plain.identity("dynamics") != other.identity("dynamics")
    assert plain.identity("dynamics") != configuration.loads(SHORT, overrides=["relax.max_steps=7"]).identity(
        "dynamics"
    )


def test_a_missing_package_is_told_before_the_simulations(ctx, monkeypatch):
    pytest.importorskip("chgnet")

    def missing():
        raise DependencyError("not installed")

    monkeypatch.setattr(stage.dynamics, "check_installed", missing)
    monkeypatch.setattr(stage.dynamics, "simulate", lambda *a, **k: pytest.fail("simulated first"))
    with pytest.raises(DependencyError):
        stage.run(ctx)
