"""A GPU that fails is not the fault of the crystal at hand: what torch raises, and what becomes of it."""

from __future__ import annotations

import pytest
import torch
from relax_crystals import rocksalt

from hpcgen.crystal import Crystal
from hpcgen.errors import DeviceFailure, Failure
from hpcgen.relax import chgnet as module

LAUNCH = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


def failing(monkeypatch: pytest.MonkeyPatch, calculator, error: Exception) -> list[Crystal]:
    """Make every evaluation raise; returns the list of the crystals that were tried."""
    tried: list[Crystal] = []

    def evaluate(crystals, graphs):
        tried.extend(crystals)
        raise error

    monkeypatch.setattr(calculator, "_evaluate", evaluate)
    monkeypatch.setattr(module, "MEMORY_PAUSES", (0.0, 0.0))
    return tried


def sticky_errors() -> list[Exception]:
    errors: list[Exception] = [RuntimeError(LAUNCH), RuntimeError("HIP error: the operation cannot be performed")]
    if hasattr(torch, "AcceleratorError"):
        errors.append(torch.AcceleratorError("an illegal memory access was encountered"))
    return errors


@pytest.mark.parametrize("error", sticky_errors(), ids=lambda e: f"{type(e).__name__} {str(e)[:4]}")
def test_a_sticky_error_takes_the_rank_out(chgnet, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    calculator = chgnet()
    tried = failing(monkeypatch, calculator, error)
    with pytest.raises(DeviceFailure) as caught:
        calculator.relax(["x", "y"], [rocksalt(5.7), rocksalt(5.6)])
    assert str(caught.value) == str(error).splitlines()[0]
    assert len(tried) == 2  # both at once, once


@pytest.mark.parametrize(("own", "blamed"), [(30, "crystal"), (3, "others")])
def test_out_of_memory(chgnet, monkeypatch: pytest.MonkeyPatch, own: int, blamed: str) -> None:
    calculator = chgnet()
    tried = failing(monkeypatch, calculator, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: own * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 40 * 2**30))
    if blamed == "crystal":
        (result,) = calculator.relax(["x"], [rocksalt(5.7)])
        assert isinstance(result, Failure)
        assert result.kind == "out-of-memory"
        assert "30.0 of 40.0 GiB" in result.message
    else:
        with pytest.raises(DeviceFailure, match=r"farm\.ranks_per_gpu"):
            calculator.relax(["x"], [rocksalt(5.7)])
    assert len(tried) == 3  # the neighbours' peaks pass


def test_memory_that_comes_back_is_no_failure(chgnet, monkeypatch: pytest.MonkeyPatch) -> None:
    calculator, alone = chgnet(), chgnet()
    real, left = calculator._evaluate, [torch.OutOfMemoryError("CUDA out of memory")]

    def evaluate(crystals, graphs):
        if left:
            raise left.pop()
        return real(crystals, graphs)

    monkeypatch.setattr(calculator, "_evaluate", evaluate)
    monkeypatch.setattr(module, "MEMORY_PAUSES", (0.0,))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    (result,), (expected,) = calculator.relax(["x"], [rocksalt(5.7)]), alone.relax(["x"], [rocksalt(5.7)])
    assert result.energy == expected.energy
