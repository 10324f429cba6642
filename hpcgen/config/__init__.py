"""The configuration of a campaign: one YAML file, one validated model per stage (`sections.py`).

Unknown keys and wrong types are errors that name the file, the key, the nearest valid key and what was
expected. `--set section.key=value` overrides; the resolved configuration is stored in every output.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hpcgen.config.base import Section
from hpcgen.config.campaign import (
    AseConfig,
    FarmConfig,
    GpawConfig,
    HullConfig,
    PhononsConfig,
    RelaxConfig,
    ReportConfig,
    ScreenConfig,
)
from hpcgen.config.dft import SelectConfig, SlotsConfig, VaspConfig
from hpcgen.config.dynamics import DynamicsConfig
from hpcgen.config.generation import ConditionsConfig, DiffusionConfig, ModelConfig, SampleConfig, TrainConfig
from hpcgen.config.reconstruction import AnnealConfig, BasinHoppingConfig, ReconstructConfig, RoundTripConfig
from hpcgen.config.representation import (
    DataConfig,
    EadConfig,
    PairSpectrumConfig,
    PointCloudConfig,
    PrototypeData,
    RepresentationConfig,
    ThreeBodyConfig,
)
from hpcgen.config.sections import Config
from hpcgen.errors import ConfigError

__all__ = [
    "AnnealConfig",
    "AseConfig",
    "BasinHoppingConfig",
    "ConditionsConfig",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "DynamicsConfig",
    "EadConfig",
    "FarmConfig",
    "GpawConfig",
    "HullConfig",
    "ModelConfig",
    "PairSpectrumConfig",
    "PhononsConfig",
    "PointCloudConfig",
    "PrototypeData",
    "ReconstructConfig",
    "RelaxConfig",
    "ReportConfig",
    "RepresentationConfig",
    "RoundTripConfig",
    "SampleConfig",
    "ScreenConfig",
    "Section",
    "SelectConfig",
    "SlotsConfig",
    "ThreeBodyConfig",
    "TrainConfig",
    "VaspConfig",
    "documented_keys",
    "load",
    "loads",
    "resolve_path",
    "section_model",
]


class _Loader(yaml.SafeLoader):
    """Takes 1e-7 for a number, as YAML 1.2 does; PyYAML wants 1.0e-7 and would call it text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read and validate a YAML file, with `section.key=value` overrides.

    Raises:
        ConfigError: if the file is missing, is no YAML mapping, or does not fit the models.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(
            f"no configuration file at {file}", remedy="give the path of a YAML file, such as configs/quickstart.yaml"
        )
    return loads(file.read_text(encoding="utf-8"), str(file), overrides)


def loads(text: str, origin: str = "<text>", overrides: list[str] | None = None) -> Config:
    """As `load`, from text; `origin` is named in errors."""
    try:
        tree = yaml.load(text, _Loader) or {}
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{origin} is not valid YAML: {str(error).splitlines()[0]}",
            remedy="check quotes and indentation near there",
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin} holds a {type(tree).__name__}", expected="a mapping of sections")
    for override in overrides or []:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(origin, tree, e) for e in error.errors())) from None


def resolve_path(text: str, config_dir: Path | None = None) -> Path:
    """A path of the configuration: absolute, under $HPCGEN_DATA for `data:NAME`, else below the working folder.

    Raises:
        ConfigError: for `data:NAME` where HPCGEN_DATA is unset.
    """
    import os

    if text.startswith("data:"):
        root = os.environ.get("HPCGEN_DATA")
        if not root:
            raise ConfigError(
                f"{text} lies in the data folder, and HPCGEN_DATA is not set",
                remedy="export HPCGEN_DATA=<folder with the data sets>",
            )
        return Path(root) / text.removeprefix("data:")
    path = Path(text).expanduser()
    return path if path.is_absolute() or config_dir is None else config_dir / path


def _apply(tree: dict[str, Any], override: str) -> None:
    key, sep, value = override.partition("=")
    parts = key.strip().split(".")
    if not sep or not all(parts):
        raise ConfigError(f"--set {override!r} is not understood", expected="section.key=value, such as sample.n=200")
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {part} is a value, not a section")
        node = child
    try:
        node[parts[-1]] = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None


def _explain(origin: str, tree: dict[str, Any], error: Any) -> str:
    location = [str(p) for p in error["loc"]]
    key = ".".join(location) or "(the whole file)"
    if error["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        near = difflib.get_close_matches(location[-1], valid, 1, 0.5)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        where = ".".join(location[:-1]) or "the top level"
        return f"{origin}: unknown key `{key}`{hint}\n  expected: in {where} one of {', '.join(valid)}"
    shown = "" if isinstance(error["input"], dict) else f", found {error['input']!r}"
    return f"{origin}: `{key}`: {error['msg']}{shown}"


def _valid_keys(location: list[str]) -> list[str]:
    model: Any = Config
    for part in location:
        section = _section(model.model_fields[part].annotation) if part in model.model_fields else None
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def section_model(path: str) -> type[BaseModel]:
    """The model of a section by its dotted path; the empty path is the whole configuration."""
    model: type[BaseModel] = Config
    for part in path.split(".") if path else []:
        section = _section(model.model_fields[part].annotation)
        assert section is not None
        model = section
    return model


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds a section, or may hold one; None for a value."""
    choices = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)


def documented_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[tuple[str, Any, str]]:
    """Every key of the configuration with its default and its description, in order (docs/configuration.md)."""
    out: list[tuple[str, Any, str]] = []
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            out += documented_keys(section, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else field.default
            out.append((f"{prefix}{name}", default, field.description or ""))
    return out
