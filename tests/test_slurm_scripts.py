"""The batch scripts without Slurm: shellcheck, where sizes stand, and what a script says that cannot find its way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SLURM = ROOT / "slurm"
JOBS = sorted(p for p in SLURM.glob("*.sh") if p.name not in ("job.sh", "submit.sh"))
LONG_JOBS = [p for p in JOBS if p.stem in ("train", "reconstruct", "relax", "relax_array", "phonons_vasp")]
SIZES = ("--nodes", "-N", "--ntasks", "-n", "--gpus", "--cpus-per-task", "-c", "--gres", "--mem")


def directives(script: Path) -> list[str]:
    lines = script.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#SBATCH ").strip() for line in lines if line.startswith("#SBATCH")]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck: apt-get install shellcheck")
def test_shellcheck() -> None:
    scripts = [*SLURM.glob("*.sh"), ROOT / "env/virtual_slurm.sh"]
    command = ["shellcheck", "--external-sources", *map(str, scripts)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_stage_has_a_job() -> None:
    assert [p.stem for p in JOBS] == [
        *("phonons_vasp", "reconstruct", "relax", "relax_array", "report", "sample", "train")
    ]
    text = " ".join(p.read_text(encoding="utf-8") for p in JOBS)
    for stage in ("data", "train", "sample", "reconstruct", "screen", "relax", "reference", "hull", "report"):
        assert f"hpcgen {stage}" in text, f"no job runs {stage}"
    assert "for stage in hull select dft stability" in text
    assert "hpcgen phonons --set phonons.forces=vasp" in text


@pytest.mark.parametrize("script", JOBS, ids=lambda p: p.stem)
def test_a_job_survives_a_requeue_and_leaves_sizes_to_the_user(script: Path) -> None:
    given = directives(script)
    assert "--requeue" in given
    assert "--open-mode=append" in given, "a restart would overwrite the log"
    assert not [d for d in given if d.split("=")[0].split()[0] in SIZES]


@pytest.mark.parametrize("script", LONG_JOBS, ids=lambda p: p.stem)
def test_a_long_job_is_warned_before_its_limit(script: Path) -> None:
    assert any(d.startswith("--signal=B:USR1@") for d in directives(script))


def test_a_job_without_its_companions_says_what_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "slurm_script"
    shutil.copy(SLURM / "relax.sh", copy)
    environment = os.environ | {"HPCGEN_SLURM_DIR": str(tmp_path)}
    result = subprocess.run(["bash", str(copy), "c.yaml"], env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert "HPCGEN_SLURM_DIR" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["missing.yaml"], ["a", "b", "c"]], ids=["none", "missing", "many"])
def test_submit_refuses_what_cannot_work(arguments: list[str], tmp_path: Path) -> None:
    result = subprocess.run([str(SLURM / "submit.sh"), *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert "usage:" in result.stderr


def in_job(body: str, **environment: str) -> subprocess.Popen[str]:
    """A shell that has begun a job as the scripts do, with everything of Slurm's that they need in its variables."""
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    place = {"HPCGEN_SLURM_DIR": str(SLURM), "HPCGEN_VENV": sys.prefix}
    script = f'set -u; source "$HPCGEN_SLURM_DIR/job.sh"; {body}'
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "HPCGEN_"))}
    return subprocess.Popen(
        ["bash", "-c", script],
        env=clean | job | place | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_exit_code_of_a_step_ends_the_job() -> None:
    steps = "hpcgen_step true; hpcgen_step bash -c 'exit 5'"
    shell = in_job(f"hpcgen_begin x.sh c.yaml 'a run'; {steps}; echo on")
    out, err = shell.communicate(timeout=60)
    assert shell.returncode == 5
    assert "on\n" not in out
    assert "exit code 5" in err


def test_paths_with_spaces_reach_the_program_whole() -> None:
    show = 'bash -c \'printf "<%s>" "$@"\' show'
    out, _ = in_job(f"hpcgen_begin x.sh 'my c.yaml' 'a run'; hpcgen_step {show}").communicate(timeout=60)
    assert "<my c.yaml><--run-dir><a run>" in out
    assert "restart 0 of at most 20, 2 tasks on n[1-2]" in out


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_reaches_the_program_and_its_exit_code_comes_back(number: signal.Signals) -> None:
    """Also where the program takes its time to stop, and where the signal comes twice."""
    stop = "trap 'sleep 0.5; echo told; exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    shell = in_job(f'hpcgen_begin x.sh c.yaml; hpcgen_step bash -c "{stop}"; echo on')
    assert shell.stdout is not None
    for line in shell.stdout:
        if line == "ready\n":
            break
    shell.send_signal(number)
    shell.send_signal(number)
    out, _ = shell.communicate(timeout=60)
    assert shell.returncode == 9
    assert "told" in out
    assert "on\n" not in out


def test_a_task_of_an_array_knows_its_part() -> None:
    body = 'hpcgen_begin x.sh c.yaml; hpcgen_array; echo "<${HPCGEN_PART[*]}> $SLURM_EXACT"'
    array = {f"SLURM_ARRAY_TASK_{key}": value for key, value in zip(("ID", "MIN", "MAX", "COUNT"), "3074", strict=True)}
    assert "<> 1" in in_job(body).communicate(timeout=60)[0]
    shell = in_job(body, **array)
    assert "start at 0 without gaps" in shell.communicate(timeout=60)[1]
    assert "<--shard 3/8> 1" in in_job(body, **array, HPCGEN_SHARDS="8").communicate(timeout=60)[0]
    assert "<--shard 3/8> 1" in in_job(body, **array | {"SLURM_ARRAY_TASK_COUNT": "8"}).communicate(timeout=60)[0]
    assert "there is no part 3 of 2" in in_job(body, **array, HPCGEN_SHARDS="2").communicate(timeout=60)[1]


def test_threads_follow_the_job() -> None:
    body = 'hpcgen_begin x.sh c.yaml; echo "$OMP_NUM_THREADS ${SRUN_CPUS_PER_TASK:-unset} ${HPCGEN_RANKS[*]}"'
    out, _ = in_job(body).communicate(timeout=60)
    assert "1 unset srun --mpi=pmix" in out
    out, _ = in_job(body, SLURM_CPUS_PER_TASK="4", HPCGEN_SRUN_MPI="pmi2").communicate(timeout=60)
    assert "4 4 srun --mpi=pmi2" in out
    out, _ = in_job(body, HPCGEN_LAUNCHER="mpiexec").communicate(timeout=60)
    assert "mpiexec --with-ft ulfm -n 2" in out


def test_every_job_has_a_session_folder_of_mpiexec_and_removes_it(tmp_path: Path) -> None:
    body = 'hpcgen_begin x.sh c.yaml; ls -d "$PRTE_MCA_prte_local_tmpdir_base"'
    folders = []
    for _ in range(2):
        out, _ = in_job(body, HPCGEN_LAUNCHER="mpiexec", TMPDIR=str(tmp_path)).communicate(timeout=60)
        folders += [line for line in out.splitlines() if line.startswith(str(tmp_path))]
    assert len(set(folders)) == 2
    assert not list(tmp_path.iterdir())


def test_an_unknown_launcher_is_refused() -> None:
    shell = in_job("hpcgen_begin x.sh c.yaml", HPCGEN_LAUNCHER="aprun")
    _, err = shell.communicate(timeout=60)
    assert shell.returncode == 2
    assert "remedy" in err
