"""The UCI handwritten digits that come with lambent: 1797 images of 8 x 8 pixels, grey levels 0..16, ten classes.

E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
doi:10.24432/C50P49, CC BY 4.0. The split into 1437 for training and 360 for testing is part of the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lambent.data.dataset import Dataset

_FILE = Path(__file__).with_name("digits.npz")
LEVELS = 17


def load_digits(split: str) -> Dataset:
    """The training or the test part; ids are the rows of the whole set."""
    with np.load(_FILE, allow_pickle=False) as file:
        x, y, is_test = file["x"], file["y"], file["is_test"]
    ids = np.flatnonzero(is_test == (split == "test"))
    return Dataset(
        x[ids][:, None],
        labels=torch.from_numpy(y[ids].astype(np.int64)),
        name=f"digits ({split})",
        kind="image",
        classes=tuple("0123456789"),
        levels=LEVELS,
        ids=torch.from_numpy(ids),
    )
