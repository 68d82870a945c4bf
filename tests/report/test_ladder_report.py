"""The page of a ladder of maps, whose levels are of several sizes."""

import pytest
import torch

from lambent import fit
from lambent.draws import Mode
from lambent.report.latents import dimension_rates
from lambent.report.material import gather
from lambent.training.console import Console

SMALL = {"model__levels": (1, 2), "model__latent": 2, "encoder__channels": (4, 6), "decoder__channels": (4,)}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return gather(fit("nvae-small", "digits", out=out, threads=1, train__steps=8, console=Console(quiet=True), **SMALL))


def test_the_rates_of_the_dimensions_are_those_of_all_levels(held):
    rates = dimension_rates(held)
    assert len(rates) == held.means.shape[1]
    with torch.inference_mode():
        trace = held.run.model(held.x, Mode(), held.condition)
    assert rates.sum().item() == pytest.approx(trace.rate.double().mean().item(), rel=1e-4)
