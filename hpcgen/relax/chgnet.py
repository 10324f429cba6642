"""CHGNet 0.3.0 (Deng et al., Nature Machine Intelligence 5, 1031, 2023), whose weights come in its wheel.

It was trained on Materials Project energies that carry the MP2020 corrections already: they are never corrected
again. Many crystals are evaluated together (`network.py`), with one thread on a CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import time
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hpcgen.config import RelaxConfig
from hpcgen.crystal import Crystal
from hpcgen.errors import DependencyError, DeviceFailure, Failure
from hpcgen.relax import minimise as optimiser
from hpcgen.relax.calculator import Relaxed
from hpcgen.relax.device import first_line, is_device_failure, memory_used, one_thread, pick_device
from hpcgen.relax.graph import Graph, crystal_graph
from hpcgen.relax.minimise import Evaluation, UnphysicalError
from hpcgen.relax.together import relax_together

if TYPE_CHECKING:
    from hpcgen.relax.network import Network

log = logging.getLogger("hpcgen")
MODEL = "0.3.0"
WEIGHTS = "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"
BOND_CUTOFF, ANGLE_CUTOFF = 6.0, 3.0  # angstrom, of the weights
HEAVIEST = 94  # of its table of elements
ATOMS = {"cpu": 64, "cuda": 2048}  # evaluated together: beyond that a core gains nothing, and a GPU needs some 10 GiB
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
            "config": self._config.criteria(),
            "optimiser": optimiser.SETTINGS,
        }
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()

    def relax(self, ids: Sequence[str], crystals: Sequence[Crystal]) -> list[Relaxed | Failure]:
        """All of them side by side; see `Calculator.relax`.

        Raises:
            DeviceFailure: if the GPU cannot be used any more, or others hold its memory: no crystal is to blame.
        """
        with one_thread():
            atoms = ATOMS[self._network.device.type]
            return relax_together(self.evaluate_all, ids, crystals, self._config, atoms)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        """Energy, forces and stress of a crystal.

        Raises:
            UnphysicalError: as `evaluate_all` returns it.
        """
        with one_thread():
            (result,) = self.evaluate_all([crystal])
        if isinstance(result, UnphysicalError):
            raise result
        return result

    def evaluate_all(self, crystals: Sequence[Crystal]) -> list[Evaluation | UnphysicalError]:
        """Energy, forces and stress of each crystal, or why it has none.

        `isolated-atom` if an atom has no neighbour within the cutoff of 6 angstrom, where the potential knows nothing;
        `unknown-element` beyond its table; `out-of-memory`; `calculator-error` for whatever its code raises on a
        crystal unlike any it was made for: one of these never stops a campaign.

        Raises:
            DeviceFailure: as `relax`.
        """
        graphs = [_graph(crystal) for crystal in crystals]
        good = [i for i, graph in enumerate(graphs) if isinstance(graph, Graph)]
        out = [graph for graph in graphs if isinstance(graph, UnphysicalError)]
        results = self._blame([crystals[i] for i in good], [g for g in graphs if isinstance(g, Graph)])
        evaluated, failed = iter(results), iter(out)
        return [next(evaluated) if isinstance(graph, Graph) else next(failed) for graph in graphs]

    def _blame(self, crystals: Sequence[Crystal], graphs: Sequence[Graph]) -> list[Evaluation | UnphysicalError]:
        """All together; if that raises each alone, so that only the guilty one fails."""
        import torch

        try:
            return list(self._with_memory(crystals, graphs)) if graphs else []
        except (ValueError, RuntimeError, ArithmeticError, IndexError) as error:
            lacks_memory = isinstance(error, torch.OutOfMemoryError)
            if not lacks_memory and is_device_failure(error):
                raise DeviceFailure(first_line(error)) from error
            if len(crystals) > 1:
                pairs = zip(crystals, graphs, strict=True)
                return [result for crystal, graph in pairs for result in self._blame([crystal], [graph])]
            if lacks_memory:
                size = f"{crystals[0].formula}, {len(crystals[0])} atoms"
                return [UnphysicalError("out-of-memory", memory_used(size, error))]
            return [UnphysicalError("calculator-error", f"{type(error).__name__}: {first_line(error)}")]

    def _with_memory(self, crystals: Sequence[Crystal], graphs: Sequence[Graph]) -> list[Evaluation]:
        """Evaluate, several times if the GPU has no memory: the ranks that share it need theirs only now and then."""
        import torch

        for pause in MEMORY_PAUSES:
            try:
                return self._evaluate(crystals, graphs)
            except torch.OutOfMemoryError:
                log.warning("relax: the GPU is out of memory, trying again in %g s", pause)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                time.sleep(pause)
        return self._evaluate(crystals, graphs)

    def _evaluate(self, crystals: Sequence[Crystal], graphs: Sequence[Graph]) -> list[Evaluation]:
        from hpcgen.relax.network import energies

        return [
            Evaluation(float(e.energy), e.forces, (e.virial + e.virial.T) / (2 * crystal.volume))
            for crystal, e in zip(crystals, energies(self._network, graphs), strict=True)
        ]

    @cached_property
    def _network(self) -> Network:
        import torch

        from hpcgen.relax.network import Network

        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            from chgnet.model.model import CHGNet

            state = torch.load(self._weights, map_location="cpu", weights_only=True)["model"]
            model = CHGNet.from_dict(state, mlp_out_bias=False, version=MODEL)  # as CHGNet.load does for 0.3.0
        return Network(model.to(pick_device(self._config.device)).eval().requires_grad_(False))


def _graph(crystal: Crystal) -> Graph | UnphysicalError:
    if crystal.numbers.max() > HEAVIEST:
        return UnphysicalError("unknown-element", f"CHGNet ends at Pu, found Z = {crystal.numbers.max()}")
    try:
        graph = crystal_graph(crystal, BOND_CUTOFF, ANGLE_CUTOFF)
    except (ValueError, ArithmeticError, IndexError) as error:
        return UnphysicalError("calculator-error", f"{type(error).__name__}: {first_line(error)}")
    if graph.isolated():
        return UnphysicalError("isolated-atom", f"an atom has no neighbour within {BOND_CUTOFF} angstrom")
    return graph
