"""Nearest neighbours among codes: exact, in bounded memory."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lambent.distributions.numerics import full_precision, widened
from lambent.errors import ShapeError

BUDGETS = {"cpu": 2**22, "other": 2**27}
"""Bytes of scores held at once: what stays in a processor's cache, and what keeps an accelerator busy."""
_FEWEST_GROUPS = 32
"""Torch takes maxima over narrower rows one number at a time."""
_ROUNDOFF = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}


def nearest(z: Tensor, codebook: Tensor, budget_bytes: int | None = None) -> Tensor:
    """argmin_j |z_i - e_j|^2 for each row of ``z`` (M, d) among the rows of ``codebook`` (S, d): (M,), of type long.

    Blocks of rows are scored by z.e - |e|^2/2, both taken from the codebook's mean, in float32. Rows whose two best
    scores are closer than rounding may have made them are scored again in float64. What float64 can't tell apart counts
    as a tie: the lowest index wins.

    Args:
        z: Vectors; any floating type.
        codebook: Codes.
        budget_bytes: Most bytes that a block of scores, rows x S, takes (a single row is always taken); by default
            4 MiB on CPU.

    Raises:
        ShapeError: the two are no matrices of equally many columns, or there is no code.

    >>> nearest(torch.tensor([[0.9], [5.0], [0.5]]), torch.tensor([[0.0], [1.0]]))
    tensor([1, 1, 0])
    """
    if z.dim() != 2 or codebook.dim() != 2 or z.shape[1] != codebook.shape[1] or not len(codebook):
        raise ShapeError(f"nearest: z {tuple(z.shape)}, codebook {tuple(codebook.shape)}; expected (M, d) and (S, d)")
    budget = BUDGETS["cpu" if z.device.type == "cpu" else "other"] if budget_bytes is None else budget_bytes
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        z, codebook = full_precision(z), full_precision(codebook)
        if z.dtype == torch.float64 or codebook.dtype == torch.float64:
            return _careful(z, codebook, budget)
        indices, doubtful = _quick(z, codebook, budget)
        rows = doubtful.nonzero().squeeze(1)
        if len(rows):
            indices[rows] = _careful(z.index_select(0, rows), codebook, budget)
        return indices


def rows_within(budget_bytes: int, row: int, bytes_each: int) -> int:
    """Rows of ``row`` numbers that the budget holds, at least one."""
    return max(1, budget_bytes // max(1, row * bytes_each))


def _quick(z: Tensor, codebook: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Indices, and which of them rounding leaves in doubt.

    The best of S scores is looked for in two stages: of groups of codes by a maximum along the slower dimension, which
    processors do many at a time, then within the best group.
    """
    groups = max(_FEWEST_GROUPS, 2 ** math.ceil(math.log2(len(codebook)) / 2))
    codes, bias, mean, radius = _centred(F.pad(codebook, (0, 0, 0, -len(codebook) % groups)), len(codebook))
    slack = _slack(codebook.shape[1], _ROUNDOFF[torch.get_float32_matmul_precision()])
    rows = min(rows_within(budget, len(codes), z.element_size()), max(1, len(z)))
    room = z.new_empty(rows, len(codes))
    indices = torch.empty(len(z), dtype=torch.long, device=z.device)
    doubtful = torch.empty(len(z), dtype=torch.bool, device=z.device)
    for start in range(0, len(z), rows):
        block = z[start : start + rows] - mean
        scores = torch.addmm(bias, block, codes.T, out=room[: len(block)])
        best, gap = _best(scores, groups)
        tolerance = slack * radius * (torch.linalg.vector_norm(block, dim=1) + radius)
        indices[start : start + rows] = best
        torch.logical_not(gap > tolerance, out=doubtful[start : start + rows])
    return indices, doubtful


def _best(scores: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The index of each row's largest score, and by how much it leads."""
    grouped = scores.view(len(scores), -1, groups)
    of_group = grouped.amax(1)
    group = of_group.argmax(1, keepdim=True)
    members = grouped.gather(2, group.unsqueeze(1).expand(-1, grouped.shape[1], 1)).squeeze(2)
    member = members.argmax(1, keepdim=True)
    best = members.gather(1, member)
    second = torch.maximum(_without(of_group, group), _without(members, member))
    return (member * groups + group).squeeze(1), best.squeeze(1) - second


def _without(values: Tensor, index: Tensor) -> Tensor:
    """The largest of each row but for the entry ``index``; spoils ``values``."""
    return values.scatter_(1, index, -torch.inf).amax(1)


def _careful(z: Tensor, codebook: Tensor, budget: int) -> Tensor:
    """In float64, ties to the lowest index."""
    codes, bias, mean, radius = _centred(widened(codebook), len(codebook))
    slack = _slack(codebook.shape[1], torch.finfo(codes.dtype).eps / 2)
    blocks = z.split(rows_within(budget, len(codes), 2 * codes.element_size()))
    found = []
    for block in blocks:
        block = widened(block) - mean
        scores = torch.addmm(bias, block, codes.T)
        tolerance = slack * radius * (torch.linalg.vector_norm(block, dim=1) + radius)
        least = scores.amax(1).sub_(tolerance).unsqueeze(1)
        found.append((scores >= least).to(torch.uint8).argmax(1))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long, device=z.device)


def _centred(codebook: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes less their mean, -|e|^2/2 (-inf for rows from ``size`` on), the mean, and the largest norm."""
    mean = codebook[:size].mean(0)
    codes = codebook - mean
    squares = widened(codes).square().sum(1)
    bias = squares.mul(-0.5).to(codes.dtype)
    bias[size:] = -torch.inf
    return codes, bias, mean, squares[:size].max().sqrt().to(codes.dtype)


def _slack(dim: int, roundoff: float) -> float:
    """The rounding of two scores over |e| (|z| + |e|): dim products, their sum, the bias and the centring."""
    return 2 * (dim + 4) * roundoff
