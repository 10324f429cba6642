"""Long jobs of other programs, many at a time, outside MPI: a controller, its slots, and a ledger of what was done.

    controller.py  hands tasks to N slots, one process each, and refills them; knows no science
    settings.py    how it works, and what it says at the end
    worker.py      the process of a slot: runs one attempt after the other, dies with its controller
    process.py     starts slots in sessions of their own, and ends what they started, never by name
    ledger.py      which attempt of which task began and how it ended, append-only, each line with its digest
    outcome.py     what an attempt came to, in its own folder, before anybody is told
    budget.py      how much time this job has left

What a slot does is a function `program(order, control) -> Outcome` named by its path, `module:function`. An attempt has
a folder of its own, empty at the start, `ROOT/<task>/<attempt>/`, so that nothing of an earlier one can be mistaken for
its result, and a process that outlived its slot cannot spoil a later attempt.
"""

from hpcgen.slots.budget import job_end
from hpcgen.slots.controller import Controller
from hpcgen.slots.ledger import Ledger, Standing, standings
from hpcgen.slots.outcome import Control, Outcome, read_outcome
from hpcgen.slots.settings import SlotSettings, Summary

__all__ = [
    "Control",
    "Controller",
    "Ledger",
    "Outcome",
    "SlotSettings",
    "Standing",
    "Summary",
    "job_end",
    "read_outcome",
    "standings",
]
