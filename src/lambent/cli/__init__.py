"""The command line: parses, calls the library, prints. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Runs ``lambent`` and leaves with its exit code."""
    from lambent.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
