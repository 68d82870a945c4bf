"""Folding K samples of B examples into one batch and back, item by item."""

import pytest
import torch

from lambent.errors import ShapeError
from lambent.networks import MLPDecoder, fold


def weave(z, condition):
    return torch.cat((10 * z, condition), 1) if condition is not None else 10 * z


def item_by_item(net, z, condition):
    rows = [
        [net(z[k, b][None], None if condition is None else condition[b][None])[0] for b in range(z.shape[1])]
        for k in range(z.shape[0])
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("conditioned", [False, True])
def test_each_sample_meets_its_own_examples_condition(samples, conditioned):
    z = torch.randn(samples, 3, 2, generator=torch.Generator().manual_seed(0))
    condition = torch.arange(6.0).view(3, 2) if conditioned else None
    assert torch.equal(fold(weave, z, condition), item_by_item(weave, z, condition))


def test_that_check_catches_conditions_repeated_in_the_wrong_order():
    z, condition = torch.randn(2, 3, 2), torch.arange(6.0).view(3, 2)
    wrong = weave(z.flatten(0, 1), condition.repeat_interleave(2, 0)).unflatten(0, (2, 3))
    assert not torch.equal(wrong, item_by_item(weave, z, condition))


def test_of_a_real_decoder():
    torch.manual_seed(0)
    net = MLPDecoder((5,)).build(2, (1, 3, 4), 3).double()
    z, condition = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    out = fold(net, z, condition)
    assert out.shape == (4, 3, 1, 3, 4)
    torch.testing.assert_close(out, item_by_item(net, z, condition), rtol=1e-12, atol=1e-12)


def test_latents_of_several_dimensions_stay_whole():
    z = torch.randn(2, 3, 4, 5)
    assert torch.equal(fold(lambda v, c: v.transpose(1, 2), z), z.transpose(2, 3))


def test_nothing_is_copied():
    seen = []

    def net(z, condition):
        seen.append((z.data_ptr(), None if condition is None else condition.data_ptr()))
        return z

    z, condition = torch.randn(1, 3, 2), torch.randn(3, 2)
    assert fold(net, z, condition).data_ptr() == z.data_ptr()
    many = torch.randn(4, 3, 2)
    assert fold(net, many).data_ptr() == many.data_ptr()
    assert seen == [(z.data_ptr(), condition.data_ptr()), (many.data_ptr(), None)]


def test_gradients_come_back_to_each_sample():
    z = torch.randn(3, 2, 2, requires_grad=True)
    fold(weave, z).sum().backward()
    assert torch.equal(z.grad, torch.full_like(z, 10))


@pytest.mark.parametrize("samples", [1, 4])
def test_wrong_shapes_are_refused(samples):
    with pytest.raises(ShapeError, match="condition: found 2 rows for a batch of 3"):
        fold(weave, torch.zeros(samples, 3, 2), torch.zeros(2, 1))
    with pytest.raises(ShapeError, match=r"found \(3,\), expected \(K, B, \*\)"):
        fold(weave, torch.zeros(3))
