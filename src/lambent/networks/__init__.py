"""Networks: tensors to tensors, no probability.

Encoders map items to features, decoders map latents to parameters; both see flat batches (N, ...), built from the
data's shape. `fold` is the only place where importance samples and batch meet.
"""

from __future__ import annotations

from lambent.networks.base import Decoder, DecoderSettings, Encoder, EncoderSettings
from lambent.networks.conv import ConvDecoder, ConvEncoder
from lambent.networks.fold import fold
from lambent.networks.mlp import LinearDecoder, LinearEncoder, MLPDecoder, MLPEncoder, affine
from lambent.networks.trivial import ConstantEncoder, IdentityDecoder
from lambent.networks.user import UserDecoder, UserEncoder, as_decoder, as_encoder

__all__ = [
    "ConstantEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "Decoder",
    "DecoderSettings",
    "Encoder",
    "EncoderSettings",
    "IdentityDecoder",
    "LinearDecoder",
    "LinearEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "UserDecoder",
    "UserEncoder",
    "affine",
    "as_decoder",
    "as_encoder",
    "fold",
]
