"""`hpcgen doctor` alone and over ranks: what it finds on this machine, and what it says where something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import vasp_campaign as campaign

from hpcgen.config import Config
from hpcgen.doctor import Finding, dft, facts, node, page, software
from hpcgen.doctor.folder import file_system
from hpcgen.errors import ConfigError, LaunchError
from hpcgen.farm import World, lock

CONFIG = Path(__file__).resolve().parent.parent / "configs/quickstart.yaml"
SUBJECTS = ("python", "hpcgen", "packages", "MPI", "ranks", "cores", "memory", "limits", "GPUs", "folder", "space")


def told(output: str, subject: str) -> tuple[str, str]:
    """Status and text (with its remedy) of one subject of the page."""
    lines = output.splitlines()
    at = next((i for i, line in enumerate(lines) if line[9:].startswith(subject)), None)
    assert at is not None, f"no line about {subject} in:\n{output}"
    more = [line for line in lines[at + 1 :] if line.startswith(" ")]
    rest = " ".join(line.strip() for line in more[: next_subject(lines[at + 1 :])])
    return lines[at].split()[0], f"{lines[at][21:]} {rest}"


def next_subject(lines: list[str]) -> int:
    """How many lines belong to the subject before."""
    return next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))


@pytest.fixture
def mine() -> facts.Facts:
    """What this process says about itself."""
    return facts.of_this_rank(None)


def test_alone(hpcgen_command, tmp_path: Path) -> None:
    result = hpcgen_command("doctor", CONFIG, "--run-dir", tmp_path / "runs/new")
    assert result.returncode == 0, result.stdout + result.stderr
    for subject in SUBJECTS:
        assert told(result.stdout, subject)[0] in ("ok", "warning")
    assert "this process alone" in result.stdout
    assert str(tmp_path) in told(result.stdout, "folder")[1].replace(" ", "")
    assert list(tmp_path.iterdir()) == [], "the doctor must leave nothing behind"


def test_without_a_configuration(hpcgen_command, tmp_path: Path) -> None:
    result = hpcgen_command("doctor", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mpi
def test_over_ranks(mpiexec, tmp_path: Path) -> None:
    result = mpiexec(3, "-m", "hpcgen", "doctor", str(CONFIG), "--run-dir", str(tmp_path / "run"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 ranks started by mpiexec, all connected" in told(result.stdout, "ranks")[1]
    assert "the same on all 3 ranks" in told(result.stdout, "python")[1]
    assert told(result.stdout, "clocks")[0] == "ok"
    assert result.stdout.count("doctor: ") == 1, "one rank speaks for all"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.mpi
def test_ranks_with_different_configurations(mpiexec, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("name: quickstart\nseed: 2\n")
    doctor = ["-m", "hpcgen", "doctor"]
    result = mpiexec(1, *doctor, str(CONFIG), ":", "-n", "1", sys.executable, *doctor, str(other))
    assert result.returncode == LaunchError.exit_code, result.stdout + result.stderr
    status, text = told(result.stdout, "hpcgen")
    assert status == "problem"
    assert "remedy:" in text
    assert "rank 1" in text


@pytest.mark.mpi
def test_more_threads_than_cores(mpiexec, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": str(4 * (os.cpu_count() or 1))}
    result = mpiexec(2, "-m", "hpcgen", "doctor", "--run-dir", str(tmp_path), env=environment)
    assert result.returncode == 0, "slow is no reason to stop"
    status, text = told(result.stdout, "cores")
    assert status == "warning"
    assert "OMP_NUM_THREADS" in text


def test_a_folder_that_cannot_be_written(hpcgen_command) -> None:
    result = hpcgen_command("doctor", CONFIG, "--run-dir", "/proc/run")
    assert result.returncode == LaunchError.exit_code
    status, text = told(result.stdout, "folder")
    assert status == "problem"
    assert "--run-dir" in text
    assert "Traceback" not in result.stderr


def test_a_campaign_too_large_for_the_disk(hpcgen_command, tmp_path: Path) -> None:
    result = hpcgen_command("doctor", CONFIG, "--run-dir", tmp_path, "--set", "sample.n=1000000000000000")
    assert result.returncode == 0, "most of it may be there already"
    status, text = told(result.stdout, "space")
    assert status == "warning"
    assert "free some space" in text


def test_a_configuration_with_a_mistake(hpcgen_command, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("smaple: {n: 3}\n")
    result = hpcgen_command("doctor", file)
    assert result.returncode == ConfigError.exit_code
    assert "smaple" in result.stderr


def test_a_run_folder_in_use_names_the_user(hpcgen_command, tmp_path: Path) -> None:
    with lock.hold(tmp_path, "hpcgen relax"):
        result = hpcgen_command("doctor", "--run-dir", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"process {os.getpid()}" in " ".join(told(result.stdout, "in use")[1].split())
    assert "in use" not in hpcgen_command("doctor", "--run-dir", tmp_path).stdout


@pytest.mark.mpi
def test_facts_of_different_length_are_gathered(mpiexec) -> None:
    program = (
        "from hpcgen import farm\nfrom hpcgen.farm import survey\nw = farm.world()\n"
        "told = survey.gather({'rank': w.rank, 'text': 'é' * 1000 * w.rank}, w)\n"
        "assert [t['rank'] for t in told] == list(range(w.size)), told\n"
        "assert [len(t['text']) for t in told] == [1000 * r for r in range(w.size)]\n"
        "print('gathered', w.size)\n"
    )
    result = mpiexec(3, "-c", program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("gathered 3") == 3


VASP = """
hull: {reference: mp.csv.gz, elements: elements.json.gz}
vasp: {command: [%s]}
"""


@pytest.fixture
def vasp_doctor(hpcgen_command, tmp_path: Path):
    """`vasp_doctor(words, *arguments, **environment)`: the doctor on a campaign that starts VASP by these words."""

    def run(words: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "campaign.yaml"
        file.write_text(VASP % words, encoding="utf-8")
        bare = {name: text for name, text in os.environ.items() if name != "PMG_VASP_PSP_DIR"}
        return hpcgen_command("doctor", file, "--run-dir", tmp_path / "run", *arguments, env=bare | environment)

    return run


POTCAR = """ PAW_PBE {symbol} 06Sep2000
 4.0
 parameters from PSCTR are:
   VRHFIN ={element}: s1
   LEXCH  = PE
   TITEL  = PAW_PBE {symbol} 06Sep2000
   ENMAX  =  240.300; ENMIN  =  180.225 eV
 END of PSCTR-controll parameters
 local part
   0.1  0.2
 End of Dataset
"""


def potcars(folder: Path, symbols: Iterable[str]) -> None:
    """A folder of POTCARs as `pmg config -p` makes it; of each only what pymatgen insists on."""
    for symbol in symbols:
        place = folder / "POT_GGA_PAW_PBE" / f"POTCAR.{symbol}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(POTCAR.format(symbol=symbol, element=symbol.partition("_")[0]), encoding="utf-8")


def test_vasp_that_is_not_there(vasp_doctor) -> None:
    result = vasp_doctor("no-such-vasp")
    assert result.returncode == LaunchError.exit_code
    status, text = told(result.stdout, "VASP")
    assert (status, "no program 'no-such-vasp'" in text, "load the module" in text) == ("problem", True, True)
    status, text = told(result.stdout, "POTCARs")
    assert (status, "PMG_VASP_PSP_DIR is not set" in text, "pmg config -p" in text) == ("problem", True, True)
    assert told(result.stdout, "custodian")[0] == "ok"
    assert "Traceback" not in result.stderr
    assert vasp_doctor("no-such-vasp", "--without-vasp").returncode == 0


def test_a_launcher_without_its_program(vasp_doctor, tmp_path: Path) -> None:
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    settings = ("--set", "vasp.potcars=false")
    lacking = vasp_doctor("srun, -N1, no-such-vasp", *settings, PATH="/usr/bin-of-nobody")
    status, text = told(lacking.stdout, "VASP")
    assert (status, "there is no program 'srun'" in text, "mpirun" in text) == ("problem", True, True)
    here = {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    by_slurm = vasp_doctor("srun, -N1, no-such-vasp", *settings, **here)
    assert by_slurm.returncode == 0, "the nodes may have it"
    status, text = told(by_slurm.stdout, "VASP")
    assert (status, "site.env" in text) == ("warning", True)
    found = vasp_doctor(f"srun, -N1, {sys.executable}", *settings, **here)
    assert told(found.stdout, "VASP")[0] == "ok"
    assert "the command has to add them" in told(found.stdout, "POTCARs")[1]


def test_potcars_of_what_was_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Al-Ni and Al-Cu are selected, Al-Pd is not; without a selection all elements of the set count, as a warning."""
    from pymatgen.core import SETTINGS

    from hpcgen.stages import select

    context = campaign.fill(tmp_path / "run", 3, potcars=True, select={"max_structures": 2})
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", str(tmp_path / "psp"))

    def look() -> Finding:
        return worst(dft.findings(context.config, context.folder, World()), "POTCARs")

    assert (look().status, "is no folder" in look().found) == ("problem", True)
    potcars(tmp_path / "psp", ["Al"])
    assert (look().status, "Ni_pv" in look().found) == ("warning", True)
    select.run(context)
    assert look().status == "problem"
    assert "Cu_pv, Ni_pv" in look().found
    potcars(tmp_path / "psp", ["Ni_pv", "Cu_pv"])
    assert (look().status, look().found) == ("ok", "3, of all elements of selected.h5")
    (tmp_path / "psp/POT_GGA_PAW_PBE/POTCAR.Al").write_text("cut off")
    assert (look().status, "POTCAR of Al " in look().found) == ("problem", True)


def worst(findings, subject: str) -> Finding:
    return next(f for f in findings if f.subject == subject)


def test_clocks_that_disagree(mine) -> None:
    ranks = [mine | {"host": "n1"}, mine | {"host": "n2"}]
    found = worst(node.findings(ranks, [1000.0, 1100.0]), "clocks")
    assert found.status == "warning"
    assert "n2 is 100 s ahead of n1" in found.found
    assert worst(node.findings(ranks, [1000.0, 1000.5]), "clocks").status == "ok"


def test_ranks_pinned_to_one_core(mine) -> None:
    ranks = [mine | {"cores": [0], "cpus": 64, "threads": "1"} for _ in range(4)]
    found = worst(node.findings(ranks, [0.0] * 4), "cores")
    assert found.status == "warning"
    assert "4 ranks" in found.found
    assert "pinned to 1 of its 64 cores" in found.found
    spread = [rank | {"cores": [i]} for i, rank in enumerate(ranks)]
    assert worst(node.findings(spread, [0.0] * 4), "cores").status == "ok"


def test_unset_threads_on_a_shared_node(mine) -> None:
    ranks = [mine | {"cores": list(range(8)), "cpus": 8, "threads": ""} for _ in range(4)]
    found = worst(node.findings(ranks, [0.0] * 4), "cores")
    assert found.status == "warning"
    assert found.remedy == "export OMP_NUM_THREADS=2"


def test_little_memory_and_few_files(mine) -> None:
    ranks = [mine | {"memory": 2 * 1024**3, "limits": mine["limits"] | {"nofile": 256}} for _ in range(8)]
    findings = list(node.findings(ranks, [0.0] * 8))
    assert worst(findings, "memory").status == "warning"
    assert "256 MiB each" in worst(findings, "memory").found
    assert "ulimit -n" in worst(findings, "limits").remedy


def test_other_software_on_one_node(mine) -> None:
    other = mine | {"host": "n2", "packages": mine["packages"] | {"numpy": "1.0"}}
    found = worst(software.findings([mine, other], Config()), "packages")
    assert found.status == "problem"
    assert "numpy" in found.found
    lacking = mine | {"unmet": ["numpy>=1.26 (found 1.0)"]}
    found = worst(software.findings([mine, lacking], Config()), "packages")
    assert found.status == "problem"
    assert "numpy>=1.26 (found 1.0)" in found.found


def test_this_installation_meets_its_requirements(mine) -> None:
    assert mine["unmet"] == []
    assert mine["memory"] > 0


def test_the_file_system_of_a_path() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    mounted = subprocess.run(
        ["stat", "--file-system", "--format=%T", "/"], capture_output=True, text=True, check=True
    ).stdout
    assert file_system(Path("/")) != "unknown file system", mounted


def test_the_page_counts_what_it_found() -> None:
    findings = [Finding("ok", "a", "x"), Finding("warning", "b", "y", "z"), Finding("problem", "c", "w " * 200, "v")]
    text = page(findings)
    assert text.splitlines()[-1] == "doctor: 1 problem and 1 warning"
    assert max(map(len, text.splitlines())) <= 110
    assert page(findings[:1]).endswith("everything is as it should be")
