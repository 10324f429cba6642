"""Round trips of real structures: every source, any number of ranks, books that balance, and a truthful table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hpcgen import cli, config, data, errors, pipeline, store
from hpcgen.config import Config, PairSpectrumConfig
from hpcgen.crystal import Crystal, lattice_parameters, to_atoms, to_structure
from hpcgen.flow import Entry, RoundTrip, content
from hpcgen.report.roundtrip import table as table_of
from hpcgen.represent.pair_spectrum import PairSpectrum
from hpcgen.stages import roundtrip
from hpcgen.stages.context import Balance, Context

PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
CRYSTALS = [
    Crystal(np.eye(3) * 3.905, PEROVSKITE, [38, 22, 8, 8, 8]),
    Crystal(np.eye(3) * 4.123, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17]),
    Crystal(5.64 / 2 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17]),
    Crystal(np.eye(3) * 3.35, [[0, 0, 0]], [84]),
    Crystal(np.diag([4.0, 4.0, 4.15]), PEROVSKITE, [56, 22, 8, 8, 8]),
]


def cif(crystal: Crystal) -> str:
    return str(to_structure(crystal).to(fmt="cif"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV with the crystals, and nonsense in its third row."""
    import csv

    texts = [cif(c) for c in CRYSTALS]
    texts.insert(2, "no crystal")
    file = tmp_path / "crystals.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["cif"], *([text] for text in texts)])
    return file


def context(folder: Path, file: Path | str, **options) -> Context:
    folder.mkdir(exist_ok=True)
    return Context(Config.model_validate({"roundtrip": {"structures": str(file), **options}}), folder)


def results(folder: Path) -> list[RoundTrip]:
    with store.open(folder / "roundtrip.h5", RoundTrip) as f:
        f.verify()
        return list(f)


def test_every_structure_is_rebuilt_or_a_failure(tmp_path: Path, table: Path) -> None:
    run = tmp_path / "run"
    balance = roundtrip.run(context(run, table))
    assert str(balance) == "roundtrip: 6 in = 5 out + 1 broken-cif"
    found = results(run)
    assert [r.source for r in found] == ["row:1", "row:2", "row:4", "row:5", "row:6"]
    assert all(r.matched and r.rms < 0.01 and r.stop_reason == "converged" for r in found)
    with store.open(run / "structures.h5", Entry) as f, store.open(run / "roundtrip.h5", RoundTrip) as g:
        assert [(e.id, e.crystal.formula) for e in f] == [(r.id, r.crystal.formula) for r in found]
        assert [(x.id, x.kind) for x in g.failures] == [("row:3", "broken-cif")]
        assert Balance.from_json(g.attrs["balance"]) == balance
        assert g.attrs["descriptor"] == "pair-spectrum"
    assert sorted(p.name for p in run.iterdir()) == ["roundtrip.h5", "structures.h5"]


@pytest.mark.parametrize("layout", ["one.cif", "POSCAR", "all.extxyz", "dataset.h5"])
def test_sources(tmp_path: Path, layout: str) -> None:
    file, wanted = tmp_path / layout, CRYSTALS[:1]
    if layout == "one.cif":
        file.write_text(cif(CRYSTALS[0]))
    elif layout == "POSCAR":
        to_atoms(CRYSTALS[0]).write(file, format="vasp")
    elif layout == "all.extxyz":
        from ase.io import write

        wanted = CRYSTALS
        write(file, [to_atoms(c) for c in CRYSTALS], format="extxyz")
    else:
        wanted = CRYSTALS
        entries = [Entry(f"{i:016x}", c, source=f"mine:{i}", split="train") for i, c in enumerate(CRYSTALS)]
        store.write(file, Entry, entries)
    roundtrip.run(context(tmp_path / "run", file))
    found = results(tmp_path / "run")
    assert [r.crystal.formula for r in found] == [c.formula for c in wanted]
    assert all(r.matched for r in found)


def test_a_draw_is_part_of_a_larger_one(tmp_path: Path, table: Path) -> None:
    drawn = {}
    for n in (2, 4, 6):
        roundtrip.run(context(tmp_path / str(n), table, n=n, noise=0.02))
        drawn[n] = {r.source: content(r) for r in results(tmp_path / str(n))}
    assert [len(drawn[n]) for n in (2, 4, 6)] in ([2, 4, 5], [2, 3, 5], [1, 3, 5])
    for small, large in ((2, 4), (4, 6)):
        for source, record in drawn[small].items():
            assert all(np.array_equal(record[key], drawn[large][source][key]) for key in record)


@pytest.mark.mpi
def test_two_ranks_give_the_same_as_one(tmp_path: Path, table: Path, mpiexec: Callable) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    roundtrip.run(context(alone, table, noise=0.03))
    arguments = ("reconstruct", "--structures", str(table), "--noise", "0.03", "-o", str(together))
    result = mpiexec(2, "-m", "hpcgen", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("6 in = 5 out + 1 broken-cif") == 1
    assert sum(line.split()[:2] == ["all", "5"] for line in result.stdout.splitlines()) == 1
    for a, b in zip(results(alone), results(together), strict=True):
        x, y = content(a), content(b)
        assert [(key, x[key], y[key]) for key in x if not np.array_equal(x[key], y[key])] == [], a.id
    assert store.content_digest(alone / "roundtrip.h5") == store.content_digest(together / "roundtrip.h5")


def test_noise_is_what_it_is_said_to_be() -> None:
    descriptor, crystal = PairSpectrum(PairSpectrumConfig()), CRYSTALS[0]
    exact, lattice = roundtrip.pose(descriptor, crystal, 0.0, 0.0, 0)
    assert np.array_equal(lattice, crystal.lattice)
    seen = [roundtrip.pose(descriptor, crystal, 0.05, 0.01, seed) for seed in range(40)]
    relative = np.array([target for target, _ in seen])[:, exact != 0] / exact[exact != 0] - 1
    assert relative.std() == pytest.approx(0.05, rel=0.05)
    assert abs(relative.mean()) < 0.002
    cells = np.array([lattice_parameters(cell) for _, cell in seen])
    assert (cells[:, :3] / 3.905 - 1).std() == pytest.approx(0.01, rel=0.3)
    assert (cells[:, 3:] - 90).std() == pytest.approx(0.6, rel=0.3)
    again = roundtrip.pose(descriptor, crystal, 0.05, 0.01, 3)
    assert np.array_equal(again[0], seen[3][0])


def test_noisy_targets_are_left_at_their_floor(tmp_path: Path, table: Path) -> None:
    roundtrip.run(context(tmp_path / "run", table, noise=0.05, lattice_noise=0.01))
    found = results(tmp_path / "run")
    assert all(r.matched for r in found)
    assert all(1e-3 < r.residual < 0.15 for r in found if len(r.crystal) > 2)
    with store.open(tmp_path / "run/structures.h5", Entry) as f:
        for entry, r in zip(f, found, strict=True):
            change = np.abs(r.crystal.parameters[:3] / entry.crystal.parameters[:3] - 1)
            assert 0 < change.max() < 0.06


def test_match_is_that_of_the_papers() -> None:
    real = CRYSTALS[0]
    moved = Crystal(real.lattice, real.frac + np.array([0.1, 0.2, 0.3]), real.numbers)
    assert roundtrip.match(moved, real) == pytest.approx(0.0, abs=1e-6)
    frac = real.frac.copy()
    frac[1] += [0.1, 0.0, 0.0]
    distorted = roundtrip.match(Crystal(real.lattice, frac, real.numbers), real)
    # one of five atoms by 0.39 angstrom, the mean displacement taken off, over (V/N)^(1/3)
    assert distorted == pytest.approx(0.3905 * np.sqrt(0.2 * 0.8) / (real.volume / 5) ** (1 / 3), rel=1e-3)
    swapped = Crystal(real.lattice, real.frac, [22, 8, 38, 8, 8])
    assert roundtrip.match(swapped, real) is None


def test_the_table_counts_by_atoms() -> None:
    lines = table_of([2, 2, 5, 200], [0.1, np.nan, 0.3, np.nan], [1.0, 3.0, 0.5, 10.0])
    assert [line.split() for line in lines[1:]] == [
        ["2", "2", "50.00", "0.10000", "2.0000", "2.0000"],
        ["5-8", "1", "100.00", "0.30000", "0.5000", "0.5000"],
        [">", "128", "1", "0.00", "-", "10.0000", "10.0000"],
        ["all", "4", "50.00", "0.20000", "2.0000", "3.6250"],
    ]


def test_the_limits_of_a_configuration_hold(tmp_path: Path, table: Path) -> None:
    tree = {"roundtrip": {"structures": str(table)}, "data": {"max_atoms": 4}}
    (tmp_path / "run").mkdir()
    balance = roundtrip.run(Context(Config.model_validate(tree), tmp_path / "run"))
    assert balance is not None
    assert balance.failures == {"too-many-atoms": 2, "broken-cif": 1}


def test_seeds_do_not_depend_on_the_place_of_the_file() -> None:
    here, there = (Config.model_validate({"roundtrip": {"structures": s}}) for s in ("a.csv", "/b/a.csv"))
    assert here.identity("roundtrip") == there.identity("roundtrip")
    assert here.digest() != there.digest()
    noisy = Config.model_validate({"roundtrip": {"noise": 0.1}})
    assert noisy.identity("roundtrip") != here.identity("roundtrip")
    assert noisy.identity("reconstruct") == here.identity("reconstruct")


def test_a_source_that_changed_is_read_again(tmp_path: Path) -> None:
    file, c = tmp_path / "a.cif", context(tmp_path / "run", tmp_path / "a.cif")
    for crystal in CRYSTALS[1:3]:
        file.write_text(cif(crystal))
        pipeline.run_stage(c, "roundtrip", redo=True)
        assert [r.crystal.formula for r in results(c.folder)] == [crystal.formula]
    assert len(list((c.folder / "old").rglob("roundtrip.h5"))) == 1


def test_the_command(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "runs/roundtrip-crystals/roundtrip.h5"

    def command(*options: str, code: int = 0) -> str:
        assert cli.main(["reconstruct", *options]) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "would run: crystals.csv -> runs/" in command("--structures", "crystals.csv", "--dry-run")
    assert not (tmp_path / "runs").exists()
    first = command("--structures", "crystals.csv")
    assert "row:3: broken-cif" in first
    assert ["all", "5", "100.00"] in [line.split()[:3] for line in first.splitlines()]
    written = output.stat().st_mtime_ns
    assert first.splitlines()[-4:] == command("--structures", "crystals.csv").splitlines()[-4:]
    assert output.stat().st_mtime_ns == written
    assert "already done: crystals.csv -> runs/" in command("--structures", "crystals.csv", "--dry-run")
    assert "roundtrip.n is None there and 2 here" in command("--structures", "crystals.csv", "--n", "2", code=7)
    assert "no structures at" in command("--structures", "absent.cif", code=4)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["roundtrip-crystals"]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ([], errors.UsageError, "neither a configuration nor structures"),
        (["--n", "3"], errors.UsageError, "--n without --structures"),
        (["--structures", "builtin", "--n", "0"], errors.ConfigError, "`roundtrip.n`"),
        (["--structures", "builtin", "--noise", "-1"], errors.ConfigError, "`roundtrip.noise`"),
        (["--structures", "builtin", "--set", "roundtrip.nois=1"], errors.ConfigError, "did you mean `noise`"),
    ],
)
def test_impossible_options(
    options: list[str], kind: type[errors.HpcgenError], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reconstruct", *options]) == kind.exit_code
    assert text in capsys.readouterr().err


def test_the_built_in_structures_can_be_drawn_from() -> None:
    settings = config.loads("data: {elements: [Na, Cl, Mg, O], max_atoms: 6, max_elements: 2}").data
    everything = data.load(settings)
    few = data.load(settings, n=3, seed=1)
    assert len(few.crystals) == 3
    assert few.indices == sorted(few.indices)
    assert [everything.labels[i] for i in few.indices] == few.labels
