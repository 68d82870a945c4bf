"""Pictures of image arrays: grey levels for the eye, sheets of many images, PNG bytes. Pillow only."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from lambent.data.transform import Transform

SIDE = 56
"""Small images are enlarged, by a whole factor, to about this many pixels."""
GAP = 3
CHANNELS = (1, 3)


def is_picture(transform: Transform) -> bool:
    """Whether examples can be shown as images: (1, H, W) or (3, H, W)."""
    return transform.kind == "image" and len(transform.event) == 3 and transform.event[0] in CHANNELS


def raw_to_bytes(x: Tensor, transform: Transform) -> np.ndarray:
    """Images as they come from the source, (N, C, H, W), as bytes (N, H, W, C); as `to_bytes` otherwise."""
    return _bytes(x.double().numpy(), transform.levels)


def to_bytes(x: Tensor, transform: Transform) -> np.ndarray:
    """Images as the likelihood scores them, (N, C, H, W), as bytes (N, H, W, C).

    Black and white are the ends of the data's grey levels. Data without levels use 0 and 1 if they fit into that, else
    the smallest and the largest value shown.
    """
    values = transform.invert(x.detach().cpu().double()).numpy()
    return _bytes(values, 2 if transform.binarize != "none" else transform.levels)


def _bytes(values: np.ndarray, levels: int | None) -> np.ndarray:
    low, high = _ends(values) if levels is None else (0.0, float(levels - 1))
    scaled = np.clip((values - low) / (high - low), 0, 1)
    return np.round(255 * scaled).astype(np.uint8).transpose(0, 2, 3, 1)


def _ends(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= -0.01 and high <= 1.01:
        return 0.0, 1.0
    return (low, high) if high > low else (low, low + 1)


def sheet(cells: np.ndarray, columns: int, *, group: int = 0) -> np.ndarray:
    """Images (N, H, W, C) row by row on one white sheet, (height, width, 3).

    Args:
        cells: Bytes.
        columns: Images in a row.
        group: Rows between two wider gaps; 0 for none.

    >>> sheet(np.zeros((4, 60, 60, 1), np.uint8), 2).shape
    (123, 123, 3)
    """
    cells = np.repeat(cells, 3, -1) if cells.shape[-1] == 1 else cells
    factor = max(1, round(SIDE / max(cells.shape[1:3])))
    cells = cells.repeat(factor, 1).repeat(factor, 2)
    rows, (height, width) = -(-len(cells) // columns), cells.shape[1:3]
    tops = [row * (height + GAP) + (row // group * 3 * GAP if group else 0) for row in range(rows)]
    canvas = np.full((tops[-1] + height, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, cell in enumerate(cells):
        top, left = tops[i // columns], i % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = cell
    return canvas


def png(canvas: np.ndarray) -> bytes:
    """The bytes of a PNG file of an RGB array (height, width, 3); grey ones are stored as grey."""
    from PIL import Image

    grey = bool((canvas[..., 0] == canvas[..., 1]).all() and (canvas[..., 0] == canvas[..., 2]).all())
    image = Image.fromarray(canvas[..., 0] if grey else canvas)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    """PNG bytes as the address of an image inside a page."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
