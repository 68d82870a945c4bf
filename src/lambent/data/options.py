"""The settings of a data set: where it is, what of it is used, and what is done to it before it is scored."""

from __future__ import annotations

from dataclasses import dataclass

from lambent.settings import Part, option, part

BINARIZE = ("none", "threshold", "static", "dynamic")
EXAMPLES = ("lines", "blocks")
SYMBOLS = ("bytes", "characters")
SCALES = ("auto", "none", "unit", "standardize")


@dataclass(frozen=True)
class Sizes:
    """Limits that no honest data set meets; they stop files made to exhaust a machine."""

    image_pixels: int = 50_000_000
    archive_entries: int = 1_000
    categories: int = 1_000


LIMITS = Sizes()


@part("data", "data")
@dataclass(frozen=True)
class DataOptions(Part):
    """Where data come from and what the likelihood is given of them."""

    source: str = option(
        "digits",
        "digits, mnist, fashion-mnist, a .npy, .npz[:key], .csv, .parquet or .txt file, a folder of images, point:5,5",
    )
    labels: str | None = option(
        None, "column or array that holds the labels; none: the array y of an .npz, if there is one"
    )
    condition: str = option(
        "none", "what the model is conditioned on beside z: none, labels, or the name of an array or column of numbers"
    )
    binarize: str = option(
        "none",
        "how grey levels become {0,1}: threshold (grey > half of the largest level), static (drawn once, by "
        "binarize_seed), dynamic (a new draw for every batch in training, like static in evaluation)",
        choices=BINARIZE,
    )
    binarize_seed: int = option(0, "seed of static binarisation", minimum=0, maximum=2**31 - 1)
    scale: str = option(
        "auto",
        "unit (grey levels divided by the largest, other data left alone), standardize (zero mean, unit variance per "
        "column or image channel, by the training set), none, or auto (tables standardize, all else none)",
        choices=SCALES,
    )
    grey_levels: int | None = option(
        None, "number of grey levels, 0..levels-1; none: 17 for digits, 256 for bytes (2 if all are 0 or 1)", minimum=2,
        maximum=65536,
    )  # fmt: skip
    layout: str = option("chw", "order of the axes of image arrays", choices=("chw", "hwc"))
    size: tuple[int, ...] = option(
        (), "height and width that images are cropped and scaled to, e.g. [64, 64]", minimum=1
    )
    grayscale: bool = option(False, "convert colour images to grey by 0.299 R + 0.587 G + 0.114 B")  # noqa: FBT003
    skip_bad: bool = option(False, "leave out unreadable image files, and record how many")  # noqa: FBT003
    categorical: tuple[str, ...] = option((), "columns to read as categories even if they hold numbers")
    counts: tuple[str, ...] = option((), "columns that hold counts (whole numbers from 0)")
    drop: tuple[str, ...] = option((), "columns to leave out")
    text: str | None = option(None, "column that holds text; its cells are the examples")
    examples: str = option(
        "lines",
        "examples of a text: lines (those not empty, ended by EOS), or blocks (consecutive pieces of equal length)",
        choices=EXAMPLES,
    )
    length: int = option(64, "maximum number of symbols per text; longer lines are split", minimum=2)
    symbols: str = option(
        "bytes", "symbols of a text: its 256 bytes, or the characters of the training data", choices=SYMBOLS
    )
    valid_fraction: float = option(
        0.1, "fraction of the training set held out for validation where the source has none", minimum=0, maximum=0.9
    )
    split_seed: int = option(0, "seed of the choice of these examples", minimum=0, maximum=2**31 - 1)
    memory: int = option(2048, "MiB that one array may take in memory; a larger .npy stays on disk", minimum=1)

    @property
    def budget(self) -> int:
        """The memory limit in bytes."""
        return self.memory * 2**20
