"""The files: schemas, readers, writers, and the shards of unfinished stages. The only room that imports h5py.

    store.write("candidates.h5", Candidate, candidates, failures=failures, header=header)
    with store.open("candidates.h5", Candidate) as f:
        residual = f.column("residual")          # (M,) float64
        first = f[0]                             # Candidate

`open` shadows the builtin on purpose: it is used as `store.open`.
"""

from hpcgen.store.docs import hdf5_markdown
from hpcgen.store.inspect import describe_file
from hpcgen.store.merge import Picks, gather
from hpcgen.store.reader import File, content_digest
from hpcgen.store.reader import open_file as open
from hpcgen.store.schema import Column, Schema, describe, register, schema_of, schemas
from hpcgen.store.shards import Place, Shard, ShardWriter, read_shard
from hpcgen.store.writer import write

__all__ = [
    "Column",
    "File",
    "Picks",
    "Place",
    "Schema",
    "Shard",
    "ShardWriter",
    "content_digest",
    "describe",
    "describe_file",
    "gather",
    "hdf5_markdown",
    "open",
    "read_shard",
    "register",
    "schema_of",
    "schemas",
    "write",
]
