"""A new network must let a VAE find its latents: started badly, it learns to ignore them within a few dozen steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lambent.data import load
from lambent.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from lambent.networks.activations import activation

LATENT, STEPS = 8, 150


@pytest.fixture(scope="module")
def digits():
    return (torch.as_tensor(load("digits").x).float() > 8).float()


def rate_after_training(encoder, decoder, x, seed):
    """KL(q||p) in nats of a Bernoulli VAE after some steps of Adam, its decoder's bias started at the pixels' means."""
    torch.manual_seed(seed)
    enc, dec = encoder.build((1, 8, 8)), decoder.build(LATENT, (1, 1, 8, 8))
    head = nn.Linear(enc.features, 2 * LATENT)
    with torch.no_grad():
        dec.output_bias().copy_(torch.logit(x.mean(0).clamp(0.005, 0.995)).view_as(dec.output_bias()))
    optimizer = torch.optim.Adam([*enc.parameters(), *dec.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(STEPS):
        batch = x[torch.randint(len(x), (100,))]
        loc, log_scale = head(enc(batch)).chunk(2, 1)
        logits = dec(loc + log_scale.exp() * torch.randn_like(loc))[:, 0]
        kl = (0.5 * (loc.square() + (2 * log_scale).exp() - 1) - log_scale).sum() / len(batch)
        loss = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum") / len(batch) + kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return kl.item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_networks_use_their_latents(digits, seed):
    assert rate_after_training(MLPEncoder(), MLPDecoder(), digits, seed) > 1
    assert rate_after_training(ConvEncoder(), ConvDecoder(), digits, seed) > 1


def test_that_check_catches_units_that_die(digits):
    """Why the convolutions' default is not ReLU: the first steps switch the encoder's features off for good."""
    assert rate_after_training(ConvEncoder(activation="relu"), ConvDecoder(activation="relu"), digits, 0) < 0.05


def test_the_default_activation_cannot_die():
    x = torch.tensor([-50.0, -5.0, 0.0, 5.0], requires_grad=True)
    activation(MLPEncoder().activation)(x[1:]).sum().backward()
    assert (x.grad[1:] > 0).all()
