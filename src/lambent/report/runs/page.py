"""A comparison of runs as one HTML page: the table, what differs, and the picture."""

from __future__ import annotations

from lambent.report.drawing import draw
from lambent.report.html import Panel, Section, page, table as html_table
from lambent.report.runs.plot import note, painters, title
from lambent.report.runs.text_table import change_text, gain_notes, information_notes, table, units_notes
from lambent.report.sections.numbers import foot
from lambent.runs.compare import RunTable


def runs_page(found: RunTable) -> str:
    """The comparison as an HTML page."""
    columns = [column for column in table(found) if any(cell for cell in column[1:])]
    cells = [[cell or "-" for cell in line] for line in zip(*columns, strict=True)]
    numbers = html_table(cells[1:], cells[0], numbers=range(1, len(columns)))
    changes = html_table([(row.name, change_text(row)) for row in found.rows[1:]])
    titles = ("Rate against distortion", "Use of the latents")
    size = (7.2, max(3.6, 0.3 * len(found.rows) + 1.2))
    panels = [
        Panel(name, note(found), svg=draw(paint, f"{name} of the runs", size), wide=True)
        for name, paint in zip(titles, painters(found), strict=False)
    ]
    head = f"{found.n:,} examples, K = {found.samples}; ± is one standard error."
    notes = [*gain_notes(found), *information_notes(found), *units_notes(found)]
    text = " ".join([head, *(f"{said[:1].upper()}{said[1:]}." for said in notes)])
    sections = [Section("Evaluation", text=text, raw=numbers)]
    if len(found.rows) > 1:
        sections.append(Section(f"What differs from {found.rows[0].name}", raw=changes))
    return page(
        title(found),
        f"K = {found.samples} draws of the posterior for each example.",
        "",
        [*sections, Section("Plots", panels)],
        foot(),
    )
