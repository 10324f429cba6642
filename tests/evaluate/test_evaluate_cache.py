from __future__ import annotations

import logging

import numpy as np
from ase.build import bulk

from hpcgen.crystal import Crystal, from_atoms
from hpcgen.evaluate.cache import Cache, crystal_key, default_folder

WHAT = {"matminer": "1"}


def test_key_is_of_the_content():
    salt = from_atoms(bulk("NaCl", "rocksalt", a=5.6))
    again = Crystal(salt.lattice, salt.frac, salt.numbers)
    moved = Crystal(salt.lattice, salt.frac + 1e-12, salt.numbers)
    assert crystal_key(salt) == crystal_key(again) != crystal_key(moved)


def test_what_was_flushed_is_found_by_another_process(tmp_path):
    first = Cache(tmp_path, WHAT, 3)
    vector = np.array([1.0, np.nan, -0.1])
    first.put(b"a" * 32, vector)
    assert Cache(tmp_path, WHAT, 3).get(b"a" * 32) is None
    first.flush()
    first.put(b"b" * 32, vector)
    first.flush()
    first.flush()
    second = Cache(tmp_path, WHAT, 3)
    np.testing.assert_array_equal(second.get(b"a" * 32), vector)
    np.testing.assert_array_equal(second.get(b"b" * 32), vector)
    assert len(list(tmp_path.iterdir())) == 2


def test_another_definition_is_another_cache(tmp_path):
    cache = Cache(tmp_path, WHAT, 1)
    cache.put(b"a" * 32, np.array([1.0]))
    cache.flush()
    assert Cache(tmp_path, {"matminer": "2"}, 1).get(b"a" * 32) is None


def test_damage_costs_a_block_and_is_said(tmp_path, caplog):
    cache = Cache(tmp_path, WHAT, 100)
    cache.put(b"a" * 32, np.arange(100.0))
    cache.flush()
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert Cache(tmp_path, WHAT, 100).get(b"a" * 32) is None
    assert file.name in caplog.text
    file.write_bytes(data[:50])
    assert Cache(tmp_path, WHAT, 100).get(b"a" * 32) is None


def test_nothing_is_written_without_a_folder_or_into_a_file(tmp_path, caplog):
    cache = Cache(None, WHAT, 1)
    cache.put(b"a" * 32, np.array([1.0]))
    cache.flush()
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    other = Cache(blocked, WHAT, 1)
    other.put(b"a" * 32, np.array([1.0]))
    other.flush()
    assert "cannot be kept" in caplog.text


def test_folder_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HPCGEN_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("HPCGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "hpcgen"
