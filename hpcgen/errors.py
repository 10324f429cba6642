"""Every way a run can go wrong, by phase, and the exit code of each.

A user's mistake is an `HpcgenError`: it says what was expected, what was found and the remedy, and the
command line prints it without a traceback. One bad item on the way is not an error but a stored `Failure`:
what enters a stage equals what leaves it plus its failures.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_REQUEUE = 75  # EX_TEMPFAIL: stopped by a signal with everything saved; run the same command again


class HpcgenError(Exception):
    """A mistake that the user can mend.

    Args:
        found: what is wrong, with the file, key or value at fault.
        expected: what would have been right.
        remedy: what to do now.
    """

    exit_code = EXIT_INTERNAL

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        lines = [found]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))


class UsageError(HpcgenError):
    """A command line that asks for something impossible."""

    exit_code = 2


class ConfigError(HpcgenError):
    """A configuration file with an unknown key, a wrong type or an impossible value."""

    exit_code = 3


class DataError(HpcgenError):
    """A data set that is missing, empty or not in a known layout."""

    exit_code = 4


class StoreError(HpcgenError):
    """An HDF5 file of another schema, of a newer version, truncated or damaged."""

    exit_code = 5


class CheckpointError(HpcgenError):
    """A checkpoint that is missing, unreadable, of another family or of another data set."""

    exit_code = 6


class RunFolderError(HpcgenError):
    """A run folder that belongs to another configuration, that another run uses, or that lacks the input of a stage."""

    exit_code = 7


class LaunchError(HpcgenError):
    """MPI, Slurm or a device is not what the run needs."""

    exit_code = 8


class TrainingError(HpcgenError):
    """Training cannot go on: the loss is not a number, or a batch does not fit."""

    exit_code = 9


class ThermoError(HpcgenError):
    """Energies that may not be compared, or a reference set that cannot answer."""

    exit_code = 10


class DependencyError(HpcgenError):
    """An optional package that this stage needs is not installed."""

    exit_code = 11


class DeviceFailure(Exception):  # noqa: N818 - no mistake of anybody: a rank leaves, the run goes on
    """The accelerator of this rank cannot be used any more. The task in hand is not to blame: another rank does it."""


EXIT_CODES: dict[int, str] = {
    EXIT_OK: "everything asked for was done",
    EXIT_INTERNAL: "internal error (a traceback is printed: please report it)",
    **{
        kind.exit_code: (kind.__doc__ or "").strip().rstrip(".")
        for kind in (
            UsageError,
            ConfigError,
            DataError,
            StoreError,
            CheckpointError,
            RunFolderError,
            LaunchError,
            TrainingError,
            ThermoError,
            DependencyError,
        )
    },
    EXIT_REQUEUE: "stopped by a signal with everything saved: run the same command again",
    130: "interrupted from the keyboard",
}
"""The table of `docs/commands.md`."""


@dataclass(frozen=True)
class Failure:
    """One item that did not get through a stage, stored beside those that did.

    Attributes:
        id: the item's id, or `row:N` / `file:NAME` for an item of a data set.
        stage: the stage that gave up on it.
        kind: a short kebab-case word that the balance counts by, such as `broken-cif`.
        message: one sentence for a person.
    """

    id: str
    stage: str
    kind: str
    message: str
