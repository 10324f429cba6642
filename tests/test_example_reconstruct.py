"""The example of a single reconstruction runs, and its picture shows what it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hpcgen import config
from hpcgen.crystal import Crystal, to_structure

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reconstruct_one", ROOT / "examples/reconstruct_one.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_default_crystal_is_rebuilt_and_drawn(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    monkeypatch.setattr(sys, "argv", ["reconstruct_one.py", "-o", str(tmp_path / "a.png")])
    assert example.main() == 0
    assert capsys.readouterr().out.startswith("CaTiO3, 20 atoms: match, rms 0.00")
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[1] > 1000
    assert (tmp_path / "a.png").stat().st_size < 400_000
    assert 0.02 < (pixels[..., :3] < 0.9).any(axis=2).mean() < 0.6  # something is drawn, and not all over


def test_the_default_crystal_is_perovskite(example: ModuleType) -> None:
    structure = to_structure(example.perovskite())
    assert structure.get_space_group_info(symprec=0.01)[1] == 62
    titanium = next(site for site in structure if site.specie.symbol == "Ti")
    oxygen = sorted(n.nn_distance for n in structure.get_neighbors(titanium, 2.3) if n.specie.symbol == "O")
    assert oxygen == pytest.approx([1.95] * 6, abs=0.02)


@pytest.mark.parametrize("descriptor", ["pair-spectrum", "pair-spectrum+3body", "ead"])
def test_every_descriptor_can_be_drawn(example: ModuleType, descriptor: str, tmp_path: Path) -> None:
    crystal = Crystal(np.eye(3) * 4.123, [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    brief = {"trials": 1, "hops": 1, "iterations": 5}
    settings = config.Config.model_validate(
        {
            "representation": {"descriptor": descriptor},
            "reconstruct": {"basin_hopping": brief},
            "roundtrip": {"noise": 0.02, "lattice_noise": 0.01},
        }
    )
    result = example.rebuild(crystal, settings)
    figure = example.draw(result)
    figure.savefig(tmp_path / "a.png", dpi=40)
    axes = {a.get_title().split("\n")[0].split(",")[0]: a for figures in figure.subfigs for a in _axes(figures)}
    assert {"how it was found", "real", "rebuilt"} <= set(axes)
    name, part = next(iter(result.descriptor.blocks(2).items()))
    drawn = [a for figures in figure.subfigs for a in _axes(figures)]
    shown = next(a for a in drawn if a.get_title().startswith(example.TITLES[name])).lines[0].get_ydata()
    np.testing.assert_allclose(shown, result.reached[part])


def _axes(figure) -> list:
    return [*figure.axes, *(a for part in figure.subfigs for a in part.axes)]


def test_the_rebuilt_crystal_is_shown_where_the_real_one_lies(example: ModuleType) -> None:
    rng = np.random.default_rng(0)
    real = Crystal(np.diag([4.0, 5.0, 6.0]), rng.random((6, 3)), [11, 11, 17, 17, 8, 8])
    mirrored = Crystal(real.lattice, -real.frac + [0.2, 0.7, 0.4], real.numbers)
    shown = example._moved_onto(real, mirrored)
    difference = shown.frac - real.frac
    assert np.abs(difference - np.rint(difference)).max() < 1e-6
    assert shown.parameters == pytest.approx(real.parameters)
    assert np.linalg.det(shown.lattice) > 0


def test_a_missing_file_is_one_message(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reconstruct_one.py", "absent.cif"])
    assert example.main() == 4
    assert "absent.cif" in capsys.readouterr().err
