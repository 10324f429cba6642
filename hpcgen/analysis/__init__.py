"""Results for scripts and other programs: a run folder as tables and crystals, and exports to foreign formats.

    run = hpcgen.open("runs/quickstart")
    run.joined().query("unique and novel and e_hull <= 0.08")      # pandas
    run.crystals("stability").structure(0)                         # pymatgen; .atoms(0) is ASE's
    export(run, "extxyz", Path("stable.extxyz"), max_e_hull=0.08)

Nothing is read before it is asked for, and of a table only the columns asked for.
"""

from hpcgen.analysis.export import FORMATS, export
from hpcgen.analysis.run import Crystals, Run

__all__ = ["FORMATS", "Crystals", "Run", "export"]
