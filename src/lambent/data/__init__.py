"""Data: sources, what is done to them, what a likelihood takes, and the order in which they come."""

from lambent.data.alphabet import Alphabet
from lambent.data.dataset import Dataset, split_off
from lambent.data.fitting import DataWarning
from lambent.data.labels import one_hot
from lambent.data.loader import Batches, Share, in_order
from lambent.data.options import DataOptions
from lambent.data.readers.arrays import from_arrays
from lambent.data.readers.text import from_texts
from lambent.data.sources import evaluation_set, load, splits_of, training_sets
from lambent.data.support import Support
from lambent.data.transform import Transform
from lambent.data.view import View

__all__ = [
    "Alphabet",
    "Batches",
    "DataOptions",
    "DataWarning",
    "Dataset",
    "Share",
    "Support",
    "Transform",
    "View",
    "evaluation_set",
    "from_arrays",
    "from_texts",
    "in_order",
    "load",
    "one_hot",
    "split_off",
    "splits_of",
    "training_sets",
]
