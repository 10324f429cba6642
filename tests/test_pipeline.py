"""The run folder and the command line: who owns a folder, what is missing, what would be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcgen import config, errors, pipeline
from hpcgen.stages.context import Balance, Context


def context(folder: Path, *overrides: str) -> Context:
    return Context(config.loads("{}", overrides=list(overrides)), folder)


def test_balance_must_add_up() -> None:
    balance = Balance.of("screen", 5, 3, ["duplicate", "too-close"])
    assert str(balance) == "screen: 5 in = 3 out + 1 duplicate + 1 too-close"
    assert Balance.from_json(balance.to_json()) == balance
    with pytest.raises(ValueError, match="5 in"):
        Balance("screen", 5, 3, {"duplicate": 1})


def test_a_folder_of_another_configuration_is_refused_and_untouched(tmp_path: Path) -> None:
    context(tmp_path / "run").claim()
    before = (tmp_path / "run/config.yaml").read_bytes()
    with pytest.raises(errors.RunFolderError, match=r"sample\.n is 64 there and 9 here"):
        context(tmp_path / "run", "sample.n=9").claim()
    assert (tmp_path / "run/config.yaml").read_bytes() == before
    context(tmp_path / "run", "farm.ranks=3").claim()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(errors.RunFolderError, match="not a run folder"):
        context(tmp_path).claim()
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_every_input_is_written_by_an_earlier_stage() -> None:
    written: set[str] = set()
    for s in pipeline.STAGES:
        assert set(s.reads) <= written
        assert s.writes not in written
        written.add(s.writes)


def test_a_missing_input_names_the_stage_that_makes_it(hpcgen_command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\n")
    result = hpcgen_command("reconstruct", tmp_path / "c.yaml", "--run-dir", tmp_path / "run")
    assert result.returncode == errors.RunFolderError.exit_code
    assert "samples.h5" in result.stderr
    assert "hpcgen sample" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_typo_ends_with_one_message(hpcgen_command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sampel: {n: 3}\n")
    result = hpcgen_command("run", tmp_path / "c.yaml")
    assert result.returncode == errors.ConfigError.exit_code
    assert "did you mean `sample`" in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run_does_nothing(hpcgen_command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\n")
    result = hpcgen_command("run", tmp_path / "c.yaml", "--run-dir", tmp_path / "run", "--dry-run")
    assert result.returncode == 0
    assert [line.split()[1] for line in result.stdout.splitlines()] == [s.name for s in pipeline.STAGES]
    assert not (tmp_path / "run").exists()


def test_every_command_has_help_with_an_example(hpcgen_command) -> None:
    for name in ("run", "inspect", *[s.name for s in pipeline.STAGES]):
        result = hpcgen_command(name, "--help")
        assert result.returncode == 0
        assert "Example: hpcgen " in result.stdout


def test_run_refuses_to_be_started_on_many_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(errors.LaunchError, match="several processes"):
        pipeline.run_all(context(tmp_path / "run"))


def test_redo_moves_outputs_aside(tmp_path: Path) -> None:
    c = context(tmp_path / "run")
    c.claim()
    for name in ("samples.h5", "candidates.h5", "stability.h5"):
        c.path(name).write_text(name)
    pipeline.set_aside(c, pipeline.stage("reconstruct"))
    assert c.path("samples.h5").exists()
    assert not c.path("candidates.h5").exists()
    assert sorted(f.name for f in c.path("old").rglob("*.h5")) == ["candidates.h5", "stability.h5"]
