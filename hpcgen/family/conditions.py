"""What samples can be asked for, as the condition vector of the networks, and what was asked for.

Each field makes one group of the vector (see `hpcgen.diffusion.conditions`); where a value is not known, its group is
zero. Fields are fitted to the training split and live in the checkpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgen.config import ConditionsConfig
from hpcgen.crystal import Crystal, FloatArray
from hpcgen.data.properties import category_of
from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.errors import ConfigError, DataError
from hpcgen.family import element_properties
from hpcgen.represent.composition import order_elements

ELEMENTS, N_ATOMS = "elements", "n_atoms"
CENTRES = 12  # radial basis functions of a scalar
Known = Mapping[str, Any]
"""What is known of one crystal by name: `elements` (atomic numbers), `n_atoms`, and columns of the data source."""


@dataclass(frozen=True)
class ElementSet:
    """The set of elements: one number for each of the E elements of the training split, and the presence flag."""

    elements: tuple[int, ...]

    name = ELEMENTS

    @property
    def width(self) -> int:
        """E + 1."""
        return len(self.elements) + 1

    def encode(self, value: Any) -> FloatArray:
        """(E + 1,) of atomic numbers.

        Raises:
            ConfigError: for an element that does not occur in the training split.
        """
        from ase.data import chemical_symbols

        if strangers := [z for z in value if z not in self.elements]:
            raise ConfigError(
                f"`{self.name}`: {', '.join(chemical_symbols[z] for z in strangers)} not in the training data",
                expected=", ".join(chemical_symbols[z] for z in sorted(self.elements)),
            )
        return np.append(np.isin(self.elements, list(value)), 1.0)

    def state(self) -> dict[str, Any]:
        """Plain numbers and text."""
        return {"kind": "elements", "elements": list(self.elements)}


@dataclass(frozen=True)
class SlotElements:
    """The elements of a point cloud in the order of its slots: for each slot which one, and its properties.

    One-hot numbers tell elements apart, properties carry over to those that are rare in the data; both are zero for a
    slot that is empty. What is asked for is a set: the order of the slots follows from it.

    Attributes:
        elements: of the training split.
        slots: elements of a cloud at most.
    """

    elements: tuple[int, ...]
    slots: int

    name = ELEMENTS

    @property
    def width(self) -> int:
        """Numbers of all slots, and the presence flag."""
        return self.slots * (len(self.elements) + len(element_properties.NAMES)) + 1

    def encode(self, value: Any) -> FloatArray:
        """(width,) of atomic numbers.

        Raises:
            ConfigError: for an element that does not occur in the training split, or for more than there are slots.
        """
        ElementSet(self.elements).encode(value)
        ordered = order_elements(value)
        if len(ordered) > self.slots:
            raise ConfigError(
                f"`{self.name}` names {len(ordered)} elements",
                expected=f"at most {self.slots}, as the model was trained with",
            )
        which = np.array([np.eye(len(self.elements))[self.elements.index(z)] for z in ordered])
        each = np.concatenate([which, element_properties.element_properties()[list(ordered)]], 1)
        return np.concatenate([each.ravel(), np.zeros(self.width - each.size - 1), [1.0]])

    def state(self) -> dict[str, Any]:
        """Plain numbers and text."""
        return {"kind": "slots", "elements": list(self.elements), "slots": self.slots}


@dataclass(frozen=True)
class Scalar:
    """A number: its standardised value, radial basis functions of it, and the presence flag.

    The basis functions let a network tell 0 from 0.1 eV where values reach 9; the value itself carries beyond them.

    Attributes:
        name: of the column.
        mean: over the training split.
        scale: standard deviation.
        first: lowest centre, standardised.
        last: highest centre; neighbouring functions cross at 0.6 of their height.
    """

    name: str
    mean: float
    scale: float
    first: float
    last: float

    @classmethod
    def fit(cls, name: str, values: FloatArray) -> Scalar:
        """Centres from the 1st to the 99th percentile of (M,) values."""
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        first, last = np.percentile((values - mean) / scale, [1, 99])
        return cls(name, mean, scale, float(first), float(max(last, first + 1e-3)))

    @property
    def width(self) -> int:
        """Value, `CENTRES` functions, flag."""
        return CENTRES + 2

    def encode(self, value: Any) -> FloatArray:
        """(width,) of a number.

        Raises:
            ConfigError: for anything else.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ConfigError(f"`{self.name}` is {value!r}", expected="a number")
        z = (value - self.mean) / self.scale
        centres, step = np.linspace(self.first, self.last, CENTRES, retstep=True)
        return np.concatenate([[z], np.exp(-0.5 * ((z - centres) / step) ** 2), [1.0]])

    def state(self) -> dict[str, Any]:
        """Plain numbers and text."""
        return {"kind": "scalar", **self.__dict__}


@dataclass(frozen=True)
class Category:
    """One of the words that occur in the training split: one-hot, and the presence flag."""

    name: str
    values: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of words, and 1."""
        return len(self.values) + 1

    def encode(self, value: Any) -> FloatArray:
        """(width,) of a word, or of a number that is one.

        Raises:
            ConfigError: for a word that does not occur in the training split.
        """
        word = category_of(value)
        if word not in self.values:
            near = difflib.get_close_matches(word, self.values, 1)
            shown = ", ".join(self.values[:60]) + (", ..." if len(self.values) > 60 else "")
            raise ConfigError(
                f"`{self.name}` is {value!r}, which is never the case in the training data",
                expected=f"one of {shown}",
                remedy=f"perhaps {near[0]!r} is meant" if near else "",
            )
        return np.append(np.array(self.values) == word, 1.0)

    def state(self) -> dict[str, Any]:
        """Plain text."""
        return {"kind": "category", "name": self.name, "values": list(self.values)}


Field = ElementSet | SlotElements | Scalar | Category


@dataclass(frozen=True)
class Conditions:
    """The fields of a condition vector, in its order."""

    fields: tuple[Field, ...] = ()

    @classmethod
    def fit(cls, known: Sequence[Known], elements: tuple[int, ...], config: ConditionsConfig) -> Conditions:
        """Fields for what `config` names, from the training split.

        Raises:
            DataError: if nothing is known in a column.
        """
        fields: list[Field] = [ElementSet(elements)] if config.elements else []
        if config.n_atoms:
            fields.append(Scalar.fit(N_ATOMS, np.array([float(k[N_ATOMS]) for k in known])))
        for name in config.columns:
            values = [k[name] for k in known if name in k]
            if not values:
                raise DataError(
                    f"`{name}` is not known of any of the {len(known)} training structures",
                    remedy="remove it from the section `conditions`, or give data that have it",
                )
            if name in config.scalars:
                fields.append(Scalar.fit(name, np.array([float(v) for v in values])))
            else:
                words = {category_of(v) for v in values}
                fields.append(Category(name, tuple(sorted(words, key=lambda w: (len(w) if w.isdigit() else 99, w)))))
        return cls(tuple(fields))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields."""
        return tuple(f.name for f in self.fields)

    def columns(self) -> Conditions:
        """Those that a composition does not tell: the columns of the data source."""
        return Conditions(tuple(f for f in self.fields if f.name not in (ELEMENTS, N_ATOMS)))

    def layout(self, always: int = 0) -> ConditionLayout:
        """The groups of the vector, followed by `always` numbers that are never left out."""
        ends = np.cumsum([0, *(f.width for f in self.fields)]).tolist()
        return ConditionLayout(ends[-1] + always, tuple(map(slice, ends[:-1], ends[1:])))

    def encode(self, known: Sequence[Known]) -> NDArray[np.float32]:
        """(M, width) of crystals; what is not known of one, or does not occur in the training split, is absent."""
        out = np.zeros((len(known), self.layout().width), dtype=np.float32)
        for row, values in zip(out, known, strict=True):
            for field, group in zip(self.fields, self.layout().groups, strict=True):
                if field.name in values:
                    try:
                        row[group] = field.encode(values[field.name])
                    except ConfigError:  # a held-out category: nothing that the network could know of
                        continue
        return out

    def ask(self, wanted: Known) -> NDArray[np.float32]:
        """(width,) of what is asked for of samples; fields that are not named are absent.

        Raises:
            ConfigError: for a name or value that the model does not know.
        """
        if unknown := [name for name in wanted if name not in self.names]:
            raise ConfigError(
                f"samples are asked for by {', '.join(f'`{name}`' for name in unknown)}",
                expected=f"what the model was trained with: {', '.join(self.names) or 'nothing'}",
                remedy="name it in the section `conditions`, and train again",
            )
        parts = [f.encode(wanted[f.name]) if f.name in wanted else np.zeros(f.width) for f in self.fields]
        return np.concatenate([*parts, np.zeros(0)]).astype(np.float32)

    def state(self) -> list[dict[str, Any]]:
        """Plain numbers, text and lists."""
        return [f.state() for f in self.fields]

    @classmethod
    def from_state(cls, state: Sequence[Mapping[str, Any]]) -> Conditions:
        """The conditions as `state` saved them."""
        fields: list[Field] = []
        for s in state:
            keys = {k: v for k, v in s.items() if k != "kind"}
            if s["kind"] == "elements":
                fields.append(ElementSet(tuple(keys["elements"])))
            elif s["kind"] == "slots":
                fields.append(SlotElements(tuple(keys["elements"]), int(keys["slots"])))
            elif s["kind"] == "scalar":
                fields.append(Scalar(**keys))
            else:
                fields.append(Category(keys["name"], tuple(keys["values"])))
        return cls(tuple(fields))


def known_of(crystal: Crystal, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a crystal whose columns hold `values`."""
    return {**values, ELEMENTS: tuple(sorted({int(z) for z in crystal.numbers})), N_ATOMS: len(crystal)}
