"""Checkpoints: what was written comes back, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle

import numpy as np
import pytest
import torch

from hpcgen.errors import CheckpointError, StoreError
from hpcgen.train import checkpoint, plain
from hpcgen.train.checkpoint import Checkpoint, TrainedPart, load, save


def example_part(**changes) -> TrainedPart:
    content = {
        "shape": [3],
        "step": 10,
        "steps": 10,
        "weights": {"w": torch.randn(2, 3)},
        "ema": {"w": torch.randn(2, 3)},
        "ema_step": 8,
        "lower": torch.zeros(3),
        "upper": torch.ones(3),
    }
    return TrainedPart(**(content | changes))


def example(**changes) -> Checkpoint:
    content = {
        "family": "toy",
        "family_state": {"elements": ["Na", "Cl"], "scale": torch.arange(3.0), "nested": {"a": [1, 2.5, None, True]}},
        "config": "seed: 1\n",
        "config_digest": "abc",
        "dataset_digest": "def",
        "parts": {"composition": example_part(), "lattice": example_part(shape=[6])},
        "balance": "{}",
        "failures": [["id", "train", "not-encoded", "why"]],
    }
    return Checkpoint(**(content | changes))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, TrainedPart):
        return same(vars(a), vars(b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def test_round_trip(tmp_path):
    path = tmp_path / "checkpoint.pt"
    written = example()
    save(path, written)
    read = load(path, family="toy", config_digest="abc", dataset_digest="def")
    for f in dataclasses.fields(Checkpoint):
        assert same(getattr(written, f.name), getattr(read, f.name)), f.name
    assert list(read.parts) == ["composition", "lattice"]
    assert read.finished
    assert not example(parts={"a": example_part(), "b": example_part(step=5)}).finished
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, example())
    with pytest.raises(TypeError, match=r"family_state\['mean'\] is a ndarray"):
        save(path, example(family_state={"mean": np.zeros(3)}))
    assert load(path).family_state["elements"] == ["Na", "Cl"]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*\n.*hpcgen train"):
        load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 nor this"])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_truncated(tmp_path, share):
    path = tmp_path / "checkpoint.pt"
    save(path, example())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="cannot be read: it is truncated"):
        load(path)


def test_a_flipped_bit(tmp_path):
    path = tmp_path / "checkpoint.pt"
    written = example()
    save(path, written)
    whole = bytearray(path.read_bytes())
    whole[whole.find(written.parts["lattice"].ema["w"].numpy().tobytes()) + 2] ^= 4
    path.write_bytes(whole)
    torch.load(path, weights_only=True)  # torch by itself does not notice
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


def test_a_full_disk_is_said_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(path, example())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"the file system is full .*earlier checkpoints are safe"):
        save(path, example(family="other"))
    assert load(path).family == "toy"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, how):
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "trace"
    content = {"format": checkpoint.FORMAT, "format_version": 1, "weights": Malicious(str(trace))}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="more than plain data"):
        load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if how == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap works: loading it carelessly does run the code


def test_another_torch_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {"w": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match="no hpcgen checkpoint"):
        load(path)
    torch.save(torch.zeros(2), path)
    with pytest.raises(CheckpointError, match="no hpcgen checkpoint"):
        load(path)


def test_newer_format_names_both_versions(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(checkpoint, "VERSION", 3)
    monkeypatch.setattr(plain, "__version__", "9.9")
    save(path, example())
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format 3, written by hpcgen 9\.9\n.*format 2 .*\n.*install the newer"):
        load(path)


def test_older_format_says_what_to_do(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": 1, "hpcgen_version": "0.1.0"}, path)
    with pytest.raises(CheckpointError, match=r"format 1, written by hpcgen 0\.1\.0\n.*\n.*train again"):
        load(path)


def test_incomplete(tmp_path):
    path = tmp_path / "checkpoint.pt"
    plain.write(path, checkpoint.FORMAT, checkpoint.VERSION, {"family": "toy"})
    with pytest.raises(CheckpointError, match="lacks family_state, "):
        load(path)


def test_another_family_configuration_or_data_set(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, example())
    with pytest.raises(CheckpointError, match=r"family 'toy'\n.*'pointcloud'"):
        load(path, family="pointcloud")
    with pytest.raises(CheckpointError, match=r"digest abc\n.*xyz"):
        load(path, config_digest="xyz")
    with pytest.raises(CheckpointError, match=r"other data: content digest def\n.*xyz"):
        load(path, dataset_digest="xyz")
