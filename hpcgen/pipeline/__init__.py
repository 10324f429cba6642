"""The chain of a campaign: `order` says which stages there are, `runner` runs them.

`hpcgen run` walks through `STAGES`, with `DFT` among them where the configuration has a section `vasp`, and resumes at
the first one whose output is missing.
"""

from hpcgen.pipeline.order import (
    DFT,
    DYNAMICS,
    PHONONS,
    PHONONS_BY_VASP,
    ROUNDTRIP,
    STAGES,
    chain,
    stage,
    work_of,
)
from hpcgen.pipeline.runner import (
    done,
    plan,
    run_all,
    run_part,
    run_stage,
    set_aside,
)

__all__ = [
    "DFT",
    "DYNAMICS",
    "PHONONS",
    "PHONONS_BY_VASP",
    "ROUNDTRIP",
    "STAGES",
    "chain",
    "done",
    "plan",
    "run_all",
    "run_part",
    "run_stage",
    "set_aside",
    "stage",
    "work_of",
]
