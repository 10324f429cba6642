"""Configuration: every mistake is named with its key, and the shipped files are documented where they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpcgen import config
from hpcgen.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sampel: {n: 3}", ["unknown key `sampel`", "did you mean `sample`"]),
        ("train: {stps: 3}", ["unknown key `train.stps`", "did you mean `steps`"]),
        ("train: {steps: many}", ["`train.steps`", "valid integer", "'many'"]),
        ("train: {steps: 0}", ["`train.steps`", "greater than or equal to 1"]),
        ("train: {device: gpu}", ["`train.device`", "'auto', 'cpu' or 'cuda'"]),
        ("- a\n- b", ["holds a list", "mapping"]),
        ("a: [1", ["not valid YAML"]),
        ("data: {validation_fraction: 0.6, test_fraction: 0.5}", ["must stay below 1"]),
        ("name: ../../etc", ["`name`", "pattern"]),
    ],
)
def test_mistakes_name_file_key_and_expectation(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.loads(text, "my.yaml")
    for part in ["my.yaml", *parts]:
        assert part in str(caught.value)


def test_overrides_reach_their_key_and_are_checked() -> None:
    assert config.loads("{}", overrides=["sample.n=7", "hull.reference=data:x.csv"]).sample.n == 7
    for override in ("sample.n", "=3", "sample.n=seven", "sample.m=3", "name.x=1"):
        with pytest.raises(ConfigError):
            config.loads("name: a", overrides=[override])


def test_powers_of_ten_need_no_point() -> None:
    assert config.loads("reconstruct: {anneal: {tolerance: 1e-7}}").reconstruct.anneal.tolerance == 1e-7
    assert config.loads("", overrides=["reconstruct.anneal.tolerance=2E-8"]).reconstruct.anneal.tolerance == 2e-8
    with pytest.raises(ConfigError, match="tolerance"):
        config.loads("reconstruct: {anneal: {tolerance: 1e-seven}}")


def test_digest_follows_the_science_only() -> None:
    base = config.loads("{}").digest()
    same = ["farm.ranks=7", "report.title=x", "name=other", "train.device=cpu", "train.processes=2"]
    for override in same:
        assert config.loads("{}", overrides=[override]).digest() == base
    for override in ("seed=1", "sample.n=63", "relax.max_force=0.01"):
        assert config.loads("{}", overrides=[override]).digest() != base


def test_later_settings_do_not_change_earlier_items() -> None:
    base = config.loads("{}")
    changed = config.loads("{}", overrides=["relax.max_force=0.01", "sample.n=9", "name=other"])
    for stage in ("data", "train", "sample", "reconstruct", "screen"):
        assert changed.identity(stage) == base.identity(stage)
    for stage in ("relax", "reference", "hull"):
        assert changed.identity(stage) != base.identity(stage)
    assert config.loads("seed: 1").identity("data") != base.identity("data")


def test_resolved_text_loads_to_the_same() -> None:
    resolved = config.loads("sample: {n: 9}")
    assert config.loads(resolved.text()) == resolved


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.stem)
def test_shipped_files_are_valid_and_every_key_is_explained(file: Path) -> None:
    loaded = config.load(file)
    assert loaded.name == file.stem
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    leaves = sum(len(v) if isinstance(v, dict) else 1 for v in tree.values())
    assert leaves >= 5
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith(("#", "-")) and not line.rstrip().endswith(":"):
            assert "#" in line, f"{file.name}:{number} has no explanation: {line}"


def test_every_key_has_a_description() -> None:
    for path, _, description in config.documented_keys():
        assert description, f"{path} has no description"


def test_data_paths_need_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPCGEN_DATA", raising=False)
    with pytest.raises(ConfigError, match="HPCGEN_DATA"):
        config.resolve_path("data:perov_5_val.csv.gz")
    monkeypatch.setenv("HPCGEN_DATA", "/somewhere")
    assert config.resolve_path("data:a.csv") == Path("/somewhere/a.csv")
