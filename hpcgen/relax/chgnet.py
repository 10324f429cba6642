"""CHGNet 0.3.0 (Deng et al., Nature Machine Intelligence 5, 1031, 2023), whose weights come in its wheel.

It was trained on Materials Project energies that carry the MP2020 corrections already: they are never corrected
again. Energy, forces and stress come from one forward and one backward pass; CHGNet's own prediction builds the graph
of second derivatives, which only training needs, and takes about twice as long.

On a CPU every crystal is evaluated with one thread and alone: batching 16 small crystals saves a quarter of the time
of an evaluation, and changes the last digits of the energies with the neighbours in the batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import DependencyError, DeviceFailure, Failure, LaunchError
from hpcgen.relax import minimise as optimiser
from hpcgen.relax.calculator import Relaxed
from hpcgen.relax.graph import crystal_graph
from hpcgen.relax.minimise import Evaluation, UnphysicalError, minimise

if TYPE_CHECKING:
    import torch
    from chgnet.model.model import CHGNet

log = logging.getLogger("hpcgen")
MODEL = "0.3.0"
WEIGHTS = "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
MEMORY_PAUSES = (0.5, 2.0, 8.0)  # seconds to wait for memory that other ranks hold on the same GPU


class ChgnetCalculator:
    """The default calculator; see `hpcgen.relax.calculator.Calculator`."""

    title = f"CHGNet {MODEL}"
    scale = "chgnet-mp2020"

    def __init__(self, config: RelaxConfig) -> None:
        """Raises:
        DependencyError: if chgnet is not installed, or holds other weights.
        """
        spec = find_spec("chgnet")
        if spec is None or spec.origin is None:
            raise DependencyError("the package chgnet is not installed", remedy="pip install 'hpcgen[mlip]'")
        self._config = config
        self._weights = Path(spec.origin).parent / WEIGHTS
        if not self._weights.is_file():
            raise DependencyError(
                f"this chgnet has no weights of version {MODEL} ({self._weights})",
                remedy="pip install 'chgnet>=0.4,<0.5'",
            )

    @cached_property
    def settings_digest(self) -> str:
        settings = {
            "model": self.title,
            "weights": hashlib.sha256(self._weights.read_bytes()).hexdigest(),
            "config": self._config.model_dump(mode="json", exclude={"device", "calculator"}),
            "optimiser": [optimiser.HESSIAN, optimiser.CELL_FACTOR, optimiser.MAX_STEP],
        }
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()

    def relax(self, ids: Sequence[str], crystals: Sequence[Crystal]) -> list[Relaxed | Failure]:
        """One by one; see `Calculator.relax`.

        Raises:
            DeviceFailure: if the GPU cannot be used any more, or others hold its memory: no crystal is to blame.
        """
        with _one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CHGNet's ways of making tensors
            return [self._relax(item_id, crystal) for item_id, crystal in zip(ids, crystals, strict=True)]

    def _relax(self, item_id: str, crystal: Crystal) -> Relaxed | Failure:
        import torch

        try:
            return self._with_memory(crystal)
        except UnphysicalError as error:
            return Failure(item_id, "relax", error.kind, f"{crystal.formula}: {error}")
        except torch.OutOfMemoryError as error:
            return Failure(item_id, "relax", "out-of-memory", _too_large(crystal, error))
        except (ValueError, RuntimeError, ArithmeticError, IndexError) as error:
            if is_device_failure(error):
                raise DeviceFailure(_first_line(error)) from error
            # the potential's own code on a crystal unlike any it was made for; one of these never stops a campaign
            message = f"{crystal.formula}: {type(error).__name__}: {_first_line(error)}"
            return Failure(item_id, "relax", "calculator-error", message)

    def _with_memory(self, crystal: Crystal) -> Relaxed:
        """Relax, several times if the GPU has no memory: the ranks that share it need theirs only now and then."""
        import torch

        for pause in MEMORY_PAUSES:
            try:
                return minimise(self.evaluate, crystal, self._config)
            except torch.OutOfMemoryError:
                log.warning("relax: %s: the GPU is out of memory, trying again in %g s", crystal.formula, pause)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                time.sleep(pause)
        return minimise(self.evaluate, crystal, self._config)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """Energy, forces and stress of a crystal.

        Raises:
            UnphysicalError: `isolated-atom` if an atom has no neighbour within the cutoff of 6 angstrom, where the
                potential knows nothing; `unknown-element` beyond its table.
        """
        import torch
        from chgnet.model.model import BatchedGraph

        model = self._model
        if crystal.numbers.max() > 94:
            raise UnphysicalError("unknown-element", f"CHGNet ends at Pu, found Z = {crystal.numbers.max()}")
        converter = model.graph_converter
        graph = crystal_graph(crystal, converter.atom_graph_cutoff, converter.bond_graph_cutoff)
        if len(np.unique(graph.atom_graph[:, 0])) < len(crystal):
            raise UnphysicalError(
                "isolated-atom", f"an atom has no neighbour within {converter.atom_graph_cutoff} angstrom"
            )
        graph = graph.to(str(self._device))
        batch = BatchedGraph.from_graphs(
            [graph],
            bond_basis_expansion=model.bond_basis_expansion,
            angle_basis_expansion=model.angle_basis_expansion,
            compute_stress=True,
        )
        per_atom = model._compute(batch)["e"]  # forward() would differentiate twice
        n = len(crystal)
        positions, strain = batch.atom_positions[0], batch.strains[0]
        by_position, by_strain = torch.autograd.grad(per_atom.sum() * n, [positions, strain])
        energy = (per_atom.detach() + model.composition_model([graph])).double().item() * n
        stress = by_strain.double().cpu().numpy() / crystal.volume
        return Evaluation(energy, -by_position.double().cpu().numpy(), (stress + stress.T) / 2)

    @cached_property
    def _device(self) -> torch.device:
        import torch

        wanted = self._config.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise LaunchError("relax.device is cuda, and torch finds no GPU", remedy="set relax.device=auto")
        if wanted == "auto" and _gpu_given() and torch.backends.cuda.is_built() and not torch.cuda.is_available():
            # on the CPU this rank would go on fifty times slower, and with other last digits than its neighbours
            raise DeviceFailure("torch cannot use the GPU that this rank was given (CUDA_VISIBLE_DEVICES)")
        return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

    @cached_property
    def _model(self) -> CHGNet:
        import torch

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from chgnet.model.model import CHGNet

            state = torch.load(self._weights, map_location="cpu", weights_only=True)["model"]
            model = CHGNet.from_dict(state, mlp_out_bias=False, version=MODEL)  # as CHGNet.load does for 0.3.0
        return model.to(self._device).eval().requires_grad_(False)


def _gpu_given() -> bool:
    """Whether this node has NVIDIA's driver, and the launcher or the farm gave this process a device."""
    given = re.match(r"\d|GPU-|MIG-", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    return given is not None and Path("/dev/nvidiactl").exists()


def is_device_failure(error: Exception) -> bool:
    """Whether torch says that the GPU is unusable: after such an error every later call in this process fails too."""
    import torch

    kind = getattr(torch, "AcceleratorError", None)  # torch 2.8 and later
    if kind is not None and isinstance(error, kind):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "HIP error", "cuDNN error"))


def _too_large(crystal: Crystal, error: Exception) -> str:
    """The message of a crystal that a whole GPU cannot hold.

    Raises:
        DeviceFailure: if others hold half of the memory or more: then the crystal is not to blame.
    """
    import torch

    own, (_, total) = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()
    text = f"{crystal.formula}, {len(crystal)} atoms: {own / 2**30:.1f} of {total / 2**30:.1f} GiB of GPU memory"
    if own < total / 2:
        raise DeviceFailure(
            f"{text} were enough to fill it, so others hold the rest: lower farm.ranks_per_gpu"
        ) from error
    return f"{text} are not enough"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Ranks share the cores of a node, and another number of threads would change the last digits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
