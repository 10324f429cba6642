"""What travels between the ranks, and how a rank gets its work.

Rank 0 hands out chunks and works too, the others ask. Every message is a numpy array of fixed size, so nothing is
pickled. A worker asks for its next chunk when it starts the one before. When there is nothing left to hand out,
requests stay open until every task is done, because a rank may still give tasks back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

REQUEST, IDLE, RETIRED, FINISHED, REPLY = 1, 2, 3, 4, 5
STOP, DONE = -1, -2  # replies that are no chunk
SERVE_SECONDS = 0.002  # between looks at messages: a look costs as much as a tiny task
Range = tuple[int, int]
Chunk = tuple[int, int, int]  # start, stop, and how many processes its one task has killed (0: not suspect)


@dataclass
class Tally:
    """What a rank has done so far in this start.

    Attributes:
        done: committed results.
        failed: those of them that are failures.
        busy: seconds inside tasks and commits.
        chunks: how many it has received.
        stopped: whether this rank was told to stop by a signal.
        returned: positions that it gives back.
        suspect: position in which its device failed, given back too; -1 if there is none.
    """

    done: int = 0
    failed: int = 0
    busy: float = 0.0
    chunks: int = 0
    stopped: bool = False
    returned: Range = (0, 0)
    suspect: int = -1

    def pack(self) -> NDArray[np.float64]:
        """As it travels: (8,) float64, exact for counts below 2^53."""
        fields = (self.done, self.failed, self.busy, self.chunks, self.stopped, *self.returned, self.suspect)
        return np.array(fields, dtype=np.float64)

    @classmethod
    def unpack(cls, data: NDArray[np.float64]) -> Tally:
        """The tally in a message."""
        done, failed, _, chunks, stopped, start, stop, suspect = (int(x) for x in data)
        return cls(done, failed, float(data[2]), chunks, bool(stopped), (start, stop), suspect)


MESSAGE = len(Tally().pack())


class Source(Protocol):
    """Where a rank gets its positions from."""

    def next(self, tally: Tally) -> Chunk | None:
        """The next chunk, or None if there is none at present."""
        ...

    def wait(self, tally: Tally) -> Chunk | None:
        """The next chunk, for a rank with nothing in hand and everything committed; None if it is over."""
        ...

    def leave(self) -> bool:
        """Between two tasks of a chunk: whether to drop the rest."""
        ...

    def retire(self, tally: Tally, suspect: int, rest: Range) -> None:
        """The device failed in `suspect`: give it and `rest` back, do no more, and wait until it is over."""
        ...

    def finish(self, tally: Tally) -> None:
        """This rank's shard is sealed."""
        ...
