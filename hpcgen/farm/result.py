"""What the leader of a farm gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.errors import Failure
from hpcgen.farm.shards import Catalogue


@dataclass(frozen=True)
class FarmResult:
    """What the leader gets.

    Attributes:
        tasks: how many there are; each has a record or a failure.
        seconds: wall time of this start.
        busy: (ranks,) share of that time that each rank spent on tasks.
        resumed: results that earlier starts had committed.
    """

    tasks: int
    seconds: float
    busy: NDArray[np.float64]
    resumed: int
    _catalogue: Catalogue | None

    @property
    def records(self) -> int:
        """How many tasks gave a record."""
        return self._stored.records

    @property
    def failures(self) -> list[Failure]:
        """The failures, in the order of the tasks."""
        return self._stored.failures()

    def items(self) -> list[Any]:
        """A record or a `Failure` per task, in order, all in memory."""
        return self._stored.items()

    def write(self, path: Path, *, header: Any, attrs: dict[str, Any]) -> None:
        """Write all records and failures, in the order of the tasks, as `store.write` does, in bounded memory."""
        self._stored.write(path, header=header, attrs=attrs)

    @property
    def _stored(self) -> Catalogue:
        if self._catalogue is None:
            raise ValueError("nothing was stored: the farm ran without a folder for shards")
        return self._catalogue
