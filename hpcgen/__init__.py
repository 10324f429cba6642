"""hpcgen: crystals by diffusion, from training to a stability report, on supercomputers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hpcgen")
except PackageNotFoundError:  # running from a source tree that is not installed
    __version__ = "0.0.0"
