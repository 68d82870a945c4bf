"""The comparison of runs as a text table."""

from __future__ import annotations

import math
from typing import Any

from lambent.evaluation.active_units import COUNTED
from lambent.runs.compare import Row, RunTable

MARKS = {"lower bound": ">=", "exact": "=", "not a bound": "~", "estimate": "", "upper bound": "<="}
"""What is put before a number of each kind."""
FIGURES = {
    "ELBO": "elbo",
    "IWAE": "iwae",
    "exact": "log_likelihood",
    "rate": "rate",
    "distortion": "distortion",
    "I(x;z)": "mutual_information",
}


def runs_text(found: RunTable) -> str:
    """A table of the runs, how each differs from the first, and what the marks mean."""
    drawn = f", K = {found.samples}" if any(row.found["latent"] or row.found.get("rates") for row in found.rows) else ""
    columns = [column for column in table(found) if any(cell for cell in column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            f"{cell or '-':<{w}}" if i == 0 else f"{cell or '-':>{w}}" for i, (cell, w) in enumerate(cells)
        ).rstrip()
        for cells in (list(zip(line, widths, strict=True)) for line in zip(*columns, strict=True))
    ]
    head = f"{found.data}: {found.n} examples{drawn}; nats per example, ± one standard error"
    return "\n".join([head, "", *lines, *_changes(found), "", *_notes(found)])


def table(found: RunTable) -> list[list[str]]:
    """Columns of text, each with its heading; "" where a run has no such number."""
    columns = [["run", *(row.name for row in found.rows)]]
    for name, key in FIGURES.items():
        title = f"IWAE-{found.samples}" if key == "iwae" else name
        columns.append([title, *(cell(row, key) for row in found.rows)])
        if key == "log_likelihood":
            columns.append(["gain", *(_gain(row) for row in found.rows)])
    columns.append(["active", *(_active(row) for row in found.rows)])
    return [*columns, [_bits_name(found), *(_bits(row) for row in found.rows)]]


def cell(row: Row, key: str) -> str:
    """A number with its kind's mark and its standard error."""
    known = row.figure(key)
    absent = key == "rate" and not (
        (row.found["latent"] or row.found.get("rates")) and (row.bound or row.found["rate"])
    )
    if known is None or absent:
        return ""
    value, error, kind = known
    mark = "" if key == "mutual_information" else MARKS[kind]
    return f"{mark} {_number(value)} ± {_number(error, 2 if error >= 0.01 else 4)}".strip()


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def _gain(row: Row) -> str:
    if row.gain is None:
        return ""
    return f"{row.gain.value:+.3f} ± {_number(row.gain.se, 3 if row.gain.se >= 0.001 else 5)}"


def _active(row: Row) -> str:
    return f"{row.found['active_units']} of {row.found['latent']}" if row.found["latent"] else ""


def _bits_name(found: RunTable) -> str:
    return "bits/symbol" if any(row.found.get("symbols") for row in found.rows) else "bits/dim"


def _bits(row: Row) -> str:
    value = row.found["bits_per_dim"]
    return "" if value is None else f"{value:.4f} ± {row.found['bits_per_dim_se']:.4f}"


def _changes(found: RunTable) -> list[str]:
    if len(found.rows) < 2:
        return []
    width = max(len(row.name) for row in found.rows[1:])
    lines = [f"  {row.name:<{width}}  {change_text(row)}" for row in found.rows[1:]]
    return ["", f"what differs from {found.rows[0].name}:", *lines]


def change_text(row: Row) -> str:
    """What differs from the first run, as settings."""
    return " ".join(f"{key}={_plain(value)}" for key, value in row.differs.items()) or "nothing"


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    return "[" + ",".join(map(_plain, value)) + "]" if isinstance(value, list) else str(value)


def _notes(found: RunTable) -> list[str]:
    marked = ("elbo", "iwae", "log_likelihood", "rate")
    kinds = {known[2] for row in found.rows for key in marked if (known := row.figure(key))}
    marks = ", ".join(f"{mark} {kind}" for kind, mark in MARKS.items() if mark and kind in kinds)
    return [
        marks,
        *gain_notes(found),
        *information_notes(found),
        *units_notes(found),
        *_bits_notes(found),
        *_unit(found),
    ]


def gain_notes(found: RunTable) -> list[str]:
    """What gains are differences of."""
    gains = [row.gain for row in found.rows if row.gain is not None]
    named = sorted({name.replace("_", "-") for gain in gains for name in gain.of})
    said = f"gain: each run's {' or '.join(named)} less that of {found.rows[0].name}, example by example"
    return [f"{said}, with the error of the mean difference"] if gains else []


def information_notes(found: RunTable) -> list[str]:
    """What bounds the mutual information, which is of some examples."""
    counts = sorted({row.found["mutual_information"]["n"] for row in found.rows if row.found["mutual_information"]})
    return [f"I(x;z) is a lower bound, from {n} examples, at most log {n} = {math.log(n):.2f}" for n in counts]


def units_notes(found: RunTable) -> list[str]:
    """How active units are counted, where a run's are not counted by means."""
    ways = {row.found.get("active_units_by", "mean") for row in found.rows if row.found["latent"]}
    if ways <= {"mean"}:
        return []
    named = {
        way: ", ".join(r.name for r in found.rows if r.found.get("active_units_by", "mean") == way) for way in ways
    }
    return [f"active in {named[way]}: latents {COUNTED[way].format(over='')}" for way in sorted(ways)]


def _bits_notes(found: RunTable) -> list[str]:
    sources = {row.found["bits_per_dim_from"] for row in found.rows} - {None}
    named = ", ".join(sorted(source.replace("_", "-") for source in sources))
    return [f"{_bits_name(found)} from each run's tightest number: {named}"] if sources else []


def _unit(found: RunTable) -> list[str]:
    shift = found.rows[0].found["log_jacobian"]
    return [f"unit: scaled data; add {shift:.4f} nats for densities in the original unit"] if shift else []
