"""The peer pythae with the network of the benchmark; README.md says how to install it beside the project."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

PIXELS, HIDDEN, LATENT = 784, 500, 50


def _import_pythae() -> Any:
    try:
        import pythae.models
        import pythae.trainers
    except ImportError as error:
        sys.exit(f"pythae can't be imported ({error}); install it as benchmarks/README.md says and set PYTHONPATH")
    return pythae


def pythae_vae() -> Any:
    """The peer's own VAE class around encoder and decoder of 784-500-500-50, ReLU, with its "bce" likelihood."""
    pythae = _import_pythae()
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class EncoderModule(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            layers = nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
            self.layers = nn.Sequential(*layers)
            self.embedding, self.log_var = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

        def forward(self, x: Tensor) -> Any:
            h = self.layers(x.reshape(-1, PIXELS))
            return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

    class DecoderModule(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            layers = nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
            self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, PIXELS), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    config = pythae.models.VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    model = pythae.models.VAE(config, encoder=EncoderModule(), decoder=DecoderModule())
    model.device = torch.device("cpu")
    return model


def pythae_trainer(images: Tensor, batch: int, folder: str) -> Any:
    """The peer's BaseTrainer with its own default settings except the batch size, ready to run epochs."""
    pythae = _import_pythae()
    from pythae.data.datasets import BaseDataset

    logging.getLogger("pythae").setLevel(logging.ERROR)
    config = pythae.trainers.BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=batch, no_cuda=True)
    data = BaseDataset(images, torch.zeros(len(images)))
    with silence():
        trainer = pythae.trainers.BaseTrainer(pythae_vae(), data, training_config=config)
        trainer.prepare_training()
    return trainer


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Its progress bars and log lines go nowhere; they are still made, as by default."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        try:
            yield
        finally:
            logging.disable(disabled)
