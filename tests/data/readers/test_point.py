"""A point as a data set."""

import pytest
import torch

from lambent.data import evaluation_set, load, training_sets
from lambent.errors import DataError


def test_a_point_is_its_own_training_and_test_set():
    train, valid = training_sets("point:5,-0.5,1e2")
    assert valid is None
    assert torch.equal(train.x, torch.tensor([[5.0, -0.5, 100.0]]))
    assert torch.equal(evaluation_set("point:5,-0.5,1e2").x, train.x)


@pytest.mark.parametrize("source", ["point:", "point:5,x", "point:5,,5", "point:nan", "point:1,inf"])
def test_what_is_no_point_is_refused(source):
    with pytest.raises(DataError, match=r"expected finite numbers between commas, such as point:5,5"):
        load(source)


def test_it_has_no_validation_split():
    with pytest.raises(DataError, match="it has train, test"):
        load("point:1,2", split="valid")
