"""VASP's batch script on a real Slurm of four virtual nodes, with the stand-in started by srun on every one of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import vasp_campaign as campaign
from virtual_cluster import VirtualCluster, running, text_of, wait

from hpcgen import slots, store
from hpcgen.flow import DftRelaxation, Phonons, Stability
from hpcgen.slots.ledger import events
from hpcgen.stages import select

pytest.importorskip("custodian")
pytestmark = [pytest.mark.slurm, pytest.mark.slow]

COMMAND = ["srun", "-N1", "-n1", "--exact", "--mem=0", sys.executable, str(campaign.STAND_IN)]


@pytest.fixture
def cluster() -> Iterator[VirtualCluster]:
    """Four nodes with two processors each."""
    yield from running()


def ended(run: Path, state: str = "done") -> list[str]:
    return [e["task"] for e in events(run / "vasp") if e["event"] == "end" and e["state"] == state]


def test_sixteen_structures_on_four_nodes_and_one_node_dies(cluster: VirtualCluster, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    campaign.fill(run, 16, command=COMMAND, slots={"n": 4, "attempts": 5})
    variables = campaign.plan(tmp_path, seconds=0.3)
    job = cluster.submit("relax_array.sh", run, log, "--nodes=3-4", "--mincpus=2", **variables)
    wait(lambda: len(ended(run)) >= 3, "three structures", log)
    shown = cluster.job(job)
    nodes = cluster.run("scontrol", "show", "hostnames", shown["NodeList"]).stdout.split()
    assert len(nodes) == 4
    cluster.kill_node(next(node for node in nodes if node != shown["BatchHost"]))
    end = cluster.finish(job, log)
    assert end["JobState"] == "COMPLETED", text_of(log)
    with store.open(run / "relaxed-vasp.h5", DftRelaxation) as f:
        assert (len(f), len(f.failures)) == (16, 0), text_of(log)
    assert set(Counter(ended(run)).values()) == {1}
    with store.open(run / "stability.h5", Stability) as f:
        assert len(f) == 16


def test_an_array_does_its_parts_and_one_job_the_rest(cluster: VirtualCluster, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    select.run(campaign.fill(run, 6, command=COMMAND))
    wrong = cluster.submit("relax_array.sh", run, tmp_path / "wrong.log", "--array=1-2")
    job = cluster.submit("relax_array.sh", run, log, "--array=0-1", "--ntasks=2")
    wait(lambda: len(ended(run)) == 6, "all structures", log)
    assert {p.name for p in (run / "vasp").glob("ledger-*")} == {"ledger-0-of-2.jsonl", "ledger-1-of-2.jsonl"}
    assert not (run / "relaxed-vasp.h5").exists()
    last = cluster.submit("relax_array.sh", run, log, f"--dependency=afterany:{job}", "--ntasks=2")
    assert cluster.finish(last, log)["JobState"] == "COMPLETED", text_of(log)
    with store.open(run / "relaxed-vasp.h5", DftRelaxation) as f:
        assert len(f) == 6
    assert all(s.last == 1 for s in slots.standings(run / "vasp").values()), "nothing was computed twice"
    wait(lambda: "start at 0 without gaps" in text_of(tmp_path / "wrong.log"), f"the refusal of {wrong}", log)


def test_phonons_as_an_array_and_the_rest(cluster: VirtualCluster, tmp_path: Path) -> None:
    pytest.importorskip("phonopy")
    run, log = tmp_path / "run", tmp_path / "job.log"
    crystals = [campaign.cesium_chloride(pair) for pair in campaign.PAIRS[:3]]
    campaign.done(run, crystals, command=COMMAND, phonons={"forces": "mlip"})  # the script says `vasp`
    job = cluster.submit("phonons_vasp.sh", run, log, "--array=0-1", "--ntasks=2")
    wait(lambda: len(list((run / "vasp-phonons").glob("ledger-*-of-2.jsonl"))) == 2, "both parts", log)
    last = cluster.submit("phonons_vasp.sh", run, log, f"--dependency=afterany:{job}", "--ntasks=2")
    assert cluster.finish(last, log)["JobState"] == "COMPLETED", text_of(log)
    with store.open(run / "phonons.h5", Phonons) as f:
        assert len(f) == 3
    found = slots.standings(run / "vasp-phonons")
    assert len(found) >= 6
    assert all((s.state, s.last) == ("done", 1) for s in found.values()), "nothing was computed twice"
