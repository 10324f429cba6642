"""Data sets as crystals: readers, the checks every structure passes, splits, and built-in prototypes."""

from hpcgen.data.reader import DataSet, available_cores, load, read
from hpcgen.data.split import SPLITS, splits

__all__ = ["SPLITS", "DataSet", "available_cores", "load", "read", "splits"]
