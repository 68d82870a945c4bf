"""Typed errors, one exit code each.

Every message is one line: what and where, what was found, what was expected, and how to fix it.
"""

from __future__ import annotations


class LambentError(Exception):
    """Base of every error that lambent raises on purpose."""

    exit_code = 1


class ConfigError(LambentError, ValueError):
    """A setting, argument or combination of parts that can't be used as given (exit code 2)."""

    exit_code = 2


class ShapeError(ConfigError):
    """Two tensors meet with shapes that would broadcast into something else than meant."""


class CombinationError(ConfigError):
    """Parts that are incompatible; the message names them and a remedy."""


class DataError(LambentError, ValueError):
    """Data that is missing, malformed or outside the likelihood's support (exit code 3)."""

    exit_code = 3


class CheckpointError(LambentError):
    """A checkpoint that is absent, damaged or of another model (exit code 4)."""

    exit_code = 4


class NumericsError(LambentError, ArithmeticError):
    """Training that produced too many non-finite steps, or a non-finite result (exit code 5)."""

    exit_code = 5


class StorageError(LambentError, OSError):
    """A file or folder that can't be read or written (exit code 6)."""

    exit_code = 6


class InterruptedRunError(LambentError):
    """A run stopped by a signal after its checkpoint was saved (exit code 128 + signal)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class RenamedSetting(UserWarning):
    """A setting was given under the name that it had before; the message has its name of today."""
