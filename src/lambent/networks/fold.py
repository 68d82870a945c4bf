"""The one place where importance samples and batch are folded into the flat batch that networks see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    return fold_together(net, (z,), (condition,))


def fold_together(net: Callable[..., Tensor], drawn: Sequence[Tensor], shared: Sequence[Tensor | None]) -> Tensor:
    """``net(*drawn, *shared)`` for each of the K x B items: of several tensors (K, B, *), and of some (B, *) or None.

    Raises:
        ShapeError: as `fold`, and where one of ``drawn`` has another K or B than the first.
    """
    if drawn[0].dim() < 2:
        found = tuple(drawn[0].shape)
        raise ShapeError(f"values for a network: found {found}, expected (K, B, *) with K samples of B examples")
    samples, batch = lead = drawn[0].shape[:2]
    for z in drawn[1:]:
        if z.shape[:2] != lead:
            raise ShapeError(f"values for a network: found {tuple(z.shape)}, expected ({samples}, {batch}, *)")
    for own in shared:
        if own is not None and own.shape[0] != batch:
            raise ShapeError(
                f"condition: found {own.shape[0]} rows for a batch of {batch}; give one row for each example"
            )
    if samples == 1:
        return net(*(z.squeeze(0) for z in drawn), *shared).unsqueeze(0)  # not z[0], whose gradient is a copy
    rows = (None if own is None else own.expand(samples, *own.shape).flatten(0, 1) for own in shared)
    return net(*(z.flatten(0, 1) for z in drawn), *rows).unflatten(0, (samples, batch))
