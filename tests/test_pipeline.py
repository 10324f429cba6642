"""The run folder and the command line: who owns a folder, what is missing, what would be done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgen import config, errors, pipeline
from hpcgen.farm import launcher, lock
from hpcgen.stages import reconstruct
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


def test_samples_of_another_run_that_are_not_there_stop_a_campaign_before_it_begins(tmp_path: Path) -> None:
    mixed = context(tmp_path / "run", f"reconstruct.more_samples=[{tmp_path}/other/samples.h5]")
    with pytest.raises(errors.RunFolderError, match=r"other/samples\.h5, which is not there"):
        pipeline.run_all(mixed)
    assert list(tmp_path.iterdir()) == []
    assert "other/samples.h5" in pipeline.plan(mixed)[3]


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


def files(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed folder", "new folder"])
@pytest.mark.parametrize("command", ["run", "data"])
def test_a_folder_in_use_is_refused_and_untouched(
    tmp_path: Path, hpcgen_command, claimed: bool, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(lock.TOKEN, raising=False)
    (tmp_path / "c.yaml").write_text("name: c\n")
    folder = tmp_path / "run"
    folder.mkdir()
    if claimed:
        Context(config.load(tmp_path / "c.yaml", []), folder).claim()
    with lock.hold(folder, "hpcgen run"):
        before = files(folder)
        result = hpcgen_command(command, tmp_path / "c.yaml", "--run-dir", folder)
        assert files(folder) == before
    assert result.returncode == errors.RunFolderError.exit_code
    assert f"in use by another run: hpcgen run on {os.uname().nodename}, process {os.getpid()}" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("in use") == 1
    # what the lock leaves behind does not keep the folder from being claimed
    assert hpcgen_command("data", tmp_path / "c.yaml", "--run-dir", folder).returncode == 0


def test_a_finished_folder_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = context(tmp_path / "run")
    c.claim()
    for s in pipeline.STAGES:
        c.path(s.writes).touch()
    before = files(c.folder)
    assert pipeline.run_all(c) == errors.EXIT_OK
    assert files(c.folder) == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.RunFolderError, match="cannot be made"):
        pipeline.run_all(context(tmp_path / "file/run"))


def test_a_stage_of_one_process_refuses_to_be_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(errors.LaunchError, match="one process"):
        pipeline.run_stage(context(tmp_path / "run"), "screen")
    assert not (tmp_path / "run").exists()


def test_a_process_for_one_task_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the stage's own command again, `--redo` included."""
    c = context(tmp_path / "run")
    c.claim()
    for name in ("samples.h5", "candidates.h5"):
        c.path(name).touch()
    before, balance = files(c.folder), Balance("reconstruct", 1, 1)
    monkeypatch.setattr(reconstruct, "run", lambda context: balance)
    monkeypatch.setenv(lock.SOLO, "{}")
    assert pipeline.run_stage(c, "reconstruct", redo=True) is balance
    assert files(c.folder) == before


def test_a_stage_whose_ranks_were_all_killed_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    c = context(tmp_path / "run")
    c.claim()
    monkeypatch.setattr(pipeline.runner, "command_for", lambda context, s: [sys.executable, "-c", "pass"])
    with pytest.raises(errors.LaunchError, match="all its ranks were killed"):
        pipeline.run_all(c, until="data")


def programs(folder: Path, **answers: str) -> str:
    """A PATH of programs that print something."""
    for name, answer in answers.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("version", "given", "withheld"),
    [
        ("mpiexec (Open MPI) 5.0.7", ["--with-ft ulfm", "--oversubscribe", f"-x {lock.TOKEN}"], []),
        ("mpiexec (OpenRTE) 3.1.6", ["--oversubscribe"], ["--with-ft"]),
        ("mpiexec (Open MPI) 4.1.4", ["--oversubscribe"], ["--with-ft"]),
        ("HYDRA build details:", [], ["--with-ft", "--oversubscribe", "-x"]),
    ],
)
def test_mpiexec_gets_the_options_that_it_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, given: list[str], withheld: list[str]
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, mpiexec=version))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    farm = config.loads("{}", overrides=["farm.launcher=mpiexec", "farm.ranks=3"]).farm
    command = launcher.ranks_command(farm, ["python", "-m", "hpcgen"], gpu=False)
    assert command is not None
    text = " ".join(command)
    assert text.endswith("-n 3 python -m hpcgen")
    assert all(option in text for option in given)
    assert not any(option in text for option in withheld)


def test_ranks_follow_slurm_and_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = programs(tmp_path, mpiexec="mpiexec (Open MPI) 5.0.7", srun="srun")
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "HPCGEN_SRUN_MPI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(16))
    mpiexec = config.loads("{}", overrides=["farm.launcher=mpiexec", "farm.ranks_per_gpu=2"]).farm

    def ranks(*, gpu: bool) -> str:
        command = launcher.ranks_command(mpiexec, ["x"], gpu=gpu)
        assert command is not None
        return command[command.index("-n") + 1]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert ranks(gpu=False) == "16"
    assert ranks(gpu=True) == "6"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ranks(gpu=True) == "16"
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "40")
    assert ranks(gpu=True) == "40"
    auto = config.loads("{}").farm
    assert launcher.ranks_command(auto, ["x"], gpu=True) == [f"{path}/srun", "--mpi=pmix", "x"]
    monkeypatch.setenv("HPCGEN_SRUN_MPI", "cray_shasta")
    assert launcher.ranks_command(auto, ["x"], gpu=True) == [f"{path}/srun", "--mpi=cray_shasta", "x"]


def mpmd(*groups: tuple[int, list[str]]) -> subprocess.CompletedProcess[str]:
    """Run so many ranks of each of several programs in one communicator."""
    program = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no mpiexec: pip install 'hpcgen[mpi]'")
    command = [program, *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "--oversubscribe"]
    for ranks, arguments in groups:
        command += ["-n", str(ranks), sys.executable, *arguments, ":"]
    return subprocess.run(command[:-1], capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.mpi
def test_what_a_killed_mpiexec_left_does_not_disturb_one_with_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if (
        program is None
        or "Open MPI) 5" not in subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    ):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no mpiexec of Open MPI 5")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    root = "--allow-run-as-root" if os.geteuid() == 0 else ""
    left = f"mkdir -m 700 {tmp_path}/ompi.$$ && touch {tmp_path}/ompi.$$/pmix.$(hostname).tool"
    command = ["sh", "-c", f"{left} && exec {program} {root} --oversubscribe -n 2 true"]  # exec keeps the number
    environment = {k: v for k, v in os.environ.items() if k != launcher.SESSION_FOLDER}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 213
    assert launcher.run_program(command) == 0


VERSION = "import sys, hpcgen; hpcgen.__version__ = '9.9.9'; from hpcgen.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.mpi
def test_ranks_of_different_configurations_or_versions_stop_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\n")
    stage = ["reconstruct", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]
    usual = ["-m", "hpcgen", *stage]
    for other, what in (([*usual, "--set", "sample.n=9"], "the configuration"), (["-c", VERSION, *stage], "9.9.9")):
        result = mpmd((2, usual), (1, other))
        assert result.returncode == errors.LaunchError.exit_code, result.stderr
        assert "do not agree on" in result.stderr
        assert what in result.stderr
        assert "rank 2" in result.stderr
        assert result.stderr.count("do not agree on") == 1
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.mpi
def test_a_folder_that_is_refused_ends_all_ranks_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\n")
    stage = ["-m", "hpcgen", "reconstruct", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]
    result = mpmd((3, stage))  # there are no samples
    assert result.returncode == errors.RunFolderError.exit_code, result.stderr
    assert result.stderr.count("hpcgen sample") == 1
    context(tmp_path / "other", "sample.n=9").claim()
    result = mpmd((3, [*stage[:-1], str(tmp_path / "other")]))
    assert result.returncode == errors.RunFolderError.exit_code, result.stderr
    assert result.stderr.count("belongs to another configuration") == 1


@pytest.mark.mpi
def test_an_error_of_one_rank_only_is_told_and_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: c\n")
    stage = ["-m", "hpcgen", "reconstruct", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]
    result = mpmd((2, stage), (1, [*stage, "--set", "sample.nn=3"]))
    assert result.returncode == errors.ConfigError.exit_code, result.stderr
    assert f"rank 2 on {os.uname().nodename}" in result.stderr
    assert "sample.nn" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_the_farm_asks_to_be_requeued(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "hpcgen", "run", "configs/quickstart.yaml", "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--until", "data"],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "data" in process.stdout.readline()  # the stage has begun
    process.send_signal(number)
    _, text = process.communicate(timeout=120)
    assert process.returncode == errors.EXIT_REQUEUE, text
    assert f"stopped by {number.name}; the same command goes on" in text
    assert "Traceback" not in text
