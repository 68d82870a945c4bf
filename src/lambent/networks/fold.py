"""The one place where importance samples and batch are folded into the flat batch that networks see."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lambent.errors import ShapeError

Net = Callable[[Tensor, Tensor | None], Tensor]


def fold(net: Net, z: Tensor, condition: Tensor | None = None) -> Tensor:
    """``net`` applied to each of the K x B items of ``z``.

    Args:
        net: a network on flat batches: ``net(z (N, *), condition (N, c) or None) -> (N, *)``.
        z: values (K, B, *).
        condition: one vector for each of the B examples, (B, c), shared by its K samples; or None.

    Returns:
        The outputs, (K, B, *). Nothing is copied where K is 1.

    Raises:
        ShapeError: a ``z`` without both leading dimensions, or another number of conditions than B.

    >>> import torch
    >>> fold(lambda z, c: z + c, torch.zeros(2, 3, 1), torch.tensor([[1.0], [2.0], [3.0]])).shape
    torch.Size([2, 3, 1])
    """
    if z.dim() < 2:
        raise ShapeError(
            f"values for a network: found {tuple(z.shape)}, expected (K, B, *) with K samples of B examples"
        )
    samples, batch = z.shape[:2]
    if condition is not None and condition.shape[0] != batch:
        raise ShapeError(
            f"condition: found {condition.shape[0]} rows for a batch of {batch}; give one row for each example"
        )
    if samples == 1:
        return net(z[0], condition).unsqueeze(0)
    if condition is not None:
        condition = condition.expand(samples, *condition.shape).flatten(0, 1)
    return net(z.flatten(0, 1), condition).unflatten(0, (samples, batch))
