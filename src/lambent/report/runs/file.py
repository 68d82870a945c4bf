"""A comparison of runs as a file: a picture, or a page with the picture in it."""

from __future__ import annotations

from pathlib import Path

from lambent.errors import ConfigError
from lambent.report.drawing import require_matplotlib, write_figure
from lambent.report.runs.page import runs_page
from lambent.report.runs.plot import height, note, painters, title
from lambent.runs.compare import RunTable
from lambent.storage.files import write_out

PICTURES = (".svg", ".png")
PAGES = (".html", ".htm")


def check_file(path: Path) -> None:
    """Refuses what the comparison can't be written to, before anything is measured.

    Raises:
        ConfigError: another suffix, or matplotlib is missing.
    """
    if path.suffix.lower() not in (*PICTURES, *PAGES) or path.is_dir():
        raise ConfigError(f"{path}: expected a file; give a name that ends in {', '.join((*PICTURES, PAGES[0]))}")
    require_matplotlib()


def write_comparison(found: RunTable, path: Path) -> None:
    """The picture, .svg or .png, or one .html page with the table and the picture.

    Raises:
        ConfigError: as `check_file`.
        StorageError: it can't be written.
    """
    check_file(path)
    if path.suffix.lower() in PICTURES:
        paints, size = painters(found), (11.0, height(found))
        if not paints:
            raise ConfigError(
                f"{path}: no run whose rate and distortion make a bound, so nothing to draw; leave out --out"
            )
        write_figure(paints, path, title=title(found), note=note(found), size=size)
        return
    write_out(path, runs_page(found).encode())
