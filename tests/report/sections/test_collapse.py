"""The report's collapse section says what the metrics say, and leaves out what they don't."""

import dataclasses

import pytest

from lambent.report.sections import collapse, numbers
from support.page_parser import Page, numbers_in


@pytest.fixture(scope="module")
def fallen(train):
    return train("vae", latent=4, epochs=5, name="fallen", rate="beta", beta=300.0, lr=0.01)


@pytest.fixture(scope="module")
def page(fallen):
    return Page(collapse.section(fallen).html())


def rows(run):
    return [row for row in run.history if "valid" in row]


def check(run, page):
    row = next(row for row in rows(run) if row["step"] == run.step)
    valid = row["valid"]
    found = numbers_in(page.figure("Rate and mutual information").words)
    assert found[0] == run.step
    assert found[1:3] == pytest.approx([valid["rate"], valid["mutual_information"]], abs=5.1e-3)
    assert found[3] == valid["examples"]
    units = numbers_in(page.figure("Active units").words)
    counts = [r["valid"]["active_units"] for r in rows(run)]
    assert units[:4] == [run.step, valid["active_units"], 4, valid["examples"]]
    assert units[-2:] == [min(counts), max(counts)]
    raised = [r["step"] for r, before in zip(rows(run)[1:], rows(run), strict=False) if r["alarms"] > before["alarms"]]
    assert raised
    assert f"occurred once: the validation rate fell under 0.10 nats at step {raised[0]}" in page.text


def test_its_words_are_the_metrics(fallen, page):
    assert "Collapse" in page.sections
    check(fallen, page)
    svg = collapse._nats(fallen, rows(fallen)).svg
    for text in ("rate", "I(x;z)", "warning", "warning threshold, 0.10", "training step", "nats"):
        assert f">{text}<" in svg, text
    assert ">all 4<" in collapse._units(fallen, rows(fallen)).svg


@pytest.mark.parametrize("fault", ["rate", "mutual_information", "active_units"])
def test_words_of_other_numbers_are_caught(fault, fallen, page):
    wrong = [
        {**row, "valid": {**row["valid"], fault: row["valid"][fault] + 1}} if "valid" in row else row
        for row in fallen.history
    ]
    with pytest.raises(AssertionError):
        check(dataclasses.replace(fallen, history=tuple(wrong)), page)


def test_a_training_without_alarm_or_panel(train):
    healthy = train("vae", latent=2, epochs=6)
    assert (
        collapse.section(healthy).text
        == "The collapse warning, given when the validation rate is under 0.10 nats, never occurred."
    )
    silent = train("vae", latent=2, epochs=2, collapse_threshold=0, name="silent")
    assert collapse.section(silent).text == "No collapse warning was set."
    assert collapse.section(train("vae", latent=2, epochs=2, monitor_examples=0, name="bare")) is None
    alone = collapse.section(train("vae", latent=2, epochs=1, name="alone"))
    assert not alone.panels
    assert "mutual information" in alone.text
    autoencoder = collapse.section(train("linear-ae", latent=4))
    assert autoencoder.panels[0].title == "Rate on validation data"


def test_the_table_of_numbers_has_the_mutual_information(train):
    found = train("vae", latent=2, epochs=6).evaluate(samples=2)
    cells = Page(numbers.measured(found.to_dict(), None).html()).row("mutual information")
    assert numbers_in(cells[0])[:2] == pytest.approx([found.information.value, found.information.se], abs=5.1e-4)
    assert f"at most log {found.information.n}" in cells[1]
