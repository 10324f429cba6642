"""Records of every type for the tests of the store, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen import flow, store
from hpcgen.crystal import Crystal
from hpcgen.flow import array, column, make_id


@dataclass(frozen=True, eq=False)
class ToySample:
    """A sample type as a family declares one: arrays of fixed, but file-dependent, shape."""

    id: str
    target: str = column("text", "the condition asked for")
    n_atoms: np.float32 = array("f4", "number of atoms", shape=(), group="toy")  # noqa: RUF009
    vector: NDArray[np.float32] = array("f4", "descriptor", shape=("dimension",), group="toy")  # noqa: RUF009
    cell: NDArray[np.float32] = array("f4", "parameters", shape=(6,), group="toy")  # noqa: RUF009


store.register(ToySample, "hpcgen.samples")

TYPES = [
    flow.Entry,
    flow.Candidate,
    flow.Survivor,
    flow.Relaxation,
    flow.DftRelaxation,
    flow.Stability,
    flow.ReferenceEntry,
    ToySample,
]
WORDS = ["", "converged", "Bindungslänge 2 Å", "立方晶", "line\nbreak", "emoji 💎", 'quote " and \\ backslash']


def make(record_type: type, count: int, seed: int = 0) -> list[Any]:
    """`count` records; crystals of 1 to 5 atoms, every third of one atom; all kinds of text and numbers."""
    rng = np.random.default_rng(seed)
    return [_record(record_type, i, rng) for i in range(count)]


def _record(record_type: type, i: int, rng: np.random.Generator) -> Any:
    n = 1 if i % 3 == 0 else int(rng.integers(1, 6))
    crystal = Crystal(4 * np.eye(3) + rng.random((3, 3)), rng.random((n, 3)), rng.integers(1, 119, n))
    values: dict[str, Any] = {}
    for f in fields(record_type):
        meta = f.metadata
        if f.name == "id":
            values["id"] = make_id("test", record_type.__name__, i)
        elif f.name == "crystal":
            values["crystal"] = crystal
        elif meta["dtype"] == "id":
            values[f.name] = "" if i % 4 == 1 else make_id("test", f.name, i)
        elif meta["dtype"] == "text":
            values[f.name] = WORDS[(i + len(f.name)) % len(WORDS)]
        elif meta["dtype"] == "?":
            values[f.name] = bool(rng.integers(2))
        elif meta["kind"] == "column" and np.dtype(meta["dtype"]).kind == "i":
            values[f.name] = int(rng.integers(-(2**31), 2**31))
        elif meta["kind"] == "column":
            values[f.name] = [float("nan"), float("-inf"), -0.0, float(rng.normal())][i % 4]
        else:
            shape = [7 if isinstance(s, str) else s for s in meta["shape"]]
            ragged = {"per_atom": [n], "per_step": [i % 6]}  # some without any step
            shape = [*ragged.get(meta["kind"], []), *shape]
            drawn = rng.normal(size=shape).astype(meta["dtype"])
            values[f.name] = drawn if shape else drawn[()]
    return record_type(**values)


def assert_same(a: Any, b: Any) -> None:
    """All fields equal in type, shape and every bit, volatile ones too."""
    assert type(a) is type(b)
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        pairs = [(x, y)]
        if isinstance(x, Crystal):
            pairs = [(x.lattice, y.lattice), (x.frac, y.frac), (x.numbers, y.numbers)]
        for p, q in pairs:
            assert type(p) is type(q), f.name
            assert np.asarray(p).dtype == np.asarray(q).dtype, f.name
            np.testing.assert_array_equal(p, q, err_msg=f.name)
