"""The report of a run: one page that holds everything it shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambent.data.sources import Source
    from lambent.runs.run import Run

__all__ = ["write_report"]


def write_report(run: Run, out: str | Path, *, data: Source | None = None) -> None:
    """Writes one HTML file about a run: its numbers, its training, what it generates, its latent space.

    The file is self-contained (no script, nothing is loaded) and the same for the same run, data and versions.

    Args:
        run: A run.
        out: Where to; ends in .html.
        data: Examples to show; by default those that the run's source held out.

    Raises:
        ConfigError: matplotlib is missing, or ``out`` is no .html file.
        StorageError: the file can't be written.

    >>> import tempfile
    >>> from lambent.runs.fit import fit
    >>> run = fit("ppca", "digits", latent=2, epochs=1, quiet=True)
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(run, path)
    >>> path.read_text(encoding="utf-8")[:15]
    '<!DOCTYPE html>'
    """
    from lambent.errors import ConfigError
    from lambent.report.build import build
    from lambent.report.drawing import require_matplotlib
    from lambent.storage.files import write_out

    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise ConfigError(f"{path}: the report is one HTML file; give a name that ends in .html")
    require_matplotlib()
    write_out(path, build(run, data).encode())
