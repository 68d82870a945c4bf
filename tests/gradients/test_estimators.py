"""Which models gradients can be compared on."""

import pytest

from lambent.errors import CombinationError
from lambent.gradients.estimators import trusted
from lambent.recipes import configure
from lambent.shapes import Shapes


def test_codes_have_no_gradient_to_compare_theirs_with():
    config = configure("vq-vae")
    with pytest.raises(CombinationError, match=r"straight-through, which is biased.*use a recipe such as st-vae"):
        trusted([], config, Shapes((1, 8, 8), 16, 0, 256), samples=1, examples=2)
