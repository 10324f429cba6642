"""Files: what is written comes back, whole or not at all, and plain h5py reads it as documented."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_records import TYPES, ToySample, assert_same, make

from hpcgen import store
from hpcgen.errors import Failure, StoreError
from hpcgen.flow import Candidate, Relaxation, Survivor

FAILURES = [
    Failure("row:17", "data", "broken-cif", "no atoms in «Ω.cif»"),
    Failure("file:a/b.cif", "data", "too-many-atoms", "21 atoms, 20 allowed"),
]
by_type = pytest.mark.parametrize("record_type", TYPES, ids=lambda t: t.__name__)


@by_type
@pytest.mark.parametrize("count", [0, 1, 40])
def test_round_trip(tmp_path: Path, record_type: type, count: int) -> None:
    path = tmp_path / "file.h5"
    records = make(record_type, count)
    store.write(path, record_type, iter(records), failures=FAILURES)
    with store.open(path, record_type) as f:
        f.verify()
        assert len(f) == count
        assert f.record_type is record_type
        assert f.ids == [r.id for r in records]
        assert f.failures == FAILURES
        for read in (list(f), f[:], [f[i] for i in range(count)], [f[i - count] for i in range(count)]):
            assert len(read) == count
            for a, b in zip(records, read, strict=True):
                assert_same(a, b)
        with pytest.raises(IndexError):
            f[count]
    with store.open(path) as f:  # whatever it holds
        assert f.record_type is record_type
    assert [p.name for p in tmp_path.iterdir()] == ["file.h5"]


def test_columns_arrays_and_crystals(tmp_path: Path) -> None:
    records = make(Relaxation, 9)
    store.write(tmp_path / "r.h5", Relaxation, records)
    with store.open(tmp_path / "r.h5", Relaxation) as f:
        np.testing.assert_array_equal(f.column("energy"), [r.energy for r in records])
        assert f.column("calculator").tolist() == [r.calculator for r in records]
        assert f.column("candidate_id").tolist() == [r.candidate_id for r in records]
        assert f.column("converged").dtype == bool
        np.testing.assert_array_equal(f.array("stress")[3:5], [r.stress for r in records[3:5]])
        np.testing.assert_array_equal(f.array("forces")[:], np.concatenate([r.forces for r in records]))
        assert [len(c) for c in f.crystals] == [len(r.crystal) for r in records]
        with pytest.raises(KeyError, match="has no column 'energie', only candidate_id, energy"):
            f.column("energie")
    store.write(tmp_path / "s.h5", Survivor, make(Survivor, 2))
    with store.open(tmp_path / "s.h5") as f, pytest.raises(StoreError, match="no crystal"):
        _ = f.crystals


def test_attributes_come_back_as_plain_values(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "text": "Ångström\nzwei",
        "number": 3,
        "ratio": 0.25,
        "flag": True,
        "elements": ["H", "Sr"],
        "scales": [0.5, 2.0],
        "nothing": [],
    }
    store.write(tmp_path / "a.h5", Survivor, [], header={"seed": 2**40}, attrs=given)
    with store.open(tmp_path / "a.h5") as f:
        assert {k: f.attrs[k] for k in given} == given
        assert f.attrs["seed"] == 2**40
        assert type(f.attrs["flag"]) is bool
    with pytest.raises(TypeError, match="attribute balance"):
        store.write(tmp_path / "a.h5", Survivor, [], attrs={"balance": {"in": 3}})
    with pytest.raises(ValueError, match="set by the store itself"):
        store.write(tmp_path / "a.h5", Survivor, [], attrs={"schema": "mine"})


def test_digest_tells_content_from_times(tmp_path: Path) -> None:
    records = make(Candidate, 6)

    def digest(items: list[Any], failures: list[Failure] = FAILURES, **attrs: Any) -> str:
        store.write(tmp_path / "d.h5", Candidate, items, failures=failures, attrs=attrs)
        return store.content_digest(tmp_path / "d.h5")

    one = digest(records)
    later = [dataclasses.replace(r, seconds=r.seconds + 1) for r in records]
    assert digest(later, created_utc="tomorrow") == one
    assert digest(records[::-1]) != one
    assert digest(records, FAILURES[:1]) != one
    for change in ({"residual": 9.0}, {"repair": "x"}, {"sample_id": "x"}, {"iterations": 1}):
        assert digest([dataclasses.replace(records[0], **change), *records[1:]]) != one
    moved = make(Candidate, 1, seed=5)[0].crystal
    assert digest([dataclasses.replace(records[0], crystal=moved), *records[1:]]) != one


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"id": "17 characters xxx"}, ValueError),
        ({"id": "Å"}, ValueError),
        ({"sample_id": "0123456789abcdef0"}, ValueError),
        ({"family": None}, TypeError),
        ({"residual": None}, TypeError),
        ({"residual": "0.5"}, TypeError),
        ({"iterations": 2.5}, TypeError),
        ({"iterations": 2**70}, (TypeError, OverflowError)),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_file_stays(
    tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    path = tmp_path / "c.h5"
    store.write(path, Candidate, make(Candidate, 3))
    before = path.read_bytes()
    records = make(Candidate, 5, seed=1)
    with pytest.raises(error):
        store.write(path, Candidate, [*records[:4], dataclasses.replace(records[4], **change)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]


def test_an_error_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.h5"
    store.write(path, Candidate, make(Candidate, 3))
    before = path.read_bytes()
    create = h5py.Group.create_dataset

    def fail(self: h5py.Group, name: str, *args: Any, **kwargs: Any) -> h5py.Dataset:
        if name == "table/repair":
            raise OSError(5, "Input/output error")
        return create(self, name, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        store.write(path, Candidate, make(Candidate, 5))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.h5"]


def test_arrays_must_have_one_shape(tmp_path: Path) -> None:
    a, b = make(ToySample, 2)
    with pytest.raises(ValueError, match=r"vector of .* has shape \(3,\)"):
        store.write(tmp_path / "s.h5", ToySample, [a, dataclasses.replace(b, vector=np.zeros(3, np.float32))])
    with pytest.raises(ValueError, match=r"cell of .* has shape \(5,\)"):
        store.write(tmp_path / "s.h5", ToySample, [dataclasses.replace(a, cell=np.zeros(5, np.float32))])
    r = make(Relaxation, 1)[0]
    with pytest.raises(ValueError, match="forces"):
        store.write(tmp_path / "r.h5", Relaxation, [dataclasses.replace(r, forces=np.zeros((len(r.forces) + 1, 3)))])
    with pytest.raises(TypeError, match="holds Candidate, not Relaxation"):
        store.write(tmp_path / "c.h5", Candidate, [r])


def test_text_that_hdf5_cannot_hold_is_escaped(tmp_path: Path) -> None:
    failure = Failure("file:caf\udce9.cif", "data", "broken-cif", "byte \0 in the file")
    store.write(tmp_path / "f.h5", Survivor, [], failures=[failure])
    with store.open(tmp_path / "f.h5") as f:
        f.verify()
        assert f.failures == [Failure(r"file:caf\udce9.cif", "data", "broken-cif", r"byte \x00 in the file")]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder exists"):
        store.write(tmp_path / "no" / "c.h5", Candidate, [])


@by_type
def test_plain_h5py_reads_it_in_five_lines(tmp_path: Path, record_type: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that `hpcgen inspect` prints work as they stand."""
    monkeypatch.chdir(tmp_path)
    records = make(record_type, 5)
    store.write("file.h5", record_type, records)
    text = store.describe_file("file.h5")
    lines = [line[2:] for line in text.split("read it\n")[1].splitlines()]
    assert 3 <= len(lines) <= 5
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    assert scope["ids"].tolist() == [r.id for r in records]
    if hasattr(records[0], "crystal"):
        np.testing.assert_array_equal(scope["frac"], records[0].crystal.frac)
        np.testing.assert_array_equal(scope["lattice"], records[0].crystal.lattice)
    scope["f"].close()


def test_the_page_documents_every_column_and_its_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    records = make(Candidate, 4)
    store.write("candidates.h5", Candidate, records)
    page = store.hdf5_markdown()
    examples = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(examples) == 3
    scope: dict[str, Any] = {}
    for example in examples:
        exec(example, scope)
    assert scope["df"]["stop_reason"].tolist() == [r.stop_reason for r in records]
    assert_same(scope["first"], records[0])
    for record_type in set(TYPES) - {ToySample}:
        for f in dataclasses.fields(record_type):
            assert f.name == "crystal" or f"/{f.name}`" in page, f"{record_type.__name__}.{f.name}"
    assert "RepresentationSample" in page
    assert "ToySample" not in page


def test_every_dataset_says_what_it_is(tmp_path: Path) -> None:
    store.write(tmp_path / "r.h5", Relaxation, make(Relaxation, 2), failures=FAILURES)
    bare = []

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and not node.attrs.get("description"):
            bare.append(name)

    with h5py.File(tmp_path / "r.h5") as f:
        f.visititems(look)
        assert bare == []
        assert f["atoms/forces"].attrs["unit"] == "eV/angstrom"
        assert f["lattice"].attrs["unit"] == "angstrom"


def test_describe_says_what_a_file_holds(tmp_path: Path) -> None:
    balance = '{"stage": "relax", "entered": 11, "left": 9, "failures": {"exploded": 2}}'
    records = [dataclasses.replace(r, energy=float(i)) for i, r in enumerate(make(Relaxation, 9))]
    failures = [Failure("a", "relax", "exploded", "x"), Failure("b", "relax", "exploded", "x")]
    store.write(tmp_path / "r.h5", Relaxation, records, failures=failures, attrs={"balance": balance, "n": [1, 2]})
    text = store.describe_file(tmp_path / "r.h5")
    for part in ("hpcgen.relaxed version 2: 9 records", "0 / 4 / 8 eV", "2  exploded", "11 in = 9 out + 2 exploded"):
        assert part in text
    store.write(tmp_path / "e.h5", Relaxation, [])
    assert "no values" in store.describe_file(tmp_path / "e.h5")


def test_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    store.write(tmp_path / "c.h5", Candidate, make(Candidate, 4))
    with store.open(tmp_path / "c.h5") as one, store.open(tmp_path / "c.h5") as two:
        assert one.ids == two.ids
        store.write(tmp_path / "c.h5", Candidate, make(Candidate, 2))  # renamed over: readers keep the old file
        assert len(list(one)) == len(list(two)) == 4


def test_declarations_that_cannot_be_stored_are_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Undeclared:
        id: str
        value: float

    @dataclasses.dataclass(frozen=True)
    class NoId:
        value: float

    for record_type, message in ((Undeclared, "value is not declared"), (NoId, "must be `id`"), (int, "no dataclass")):
        with pytest.raises(TypeError, match=message.replace("no dataclass", "not a dataclass")):
            store.register(record_type, "hpcgen.samples")
    with pytest.raises(TypeError, match="is not registered"):
        store.schema_of(Undeclared)


def test_two_types_of_one_name_are_refused() -> None:
    twin = dataclasses.make_dataclass("Candidate", [("id", str)], frozen=True)
    with pytest.raises(ValueError, match="two record types are called Candidate"):
        store.register(twin, "hpcgen.samples")
