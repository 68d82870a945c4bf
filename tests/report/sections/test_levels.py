"""The panels of levels: what their words say is true, and what is said to be held is held."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lambent import fit
from lambent.data.pictures import sheet, to_bytes
from lambent.models import MarkovChain
from lambent.report.build import build
from lambent.report.examples import gather
from lambent.report.sections import collapse, levels, timesteps
from lambent.report.sections.numbers import evaluation
from lambent.storage.json import from_json
from support.linear_levels import Line, Prior
from support.page_parser import Page, numbers_in

LADDER = {"model": "ladder", "latent": 6, "upper_latents": (4, 2)}
DIFFUSION = {
    "decoder": "denoising-mlp",
    "decoder__hidden_dim": 16,
    "decoder__blocks": 1,
    "sampling_steps": 6,
    "epochs": 2,
}


@pytest.fixture(scope="module")
def ladder(train):
    return train("vae", name="ladder", **LADDER)


@pytest.fixture(scope="module")
def chain(train):
    return train("vae", name="chain", model="chain", latent=5, upper_latents=(3,))


@pytest.fixture(scope="module")
def held(ladder):
    return gather(ladder)


def in_words(panel):
    return numbers_in(Page(panel.html()).figures[0].words)


def test_bars_and_table_say_the_evaluation(ladder, held):
    found = from_json(ladder.evaluate(held.dataset, samples=3).to_dict())
    panel = levels.rates(ladder, found)
    rates = {name: level["value"] for name, level in found["rates"].items()}
    total = sum(rates.values())
    assert total == pytest.approx(found["rate"], rel=1e-10)
    assert in_words(panel)[0] == pytest.approx(total, abs=5.1e-3)
    for name, rate in rates.items():
        assert f"{name} carries {rate:.2f}" in panel.words or abs(rate) < 0.01
        share = "under 0.1%" if rate < 0.001 * total else f"{rate / total:.1%}"
        assert f">{share}<" in panel.svg
    idle = [name for name, rate in rates.items() if rate < 0.1]
    assert ("less than 0.10 nats" in panel.words) == bool(idle)
    page = Page(build(ladder))
    table = {row[0]: row[1] for row in page.rows if len(row) == 3}
    known = evaluation(ladder, gather(ladder))["rates"]
    for name, level in known.items():
        value = numbers_in(table[f"rate of {name}"])[0]
        assert value == pytest.approx(level["value"], abs=5.1e-4 + 1e-3 * abs(level["value"]))
    assert page.sections[page.sections.index("Levels") - 1] == "Samples" or "Levels" in page.sections


def test_rates_below_zero_have_no_shares(ladder):
    found = {"rates": {"z1": {"value": -0.5}, "z2": {"value": 3.5}}}
    panel = levels.rates(ladder, found)
    assert "%" not in panel.words + panel.svg.replace("100%", "")
    assert "−0.50" in panel.words
    assert "the sum may not" in panel.words


def test_the_course_of_each_level_is_in_the_metrics(ladder):
    rows = {row["step"]: row["valid"]["rates"] for row in ladder.history if "valid" in row}
    panel = levels.rates_over_training(ladder)
    for name, rate in rows[ladder.step].items():
        assert f"{name} carries {rate:.2f}" in panel.words or abs(rate) < 0.01
    for name in ("z1", "z2", "z3"):
        assert f">{name}<" in panel.svg


def columns_of(panel, count, lead):
    """The images of a sheet of 8 x 8 pictures, 7 times as large, ``lead`` of them before the gap."""
    starts = [i * 59 + (6 if i >= lead else 0) for i in range(count)]
    return [panel.picture[:, start : start + 56] for start in starts]


def test_columns_are_the_reconstructions_from_the_top(ladder, held):
    panel = levels.reconstructions(held, ("z1", "z2", "z3"))
    rows = held.first_of_each(levels.EXAMPLES)
    shown = columns_of(panel, 5, 2)
    for top, column in zip((1, 2, 3), shown[2:], strict=True):
        made = levels._from_top(held, rows, top)
        expected = sheet(to_bytes(made, ladder.transform), 1)
        assert np.array_equal(column, expected)
    assert np.array_equal(shown[1], sheet(to_bytes(held.x[rows], ladder.transform), 1))
    errors = [float(v) for v in panel.words.rsplit(": ", 1)[1].rstrip(".").split(", ")]
    first = torch.arange(levels.MEASURED)
    for top, error in enumerate(errors, 1):
        made = ladder.reconstruct(held.view, top=top)[first]
        assert error == pytest.approx(float((made - held.x[first]).square().mean().sqrt()), abs=5.1e-4)


def test_what_is_held_is_held(ladder):
    """With all levels held nothing changes; in every row of the picture the first image is the draw itself."""
    bases = levels._Bases.draw(ladder, 8, None)
    names = ("z1", "z2", "z3")
    rows = torch.arange(8)
    assert torch.allclose(bases.redrawn(names, rows), bases.means, atol=1e-6)
    free = bases.redrawn(names[1:], rows) - bases.means
    assert float(free.abs().max()) > 1e-4
    assert bases.left(names) < 1e-10


def linear():
    """z3 ~ N(0,1), z2 ~ N(z3, 0.5^2), z1 ~ N(2 z2, 1.5^2), x ~ N(z1, 1)."""
    q = [Line(1.0, 1.0)] * 3
    return MarkovChain(Prior(), q, [Line(2.0, 1.5), Line(1.0, 0.5)], Line(1.0, 1.0))


def left_of(n=20_000):
    bases = levels._Bases.draw(SimpleNamespace(model=linear(), device=torch.device("cpu")), n, None)
    return [bases.left(names) for names in (("z3",), ("z2", "z3"), ("z1", "z2", "z3"))]


def check_left():
    """Var z1 = 4 (1 + 1/4) + 9/4 = 29/4, of which z2's own part is 1 and z1's own 9/4."""
    for found, exact in zip(left_of(), (13 / 29, 9 / 29, 0.0), strict=True):
        assert abs(found - exact) < 5 * exact * (3 / 20_000) ** 0.5 + 1e-12


def test_the_variance_that_stays_is_that_of_the_levels_below():
    check_left()


def test_a_share_of_squares_not_halved_is_caught(monkeypatch):
    real = levels._Bases.left
    monkeypatch.setattr(levels._Bases, "left", lambda self, held: 2 * real(self, held))
    with pytest.raises(AssertionError):
        check_left()


def test_a_chain_says_that_its_lowest_level_is_all_that_x_sees(chain, ladder):
    held = gather(chain)
    (panel,) = levels.samples(chain, held, ("z1", "z2"))
    assert "with z1 held, whatever the levels above are, x stays the same" in panel.words
    below, above = levels.samples(ladder, gather(ladder), ("z1", "z2", "z3"))
    assert "stays the same" not in below.words
    assert "levels above decide" in above.title


def test_many_levels_are_shown_by_a_choice_of_them(train):
    """Thirty levels: pictures of eight, bars of all, in seconds."""
    run = train("vae", name="deep", model="ladder", latent=2, upper_latents=(2,) * 29, encoder__hidden=(4,), epochs=1)
    held = gather(run)
    names = tuple(f"z{i}" for i in range(1, 31))
    assert "top 1, 5, 9, 13, 18, 22, 26 and 30 levels" in levels.reconstructions(held, names).words
    found = {"rates": {name: {"value": 0.01 * i} for i, name in enumerate(names, 1)}}
    words = levels.rates(run, found).words
    assert "from z30 with 0.30 (6.5%) down to z1 with 0.01 (0.2%)" in words
    assert "9 of 30 levels carry less than 0.10 nats" in words


def test_the_collapse_section_names_idle_levels(chain):
    rows = tuple(
        {**row, "valid": {**row["valid"], "rates": {"z1": 5.0, "z2": 0.01}}} if "valid" in row else row
        for row in chain.history
    )
    text = collapse.section(dataclasses.replace(chain, history=rows)).text
    assert "Level z2 of 2 carries under 0.10 nats at step" in text
    assert "rate=kl-balancing" in text
    healthy = tuple(
        {**row, "valid": {**row["valid"], "rates": {"z1": 5.0, "z2": 2.0}}} if "valid" in row else row
        for row in chain.history
    )
    assert "Level z2" not in collapse.section(dataclasses.replace(chain, history=healthy)).text


def test_other_models_have_neither_section(train):
    run = train("vae", latent=2, epochs=6)
    assert levels.section(run, None, None) is None
    assert timesteps.section(run, None) is None


@pytest.fixture(scope="module")
def diffusion():
    return fit("ddpm-small", "digits", threads=1, log_every=5, quiet=True, **DIFFUSION)


def test_the_page_of_a_diffusion_has_its_noise_levels(diffusion):
    page = Page(build(diffusion))
    assert "Noise levels" in page.sections
    for absent in ("Latent space", "Latent interpolations", "Reconstructions", "Levels"):
        assert absent not in page.sections
    names = [row[0] for row in page.rows]
    for shown in ("ELBO", "rate", "rate of levels", "rate of end", "distortion"):
        assert shown in names
    assert "of 0 latent dimensions" not in page.text


def test_losses_are_those_of_the_metrics(diffusion):
    row = next(row for row in diffusion.history if "valid" in row and row["step"] == diffusion.step)
    reported = row["valid"]["noise_levels"]
    loss, error = timesteps.losses(diffusion)
    nats = np.array([value or 0.0 for value in reported["nats"]])
    before = [r["step"] for r in diffusion.history if "valid" in r and r["step"] < diffusion.step]
    assert in_words(loss)[:2] == [max(before, default=0) + 1, diffusion.step]
    assert in_words(loss)[2] == pytest.approx(nats.sum(), abs=5.1e-3)
    assert in_words(loss)[3] == pytest.approx(100 * nats.max() / nats.sum(), abs=0.051)
    assert in_words(error)[0] == pytest.approx(max(v for v in reported["error"] if v is not None), abs=5.1e-4)
    bare = dataclasses.replace(diffusion, history=())
    assert timesteps.losses(bare) == []


def test_the_way_of_a_sample_ends_at_the_sample(diffusion):
    chain = diffusion.model.chain
    z = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = (torch.Generator().manual_seed(1) for _ in range(2))
    way = list(chain.path(z, steps=6, generator=next(noise)))
    assert len(way) == 6
    assert torch.equal(way[-1][0], chain.generate(z, steps=6, generator=next(noise)))


def test_examples_are_taken_back_from_levels_of_rising_noise(diffusion):
    at = timesteps._levels_at(diffusion.model)
    gammas = diffusion.model.schedule(torch.tensor(at, dtype=torch.float64))[0]
    for gamma, wanted in zip(gammas[:-1], timesteps.GAMMAS, strict=True):
        assert float(gamma) == pytest.approx(wanted, abs=0.35)
    panel = timesteps.from_levels(gather(diffusion))
    assert at == sorted(at)
    assert "Left: data." in panel.words


@pytest.mark.parametrize(("low", "high", "least"), [(0.74, 1.02, 2), (0.02, 1.0, 4), (13.0, 150.0, 3)])
def test_an_axis_of_nats_names_more_than_one_value(low, high, least):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [low, high])
    timesteps._frame(axes, "nats")
    figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    named = [t.label1.get_text() for t in ticks if bottom <= t.get_loc() <= top and t.label1.get_text()]
    assert len(named) >= least, named
