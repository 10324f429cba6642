"""Data sets as crystals: readers, the checks every structure passes, splits, and built-in prototypes."""

from hpcgen.data.reader import BUILTIN, DataSet, available_cores, drawn, inputs, load, read
from hpcgen.data.split import SPLITS, splits

__all__ = ["BUILTIN", "SPLITS", "DataSet", "available_cores", "drawn", "inputs", "load", "read", "splits"]
