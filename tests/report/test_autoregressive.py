"""The page of a model whose p(x|z) has no mean: it shows draws, and says that they are."""

import pytest

from lambent import fit
from lambent.report.build import build
from support.page_parser import Page

SMALL = {"decoder__layers": 2, "decoder__channels": 4, "encoder__channels": (4,), "latent": 2}


@pytest.mark.parametrize("recipe", ["pixelvae", "vlae"])
def test_the_page_shows_draws_and_calls_none_of_them_a_mean(recipe):
    run = fit(recipe, "digits", train__steps=2, threads=1, quiet=True, **SMALL)
    titles = [figure.title for figure in Page(build(run)).figures]
    assert "Samples: x drawn from p(x|z), z from the prior" in titles
    assert "Samples: a row for each z, x drawn from p(x|z)" in titles
    assert "Reconstructions; from above: data, the same binarised, a draw of p(x|z) at the encoding" in titles
    assert not any("mean of p(x|z)" in title for title in titles)
