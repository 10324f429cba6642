from __future__ import annotations

import numpy as np
import pytest

from hpcgen import config as configuration
from hpcgen import flow, provenance, report, store
from hpcgen.crystal import Crystal
from hpcgen.errors import StoreError
from hpcgen.stages import report as stage
from hpcgen.stages.context import Balance, Context


@pytest.fixture
def ctx(tmp_path):
    """A run folder that holds nothing but stability.h5, with one crystal of one atom."""
    config = configuration.loads("{name: bare}")
    crystal = Crystal(np.eye(3) * 2.9, np.zeros((1, 3)), np.array([29]))
    ids = [flow.make_id("x", s, 0) for s in ("hull", "reconstruct", "relax")]
    record = flow.Stability(
        id=ids[0],
        crystal=crystal,
        candidate_id=ids[1],
        relaxation_id=ids[2],
        formula="Cu",
        spacegroup=221,
        energy_per_atom=-4.0,
        formation_energy=0.1,
        e_hull=0.1,
        e_hull_self=0.1,
        decomposition="1.00 Cu",
        reference_entries=1,
        scale="s",
        reference_scale="s",
        reference_digest="d",
        label="same-scale",
        unique=True,
        duplicate_of="",
        novel=True,
    )
    store.write(tmp_path / "stability.h5", flow.Stability, [record], header=provenance.header(config, {}))
    return Context(config, tmp_path)


def test_only_stability_is_needed(ctx):
    assert stage.run(ctx) == Balance("report", 1, 1, {})
    assert (ctx.path("report") / "index.html").stat().st_size > 10_000
    assert len(list((ctx.path("report") / "survivors").glob("*.cif"))) == 1
    assert len(report.summary(ctx.folder)) == 5


def test_an_older_report_is_replaced_as_a_whole(ctx):
    stage.run(ctx)
    stray = ctx.path("report") / "survivors" / "0009-Old-1.cif"
    stray.write_text("old")
    stage.run(ctx)
    assert not stray.exists()
    assert sorted(p.name for p in ctx.folder.iterdir()) == ["report", "stability.h5"]


def test_a_failed_build_leaves_the_older_report(ctx):
    stage.run(ctx)
    before = (ctx.path("report") / "index.html").read_bytes()
    ctx.path("stability.h5").write_bytes(b"damaged")
    with pytest.raises(StoreError):
        stage.run(ctx)
    assert (ctx.path("report") / "index.html").read_bytes() == before
    assert sorted(p.name for p in ctx.folder.iterdir()) == ["report", "stability.h5"]


def test_missing_stability_names_the_stage(ctx):
    ctx.path("stability.h5").unlink()
    with pytest.raises(StoreError, match="hull"):
        stage.run(ctx)
