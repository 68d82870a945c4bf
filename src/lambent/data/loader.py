"""Which examples make which batch: a function of (seed, epoch, position) alone."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass

import torch
from torch import Tensor

from lambent.errors import ConfigError
from lambent.seeds import derive


@dataclass(frozen=True)
class Share:
    """One process's part of a batch.

    Attributes:
        indices: Positions in the data set, (b,).
        total: Examples in the whole batch, over all processes.
        weight: What a mean over this part counts for in the mean over processes: b * processes / total.
    """

    indices: Tensor
    total: int
    weight: float


class Batches:
    """Random batches without replacement; a resumed run needs to know only (epoch, position).

    The permutation of an epoch follows from (seed, epoch). The last batch of an epoch is smaller where the size does
    not divide the number of examples: every example counts once an epoch. ``drop_last`` leaves it out instead (not
    where it is the only one, so that fewer examples than a batch still train). A batch is the same set for any number
    of processes; process ``rank`` gets every ``world``-th of it.

    >>> batches = Batches(range(10), batch_size=4, seed=0)
    >>> len(batches), [len(batches.share(0, i).indices) for i in range(3)]
    (3, [4, 4, 2])

    Args:
        dataset: Anything with a length.
        batch_size: Examples a batch, over all processes.
        seed: Names the sequence of permutations.
        drop_last: Leave out the last batch if it is short.
        rank: This process, from 0.
        world: Number of processes.

    Raises:
        ConfigError: a batch smaller than the number of processes, or a rank outside them.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, seed: int, *, drop_last: bool = False, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < world or not 0 <= rank < world:
            raise ConfigError(
                f"batch_size={batch_size} for process {rank} of {world}; expected at least one example for each"
            )
        self.examples, self.batch_size, self.seed = len(dataset), batch_size, seed
        self.rank, self.world = rank, world
        whole, rest = divmod(self.examples, batch_size)
        self._count = whole if (drop_last and whole) or not rest else whole + 1
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._count

    def permutation(self, epoch: int) -> Tensor:
        """The order of the examples in ``epoch``."""
        generator = torch.Generator().manual_seed(derive(self.seed, "epoch", epoch))
        return torch.randperm(self.examples, generator=generator)

    def indices(self, epoch: int, position: int) -> Tensor:
        """The whole batch, over all processes.

        Raises:
            IndexError: no such batch in an epoch.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"batch {position} of {len(self)} in an epoch")
        if self._order[0] != epoch:
            self._order = (epoch, self.permutation(epoch))
        return self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def share(self, epoch: int, position: int) -> Share:
        """This process's part; it can be empty where the last batch is smaller than the number of processes."""
        whole = self.indices(epoch, position)
        mine = whole[self.rank :: self.world]
        return Share(mine, len(whole), len(mine) * self.world / len(whole))

    def generator(self, epoch: int, position: int) -> torch.Generator:
        """What this process draws for that batch, on CPU: a function of (seed, epoch, position, rank)."""
        return torch.Generator().manual_seed(derive(self.seed, "batch", epoch, position, self.rank))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Share]]:
        """(Position, share) for the batches of ``epoch`` from ``start`` on."""
        for position in range(start, len(self)):
            yield position, self.share(epoch, position)


def in_order(examples: int, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Tensor]:
    """Positions 0..examples-1, each once over all processes, at most ``batch_size`` at a time: for evaluation.

    >>> list(in_order(5, 2, rank=1, world=2))
    [tensor([1, 3])]
    """
    yield from torch.arange(rank, examples, world).split(batch_size) if rank < examples else ()
