"""Appends to a shard until it is killed, and prints the number of results after each commit: the acknowledgement."""

from __future__ import annotations

import sys

from store_records import make

from hpcgen import store
from hpcgen.errors import Failure
from hpcgen.flow import Relaxation, make_id

if __name__ == "__main__":
    records = make(Relaxation, 50)
    writer = store.ShardWriter(sys.argv[1], Relaxation)
    print(0, flush=True)
    count = 0
    while True:
        for _ in range(3):
            task = make_id("kill", "task", count)
            writer.append(Failure(task, "x", "y", "z") if count % 7 == 0 else records[count % 50], task)
            count += 1
        print(writer.commit(), flush=True)
