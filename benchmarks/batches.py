"""The three kinds of batches of the PCCD paper, from a trained model to energies above the hull.

    python benchmarks/batches.py configs/pccd_mp.yaml --model runs/denoising --run-dir runs/batches --n 60

`--model` is a run folder with checkpoint.pt and dataset.h5, such as benchmarks/denoising.py leaves; settings of the
model that differ from the file's are given again by --set. Each batch is a campaign of its own below `--run-dir`, whose
stages run in this process, and which goes on where it was stopped. Element sets are those of the training split, drawn
as often as they occur, within

any      all elements but noble gases and radioactive ones
oxides   rare earths, alkaline earths, transition metals and oxygen
common   H, Li, B to F, Na to Cl, K, Ca, Ti to Zn; the paper does not say which it took

The last line is one JSON object. Of each batch: `n` samples; shares of them that are `decoded`, `valid_structure` (no
two atoms within `screen.min_distance`, volume at least 0.1 cubic angstrom), `valid_composition` (SMACT), `unique` and
`novel` (of the training split; both of those with a valid structure); `relaxed`, how many passed the screening and were
relaxed and compared with the hull; of these the shares `converged`, `novel_relaxed`, `within_250meV` and `within_80meV`
of the hull of `hull.reference`: a partial one, so that this is a screening, and the shares are upper bounds; `doubtful`
are those so far below it (0.1 eV/atom) that competitors must be missing there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from hpcgen import config, store
from hpcgen.errors import HpcgenError
from hpcgen.flow import Candidate, Relaxation, Stability, Survivor
from hpcgen.pipeline import STAGES, stage
from hpcgen.report.data import FAR_BELOW
from hpcgen.stages.context import Context

NOBLE, RADIOACTIVE = {"He", "Ne", "Ar", "Kr", "Xe"}, {"Tc", "Pm"}
LAST = 83  # bismuth; what follows is radioactive
RARE_EARTHS = {"Sc", "Y", *chemical_symbols[57:72]}
ALKALINE_EARTHS = {"Be", "Mg", "Ca", "Sr", "Ba"}
TRANSITION_METALS = {*chemical_symbols[21:31], *chemical_symbols[39:49], *chemical_symbols[72:81]}
COMMON = {chemical_symbols[z] for z in (1, 3, *range(5, 10), *range(11, 18), 19, 20, *range(22, 31))}
BATCHES = {
    "any": set(chemical_symbols[1 : LAST + 1]) - NOBLE - RADIOACTIVE,
    "oxides": (RARE_EARTHS | ALKALINE_EARTHS | TRANSITION_METALS | {"O"}) - RADIOACTIVE,
    "common": COMMON,
}


def main() -> None:
    """Run the batches and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file of a campaign of point clouds")
    parser.add_argument("--model", type=Path, required=True, help="run folder with checkpoint.pt and dataset.h5")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the campaigns, one below it for each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--n", type=int, default=60, help="samples of each batch")
    args = parser.parse_args()
    print(json.dumps({name: batch(name, elements, args) for name, elements in BATCHES.items()}))


def batch(name: str, elements: set[str], args: argparse.Namespace) -> dict[str, Any]:
    """One campaign, and its figures."""
    asked = json.dumps({"among": sorted(elements)})
    own = [f"name={name}", f"train.checkpoint={args.model.resolve()}/checkpoint.pt", f"sample.n={args.n}"]
    settings = config.load(args.config, [*args.set, *own, f"sample.conditions={asked}"])
    context = Context(settings, args.run_dir / name)
    context.claim()
    if not context.path("dataset.h5").exists():
        shutil.copyfile(args.model / "dataset.h5", context.path("dataset.h5"))
    for s in STAGES[1 : STAGES.index(stage("hull")) + 1]:
        if not context.path(s.writes).exists():
            print(import_module(f"hpcgen.stages.{s.name}").run(context), flush=True)
    return figures(context, args.n)


def figures(context: Context, n: int) -> dict[str, Any]:
    """Of a campaign that has reached the hull; see the module's docstring."""
    with store.open(context.path("candidates.h5"), Candidate) as file:
        decoded = len(file)
    with store.open(context.path("survivors.h5"), Survivor) as file:
        survivors = list(file)
    with store.open(context.path("relaxed-mlip.h5"), Relaxation) as file:
        converged = dict(zip(file.column("candidate_id"), file.column("converged"), strict=True))
    with store.open(context.path("stability.h5"), Stability) as file:
        compared = list(file)
    sound = [v for v in survivors if v.reason not in ("cell-collapsed", "atoms-too-close")]
    above = np.array([s.e_hull for s in compared])
    return {
        "n": n,
        "decoded": round(decoded / n, 4),
        "valid_structure": round(len(sound) / n, 4),
        "valid_composition": round(sum(v.composition_valid for v in survivors) / n, 4),
        "unique": _share([not v.duplicate_of for v in sound]),
        "novel": _share([v.novel for v in sound]),
        "relaxed": len(compared),
        "converged": _share([converged[s.candidate_id] for s in compared]),
        "novel_relaxed": _share([s.novel for s in compared]),
        "within_250meV": _share(above < 0.25),
        "within_80meV": _share(above < 0.08),
        "doubtful": _share(above < FAR_BELOW),
        "median_e_hull": round(float(np.median(above)), 4) if len(above) else None,
    }


def _share(values: Any) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


if __name__ == "__main__":
    try:
        main()
    except HpcgenError as error:
        raise SystemExit(str(error)) from None
