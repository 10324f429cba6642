"""Options of every compiled kernel, chosen so that its bits depend on nothing but its arguments.

A kernel that calls another holds a copy of it, optimised anew in its place. Where sums may be reordered the copies
round differently, and which of them a call reaches depends on what the process compiled or loaded before: the first
run of an installation would give other bits than all later ones. So kernels are always inlined into those that call
them, down to what Python calls, and reordering is limited to loops written out in kernels: numba's own `np.sum` is
compiled on its own, and over real numbers it belongs into `EXACT` ones only.
"""

from __future__ import annotations

from typing import Any

EXACT: Any = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True}
"""Options of njit, whose overloads are too narrow for a dictionary."""

FUSED: Any = EXACT | {"fastmath": {"contract"}}
"""For sums that keep their order; a product and the sum that it goes into may be one instruction."""

FAST: Any = EXACT | {"fastmath": {"reassoc", "contract", "arcp", "nsz"}}
"""For kernels whose sums may be vectorised; NaN and infinity keep their meaning."""
