"""The chain of a campaign: `order` says which stages there are, `runner` runs them.

`hpcgen run` walks through `STAGES`, with `DFT` among them where the configuration has a section `vasp`, and resumes at
the first one whose output is missing.
"""

from hpcgen.pipeline.order import (
    ASIDE,
    DFT,
    DYNAMICS,
    PHONONS,
    PHONONS_BY_VASP,
    ROUNDTRIP,
    STAGES,
    Stage,
    chain,
    stage,
    work_of,
)
from hpcgen.pipeline.runner import (
    command_for,
    done,
    plan,
    recorded,
    run_all,
    run_part,
    run_stage,
    set_aside,
)

__all__ = [
    "ASIDE",
    "DFT",
    "DYNAMICS",
    "PHONONS",
    "PHONONS_BY_VASP",
    "ROUNDTRIP",
    "STAGES",
    "Stage",
    "chain",
    "command_for",
    "done",
    "plan",
    "recorded",
    "run_all",
    "run_part",
    "run_stage",
    "set_aside",
    "stage",
    "work_of",
]
