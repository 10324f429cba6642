"""Stage data: what is in dataset.h5, and that nothing is written when it cannot go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from hpcgen import store
from hpcgen.config import loads
from hpcgen.errors import DataError
from hpcgen.flow import Entry, make_id
from hpcgen.stages import data
from hpcgen.stages.context import Balance, Context


def make_table(path: Path) -> None:
    texts = [Structure(Lattice.cubic(3.0 + 0.1 * i), ["Li"], [[0, 0, 0]]).to(fmt="cif") for i in range(12)]
    texts[4] = "nothing"
    texts[7] = Structure(Lattice.cubic(3), [{"Fe": 0.5}], [[0, 0, 0]]).to(fmt="cif")
    path.write_text("cif\n" + "".join(f'"{t}"\n' for t in texts))


def run(folder: Path, text: str) -> tuple[Context, Balance]:
    ctx = Context(loads(text), folder / "run", config_dir=folder)
    ctx.claim()
    return ctx, data.run(ctx)


def test_dataset_holds_every_row_once(tmp_path: Path) -> None:
    make_table(tmp_path / "a.csv")
    ctx, balance = run(tmp_path, "{seed: 3, data: {source: a.csv, max_atoms: 4}}")
    assert str(balance) == "data: 12 in = 10 out + 1 broken-cif + 1 partial-occupancy"
    with store.open(ctx.path("dataset.h5"), Entry) as f:
        f.verify()
        assert Balance.from_json(f.attrs["balance"]) == balance
        rows = [f"row:{i + 1}" for i in range(12) if i not in (4, 7)]
        assert list(f.column("source")) == rows
        assert f.ids == [make_id(ctx.config.identity("data"), "data", i) for i in range(12) if i not in (4, 7)]
        assert [x.id for x in f.failures] == ["row:5", "row:8"]
        assert "train" in f.column("split")
        assert list(f.attrs["elements"]) == ["Li"]
        assert (f.attrs["max_atoms"], f.attrs["max_elements"]) == (1, 1)
        assert "a.csv" in f.attrs["inputs"]
        np.testing.assert_allclose(f[1].crystal.parameters, [3.1, 3.1, 3.1, 90, 90, 90])


def test_same_content_again_and_a_split_by_seed_alone(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    digests, splits = [], []
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        folder.mkdir()
        text = f"{{seed: {seed}, data: {{builtin: {{max_structures: 60, cations: [Na, Mg], anions: [O, F]}}}}}}"
        ctx, balance = run(folder, text)
        assert balance.entered == balance.left > 20
        digests.append(store.content_digest(ctx.path("dataset.h5")))
        with store.open(ctx.path("dataset.h5"), Entry) as f:
            splits.append(list(f.column("split")))
            assert set(f.attrs["elements"]) <= {"O", "F", "Na", "Mg"}
    assert digests[0] == digests[1] != digests[2]
    assert splits[0] == splits[1] != splits[2]


def test_nothing_is_written_without_usable_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("cif\nnothing\n")
    with pytest.raises(DataError, match="1 of 1 structures"):
        run(tmp_path, "data: {source: a.csv}")
    assert not (tmp_path / "run" / "dataset.h5").exists()
