"""A folder of images: PNG, JPEG, WebP and TIFF, recognised by content; sub-folders are classes.

What happens to an image, and nothing else does: its EXIF rotation is applied; palette and 1-bit images become RGB and
grey; an alpha channel that is opaque everywhere is dropped; ``grayscale`` and ``size`` do what they say, the latter by
cutting the longer side and Lanczos resampling. Transparency, CMYK and other colour spaces, more than 8 bits a channel,
and several frames are refused.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lambent.data.dataset import Dataset
from lambent.data.labels import encode
from lambent.data.options import LIMITS, DataOptions
from lambent.data.source_files import readable
from lambent.errors import ConfigError, DataError, LambentError

if TYPE_CHECKING:
    import PIL.Image

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA")
_BITS_PER_SAMPLE = 258


class BadImageError(Exception):
    """Why one file can't be used."""


@dataclass(frozen=True)
class ImageFile:
    """One file, and its class where folders are classes."""

    path: Path
    label: str = ""


def load_folder(folder: Path, options: DataOptions) -> Dataset:
    """All images of a folder, as bytes (N, C, H, W).

    Raises:
        DataError: no images, an empty class folder, files that can't be used (all are found, ten are listed), images of
            several shapes, or more of them than ``data.memory`` holds.
    """
    files = list_images(folder)
    found = _Found({}, {}, np.empty(0, np.uint8))
    for file in files:
        try:
            found = found.with_image(file.path, _pixels(file.path, options), len(files), folder, options)
        except BadImageError as error:
            found.bad[file.path] = str(error)
    if found.bad and not (options.skip_bad and found.shapes):
        fix = "none is left" if options.skip_bad else "repair or remove them, or set data.skip_bad=true"
        raise DataError(f"{folder}: {_listed(found.bad, folder, len(files))}; {fix}")
    _refuse_mixed(folder, found.shapes)
    kept = [file for file in files if file.path in found.shapes]
    return _dataset(folder, kept, found.pixels[: len(kept)], found.bad, len(files))


@dataclass(frozen=True)
class _Found:
    """Shapes of the good images, reasons for the bad ones, and the pixels of the good ones while of one shape."""

    shapes: dict[Path, tuple[int, ...]]
    bad: dict[Path, str]
    pixels: np.ndarray

    def with_image(self, path: Path, image: np.ndarray, files: int, folder: Path, options: DataOptions) -> _Found:
        """With one more good image."""
        found = self
        if not self.shapes:
            _refuse_large(folder, files, image.shape, options)
            found = replace(self, pixels=np.empty((files, *image.shape), np.uint8))
        if image.shape == found.pixels.shape[1:]:
            found.pixels[len(self.shapes)] = image
        self.shapes[path] = image.shape
        return found


def _dataset(folder: Path, files: list[ImageFile], x: np.ndarray, bad: dict[Path, str], total: int) -> Dataset:
    labelled = bool(files[0].label)
    labels, classes = encode(np.array([f.label for f in files]), str(folder)) if labelled else (None, ())
    notes = (f"{folder}: {_listed(bad, folder, total)}; left out",) if bad else ()
    return Dataset(
        torch.from_numpy(x), labels, name=str(folder), kind="image", classes=classes, levels=256, notes=notes
    )


def list_images(folder: Path) -> list[ImageFile]:
    """Every file that is not hidden, in order of name: those in the folder, or in its sub-folders, which are classes.

    Raises:
        DataError: none, an empty sub-folder, files beside sub-folders, or folders within sub-folders.
    """
    inside = _visible(folder)
    classes = [p for p in inside if p.is_dir()]
    if not inside:
        raise DataError(f"{folder} is an empty folder; expected images, or sub-folders of images")
    if not classes:
        return [ImageFile(p) for p in inside]
    if len(classes) < len(inside):
        beside = next(p for p in inside if not p.is_dir())
        raise DataError(
            f"{folder}: files such as {beside.name!r} beside class folders; put them into one, or remove them"
        )
    return [ImageFile(path, c.name) for c in classes for path in _class_files(c)]


def _class_files(folder: Path) -> list[Path]:
    files = _visible(folder)
    if not files:
        raise DataError(f"{folder} is an empty class folder; add images or remove it")
    for path in files:
        if path.is_dir():
            raise DataError(f"{path} is a folder within a class folder; expected only images there")
    return files


def _visible(folder: Path) -> list[Path]:
    with readable(folder):
        return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


@contextmanager
def _opened(path: Path) -> Iterator[PIL.Image.Image]:
    """An image of which only the header was read; whatever fails inside becomes a `BadImageError`."""
    import PIL.Image

    try:
        _refuse_strange_files(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            image = PIL.Image.open(path, formats=_FORMATS)
        with image:
            yield image
    except (BadImageError, LambentError):
        raise
    except Exception as error:  # decoders meet bytes made by anyone, and raise whatever they please
        raise BadImageError(_reason(error)) from error


def _refuse_strange_files(path: Path) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError("no regular file")
    if status.st_size == 0:
        raise BadImageError("empty, 0 bytes")


def _reason(error: Exception) -> str:
    import PIL.Image

    if isinstance(error, PIL.UnidentifiedImageError):
        return "no readable PNG, JPEG, WebP or TIFF"
    if isinstance(error, PIL.Image.DecompressionBombError):
        return f"more than {LIMITS.image_pixels} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0][:100] if str(error) else type(error).__name__


def _refuse_strange_images(image: PIL.Image.Image, path: Path) -> None:
    """By its header alone, before anything is decoded."""
    width, height = image.size
    if width * height > LIMITS.image_pixels:
        raise BadImageError(f"{width}x{height} is more than {LIMITS.image_pixels} pixels")
    if image.mode not in _GREY + _COLOUR:
        raise BadImageError(f"{_mode_in_words(image.mode)}, expected 8-bit grey or RGB")
    if _bits(image, path) > 8:
        raise BadImageError(f"{_bits(image, path)} bits a channel; use .npy and data.grey_levels for those")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadImageError(f"{getattr(image, 'n_frames', 1)} frames, expected one")


def _mode_in_words(mode: str) -> str:
    return {"CMYK": "CMYK colours", "F": "32-bit numbers", "I": "32-bit numbers"}.get(
        mode, "16 bits a channel" if mode.startswith("I;16") else f"mode {mode}"
    )


def _bits(image: PIL.Image.Image, path: Path) -> int:
    """Bits a channel, from the file itself: Pillow cuts 16-bit colours to 8 without a word."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _size(options: DataOptions) -> tuple[int, int]:
    if len(options.size) not in (1, 2):
        raise ConfigError(f"data.size={list(options.size)}, expected [height, width] or one number for both")
    return options.size[0], options.size[-1]


def _refuse_mixed(folder: Path, shapes: dict[Path, tuple[int, ...]]) -> None:
    kinds = Counter(shapes.values()).most_common()
    if len(kinds) < 2:
        return
    example = {shape: path.relative_to(folder) for path, shape in reversed(shapes.items())}
    listed = ", ".join(f"{n} of {shape} such as {str(example[shape])!r}" for shape, n in kinds[:10])
    more = f" and {len(kinds) - 10} shapes more" if len(kinds) > 10 else ""
    sizes, channels = {s[1:] for s, _ in kinds}, {s[0] for s, _ in kinds}
    fixes = [f"data.size={list(kinds[0][0][1:])}"] * (len(sizes) > 1) + ["data.grayscale=true"] * (len(channels) > 1)
    raise DataError(f"{folder}: images of several shapes: {listed}{more}; set {' and '.join(fixes)}")


def _refuse_large(folder: Path, files: int, shape: tuple[int, ...], options: DataOptions) -> None:
    size = files * int(np.prod(shape))
    if size > options.budget:
        raise DataError(
            f"{folder}: {files} images of {shape} take {size / 2**20:.0f} MiB, more than "
            f"data.memory={options.memory}; set a smaller data.size, or save them as one .npy, which can stay on disk"
        )


def _pixels(path: Path, options: DataOptions) -> np.ndarray:
    """(C, H, W) bytes.

    Raises:
        BadImageError: why the file can't be used.
    """
    with _opened(path) as image:
        _refuse_strange_images(image, path)
        if image.format == "PNG":  # decoding stops at the last pixel, without a look at the checksums
            with _opened(path) as again:
                again.verify()
        return _converted(image, options)


def _converted(image: PIL.Image.Image, options: DataOptions) -> np.ndarray:
    import PIL.Image
    import PIL.ImageOps

    grey = options.grayscale or image.mode in _GREY
    upright = PIL.ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema()[0] != 255:
            raise BadImageError("transparent pixels; lay it over a background first")
        upright = upright.convert("RGB")
    plain = upright.convert("L" if grey else "RGB")
    if options.size:
        height, width = _size(options)
        plain = PIL.ImageOps.fit(plain, (width, height), PIL.Image.Resampling.LANCZOS)
    pixels = np.asarray(plain)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _listed(bad: dict[Path, str], folder: Path, total: int) -> str:
    shown = ", ".join(f"{str(path.relative_to(folder))!r} ({why})" for path, why in list(bad.items())[:10])
    more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
    return f"{len(bad)} of {total} files can't be used: {shown}{more}"
