"""Tasks over MPI ranks: dynamic scheduling, crash-safe shards, restarts. Knows no science; the only room with MPI.

    result = farm.run(ids, costs, work, Candidate, shards=folder / "shards", config=config.farm, label="reconstruct")
    if result is not None:                       # rank 0
        store.write(path, Candidate, result.records, failures=result.failures, header=header)
        farm.finish(folder / "shards")

The same program runs alone, under `mpiexec -n 8` and under `srun`.
"""

from hpcgen.farm.engine import FarmResult, run
from hpcgen.farm.shards import finish
from hpcgen.farm.world import World, tasks_launched, world

__all__ = ["FarmResult", "World", "finish", "run", "tasks_launched", "world"]
