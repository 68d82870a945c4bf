"""Networks: tensors to tensors, no probability.

Encoders map items to features, decoders map latents to parameters; both see flat batches (N, ...), built from the
data's shape. Autoregressive networks stand where a decoder stands and see the data too. `fold` is the only place where
importance samples and batch meet.
"""

from __future__ import annotations

from lambent.networks.autoregressive.base import AutoregressiveNet, AutoregressiveSettings
from lambent.networks.autoregressive.lstm import LSTMDecoder, LSTMEncoder, LSTMNet
from lambent.networks.autoregressive.made import MADE, MADEDecoder
from lambent.networks.autoregressive.nade import NADE, NADEDecoder
from lambent.networks.autoregressive.pixelcnn import GatedPixelCNN, GatedPixelCNNDecoder, PixelCNN, PixelCNNDecoder
from lambent.networks.autoregressive.transformer import Stack, TransformerDecoder, TransformerEncoder, TransformerNet
from lambent.networks.autoregressive.unmasking import UnmaskingTransformer
from lambent.networks.base import DecoderModule, DecoderSettings, EncoderModule, EncoderSettings
from lambent.networks.conv import ConvDecoder, ConvEncoder
from lambent.networks.diffusion.denoiser import DenoiserSettings, MLPDenoiser
from lambent.networks.diffusion.unet import UNetDenoiser
from lambent.networks.fold import fold
from lambent.networks.identity import ConstantEncoder, IdentityDecoder
from lambent.networks.mlp import LinearDecoder, LinearEncoder, MLPDecoder, MLPEncoder, affine
from lambent.networks.quantisers.codebook import Codebook, Learning, Quantiser
from lambent.networks.quantisers.finite_scalar import FiniteScalar
from lambent.networks.recurrent.draw import CanvasDecoder, ReaderEncoder
from lambent.networks.user import UserDecoder, UserEncoder, as_decoder, as_encoder

__all__ = [
    "MADE",
    "NADE",
    "AutoregressiveNet",
    "AutoregressiveSettings",
    "CanvasDecoder",
    "Codebook",
    "ConstantEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "DecoderModule",
    "DecoderSettings",
    "DenoiserSettings",
    "EncoderModule",
    "EncoderSettings",
    "FiniteScalar",
    "GatedPixelCNN",
    "GatedPixelCNNDecoder",
    "IdentityDecoder",
    "LSTMDecoder",
    "LSTMEncoder",
    "LSTMNet",
    "Learning",
    "LinearDecoder",
    "LinearEncoder",
    "MADEDecoder",
    "MLPDecoder",
    "MLPDenoiser",
    "MLPEncoder",
    "NADEDecoder",
    "PixelCNN",
    "PixelCNNDecoder",
    "Quantiser",
    "ReaderEncoder",
    "Stack",
    "TransformerDecoder",
    "TransformerEncoder",
    "TransformerNet",
    "UNetDenoiser",
    "UnmaskingTransformer",
    "UserDecoder",
    "UserEncoder",
    "affine",
    "as_decoder",
    "as_encoder",
    "fold",
]
