"""`lambent --help` and `import lambent` answer at once: nothing heavy is imported before it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "matplotlib", "lightning_fabric", "PIL", "scipy", "sklearn", "pyarrow")
HELP = "import sys; sys.argv = ['lambent', '--help']; import lambent.cli; lambent.cli.main()"


def processor_seconds(code: str) -> float:
    """User and system time of a fresh interpreter: what it costs, however busy the machine is."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("code", ["import lambent", HELP], ids=["import", "help"])
def test_starts_in_under_0_3_seconds(code):
    assert min(processor_seconds(code) for _ in range(5)) < 0.3


@pytest.mark.parametrize("code", ["import lambent", "import lambent.cli.app"])
def test_nothing_heavy_is_imported(code):
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_limit_can_be_missed():
    assert processor_seconds("import torch") > 0.3
