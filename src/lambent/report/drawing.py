"""Drawings as inline SVG: one look for all, colours that colour-blind readers tell apart, the page's own typeface."""

from __future__ import annotations

import io
import math
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lambent.errors import ConfigError
from lambent.storage.files import write_out

Axes: TypeAlias = Any
"""matplotlib's; its annotations refuse much of what it documents."""
Paint: TypeAlias = Callable[[Axes], None]

INK, SOFT, LINE = "#1c2126", "#59626b", "#c9cfd4"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#9aa3ab"
CLASSES = (
    "#cc6677", "#332288", "#b8a03a", "#117733", "#5aa9cf", "#882255", "#44aa99", "#777722", "#aa4499", "#555b61",
)  # fmt: skip
"""Paul Tol's muted scheme, the pale ones darkened for white paper, and a grey."""
MARKERS = "os^Dv"
SIZE = (4.6, 3.3)

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.edgecolor": "#8a939b",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#8a939b",
    "ytick.color": "#8a939b",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "savefig.facecolor": "none",
}


def require_matplotlib() -> None:
    """Refuses to go on without matplotlib.

    Raises:
        ConfigError: it isn't installed; says how to.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'the report draws with matplotlib, which is not installed; pip install "lambent[plots]"'
        ) from error


def draw(paint: Paint, alt: str, size: tuple[float, float] = SIZE) -> str:
    """What ``paint`` puts on one pair of axes, as an inline ``<svg>`` that screen readers call ``alt``.

    Args:
        paint: Draws.
        alt: In words.
        size: Inches, at 9-point type.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {**_RC, "svg.hashsalt": alt}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the fonts
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", dpi=220, metadata={"Date": None})
    return inline(buffer.getvalue(), alt)


def write_figure(paints: Sequence[Paint], path: Path, *, title: str, note: str, size: tuple[float, float]) -> None:
    """A file of its own, .svg or .png by its suffix: one pair of axes a painter, side by side, a note below them.

    Raises:
        StorageError: it can't be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {**_RC, "svg.hashsalt": title, "savefig.facecolor": "white"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        for paint, axes in zip(paints, figure.subplots(1, len(paints), squeeze=False)[0], strict=True):
            paint(axes)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=SOFT)
        buffer = io.BytesIO()
        kind = path.suffix.lower().removeprefix(".")
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    write_out(path, buffer.getvalue())


def inline(svg: str, alt: str) -> str:
    """A stand-alone SVG document as an element of a page: no declarations, no addresses, ids of its own."""
    from xml.etree import ElementTree

    prefix = f"s{zlib.crc32((alt + svg).encode()):08x}-"
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if _bare(c.tag) in ("metadata", "style")]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _bare(element.tag)
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            element.attrib[_bare(key)] = _own_ids(_bare(key), value, prefix)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update({"role": "img", "aria-label": alt})
    return ElementTree.tostring(root, encoding="unicode")


def _bare(name: str) -> str:
    return name.rpartition("}")[2]


def _own_ids(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    return (
        f"#{prefix}{value[1:]}" if key == "href" and value.startswith("#") else value.replace("url(#", f"url(#{prefix}")
    )


def colours(names: Iterable[str]) -> list[tuple[str, str]]:
    """A colour and a marker for each of several classes; after ten colours the markers change."""
    return [(CLASSES[i % len(CLASSES)], MARKERS[i // len(CLASSES) % len(MARKERS)]) for i, _ in enumerate(names)]


def number(value: float, digits: int = 2) -> str:
    """A number for people: a true minus sign, no more digits than asked.

    >>> number(-12.3456), number(1234567.0), number(0.000123)
    ('−12.35', '1,234,567', '0.00012')
    """
    if value != value or value in (float("inf"), float("-inf")):
        return f"{value:g}".replace("-", "−").replace("inf", "∞")
    if value and abs(value) < 10.0**-digits:
        return f"{value:.{digits}g}".replace("-", "−")
    if abs(value) >= 1e5:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.{digits}f}".replace("-", "−")


def with_error(value: float, error: float, digits: int = 3) -> str:
    """A value and its standard error, with two digits of a small error.

    >>> with_error(-12.3456, 0.789), with_error(-1.8430211, 0.000443)
    ('−12.346 ± 0.789', '−1.84302 ± 0.00044')
    """
    if 0 < error < 10.0**-digits:
        digits = min(9, 1 - math.floor(math.log10(error)))
    return f"{number(value, digits)} ± {number(error, digits)}"


def short(value: float) -> str:
    """Four significant digits, plain as long as that is readable.

    >>> short(25490.7), short(-0.012346), short(1.5e9)
    ('25,490', '−0.01235', '1.5e+09')
    """
    if not 1e-4 <= abs(value) < 1e7 or value != value:
        return f"{value:.4g}".replace("-", "−")
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{float(f'{value:.4g}'):,.{digits}f}".replace("-", "−")


def percent(fraction: float) -> str:
    """A fraction in per cent, with a true minus sign.

    >>> percent(-0.0041)
    '−0.4%'
    """
    return f"{fraction:.1%}".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """Words in a row.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def name_beside(axes: Axes, name: str, point: tuple[float, float], height: float, color: str = INK) -> None:
    """A point's name on the right of the frame, at a share of its height, with a thin line to the point."""
    line = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.4, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)}
    place: dict[str, Any] = {"xytext": (1.04, height), "textcoords": "axes fraction", "va": "center"}
    axes.annotate(name, point, **place, fontsize=8.5, color=color, arrowprops=line)


def spread(heights: list[float], apart: float = 0.07) -> list[float]:
    """Ascending heights moved as little as keeps them ``apart``, from 0 up.

    >>> [round(height, 2) for height in spread([0.1, 0.1, 0.9])]
    [0.07, 0.14, 0.9]
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _bottom(groups[-1], apart) < _bottom(groups[-2], apart) + apart * len(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, apart) + apart * i for group in groups for i in range(len(group))]


def _bottom(group: list[float], apart: float) -> float:
    return max(0.0, sum(group) / len(group) - apart * (len(group) - 1) / 2)
