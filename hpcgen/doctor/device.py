"""GPUs: whether torch can compute on those that a node has, and whether the ranks outnumber them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcgen.config import Config
from hpcgen.doctor.finding import Facts, Finding, by_host, some
from hpcgen.farm import World, survey


def installed() -> int:
    """NVIDIA devices of this node, whether or not this process may use them; torch is not imported for it."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def findings(ranks: Sequence[Facts], config: Config | None, world: World) -> Iterator[Finding]:
    """All ranks call it; one rank for each set of visible devices of a node tries them."""
    if not any(facts["installed_gpus"] for facts in ranks):
        wants = [s for s in ("train", "sample", "relax") if config and getattr(config, s).device == "cuda"]
        if wants:
            remedy = "ask Slurm for GPUs (--gpus-per-node), or set the stage's `device: auto`"
            yield Finding("problem", "GPUs", f"none on this machine, and {some(wants)} asks for cuda", remedy)
        else:
            yield Finding("ok", "GPUs", "none; everything runs on the CPU")
        return
    places = [(facts["host"], facts["gpus"]) for facts in ranks]
    mine = places[world.rank]
    tried = survey.gather(_try() if places.index(mine) == world.rank else {}, world)
    for i, result in enumerate(tried):
        for name, reason in result.get("broken", {}).items():
            yield Finding(
                "problem",
                "GPUs",
                f"{name} on {ranks[i]['host']} cannot compute: {reason}",
                "check the driver (nvidia-smi) and that torch is built for its CUDA version, or leave that node out",
            )
    if any(result.get("broken") for result in tried):
        return
    usable = {host: max(len(tried[ranks.index(f)].get("names", [])) for f in here) for host, here in _nodes(ranks)}
    lacking = [host for host, here in _nodes(ranks) if usable[host] == 0 and here[0]["installed_gpus"]]
    if lacking:
        yield Finding(
            "warning",
            "GPUs",
            f"{some(lacking)} has GPUs, but they are not visible to these ranks",
            "ask Slurm for them (--gpus-per-node) if relaxation and training should use them",
        )
        return
    yield _counts(ranks, config, usable, next(r["names"] for r in tried if r.get("names")))


def _nodes(ranks: Sequence[Facts]) -> list[tuple[str, list[Facts]]]:
    return list(by_host(ranks).items())


def _counts(ranks: Sequence[Facts], config: Config | None, usable: dict[str, int], names: list[str]) -> Finding:
    allowed = config.farm.ranks_per_gpu if config else 1
    for host, here in _nodes(ranks):
        sets = {facts["gpus"] for facts in here}
        devices = sum(len(s.split(",")) for s in sets) if len(sets) > 1 else usable[host]
        if len(here) > devices * allowed:
            return Finding(
                "warning",
                "GPUs",
                f"{len(here)} ranks on {host} and {devices} GPUs, with farm.ranks_per_gpu {allowed}: enough for "
                "reconstruction, which runs on cores, too many for relaxation on GPUs",
                f"relax with --ntasks-per-node={devices * allowed}, or raise farm.ranks_per_gpu",
            )
    per_node = sorted(set(usable.values()))
    return Finding("ok", "GPUs", f"{per_node[0]} a node, torch can compute on them: {some(sorted(set(names)))}")


def _try() -> dict:
    """Names of the visible devices, and the reason for each that cannot compute."""
    import torch

    names, broken = [], {}
    if not torch.cuda.is_available():
        return {"names": [], "broken": {}}
    for number in range(torch.cuda.device_count()):
        name = f"GPU {number}"
        try:
            name = f"{torch.cuda.get_device_name(number)}"
            ones = torch.ones(64, 64, device=f"cuda:{number}")
            if (ones @ ones).sum().item() != 64**3:
                broken[f"GPU {number}"] = "a matrix product is wrong"
        except RuntimeError as error:
            broken[f"GPU {number}"] = str(error).splitlines()[0]
        names.append(name)
    return {"names": names, "broken": broken}
