"""Your own modules on both sides: any map from x to features, any map from z to the likelihood's numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import lambent


class Attention(nn.Module):
    """The rows of an 8 x 8 image as eight tokens."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.mix = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 8, width) of x (N, 1, 8, 8); lambent flattens them."""
        return self.mix(self.embed(x.squeeze(1)))


def main(epochs: int = 20) -> lambent.Run:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64))
    run = lambent.fit("vae", "digits", latent=8, epochs=epochs, encoder=Attention(), decoder=decoder)
    print(run.evaluate(samples=100).elbo)
    return run


if __name__ == "__main__":
    main()
