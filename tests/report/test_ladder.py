"""The page of a ladder of maps, whose levels are of several sizes."""

import json
import math

import pytest
import torch

from lambent import fit
from lambent.draws import Detached
from lambent.evaluation.evaluate import unit_rates_of_all
from lambent.report import write_report
from lambent.report.examples import gather
from lambent.report.sections.latents import dimension_rates

SMALL = {"model__levels_per_scale": (1, 2), "model__latent": 2, "encoder__channels": (4, 6), "decoder__channels": (4,)}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return gather(fit("nvae-small", "digits", out=out, threads=1, train__steps=8, quiet=True, **SMALL))


def test_the_rates_of_the_dimensions_are_those_of_all_levels(held):
    """Given draws of the levels above, as the evaluation's rate is."""
    rates, rate = dimension_rates(held), held.run.evaluate(samples=20).rate
    assert len(rates) == held.means.shape[1]
    trace = drawn(held)
    se = math.hypot(trace.rate.double().std().item() / len(held.view) ** 0.5, rate.se)
    assert abs(rates.sum().item() - rate.value) < 5 * se
    assert rates.sum().item() == pytest.approx(trace.rate.double().mean().item(), rel=1e-4)


def drawn(held):
    with torch.inference_mode():
        return held.run.model(held.x, Detached(generator=torch.Generator().manual_seed(0)), held.condition)


def test_units_are_counted_by_their_rates_and_said_to_be(held, tmp_path):
    found = held.run.evaluate(samples=2)
    rates = unit_rates_of_all(held.run.model, held.view)
    counts = {name: int((rate > 0.01).sum()) for name, rate in rates.items()}
    assert {name: active for name, (active, _) in found.units.items()} == counts
    assert found.active_units == sum(counts.values()) < found.latent
    told = json.loads(json.dumps(found.to_dict()))
    assert told["active_units_by"] == "rate"
    assert {level["active_units_by"] for level in told["rates"].values()} == {"rate"}
    assert f"{found.active_units} of {found.latent}  (rate above 0.01 nats)" in str(found)
    valid = [row["valid"] for row in held.run.history if "valid" in row][-1]
    assert valid["active_units_by"] == "rate"
    held.run.record(found)
    write_report(held.run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert f"{found.active_units} of {found.latent} dimensions are active (rate &gt; 0.01 nats)" in text
    assert "latent dimensions whose rate has a mean above 0.01 nats" in text
