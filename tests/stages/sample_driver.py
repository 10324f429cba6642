"""usage: mpiexec ... sample_driver.py FOLDER: the stage sample of the toy family in a run folder. Not a test."""

from __future__ import annotations

import sys
from pathlib import Path

from hpcgen.config import load
from hpcgen.family import FAMILIES
from hpcgen.stages import sample
from hpcgen.stages.context import Context

if __name__ == "__main__":
    FAMILIES["toy"] = "toy_family:ToyFamily"
    folder = Path(sys.argv[1])
    print(f"balance {sample.run(Context(load(folder / 'config.yaml'), folder))}", flush=True)
