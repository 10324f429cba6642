"""Tasks over MPI ranks: dynamic scheduling, crash-safe shards, restarts. Knows no science; the only room with MPI.

    def deliver(result):                               # on the leader, when every task is done
        result.write(path, header=header, attrs={})    # records and failures, in the order of the tasks

    farm.run(ids, costs, work, Candidate, shards=folder / "shards", config=config.farm, label="reconstruct",
             deliver=deliver)

The same program runs alone, under `mpiexec -n 8`, under `mpiexec --with-ft ulfm -n 8` and under `srun`. Read
`engine.py` and `starts.py` first; they call, in this order,

    agreement   do all ranks run the same thing
    shards      what is done already             attempts  which task a dead rank had in hand
    schedule    which tasks go out next          coordinator, worker, messages  who gets them
    tasks       doing one                        solo      doing one that has killed
    signals     when to stop                     channel   the MPI calls; who died
    lock        one run in a folder              devices   which GPU is whose
"""

from hpcgen.farm.devices import pin_device
from hpcgen.farm.engine import run
from hpcgen.farm.result import FarmResult
from hpcgen.farm.world import World, tasks_launched, world

__all__ = ["FarmResult", "World", "pin_device", "run", "tasks_launched", "world"]
