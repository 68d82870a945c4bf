"""Plain text as sequences of symbols: bytes or characters, lines with an END or blocks of equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lambent.data.alphabet import Alphabet
from lambent.data.dataset import Dataset
from lambent.data.options import DataOptions
from lambent.data.source_files import content_of, expect, readable
from lambent.errors import ConfigError, DataError

_NEWLINE, _RETURN = 10, 13
_SHOWN = 5


def load_text(path: Path, options: DataOptions) -> Dataset:
    r"""The examples of a text file: its lines that are not empty (they end in \n or \r\n), or blocks of it.

    Raises:
        DataError: empty, another kind of file, no UTF-8 or a NUL where characters are due, nothing but empty lines, or
            less than one block.
        StorageError: it can't be read.
    """
    if content_of(path) not in ("text", "unknown"):
        expect(path, "text")
    if options.text is not None:
        raise ConfigError(f"data.text={options.text!r} names a column of a table, and {path} is none; leave it out")
    with readable(path):
        _refuse_large(path.stat().st_size, str(path), options)
        units = _units(_decoded(path.read_bytes(), path, options), options)
    lines = [units] if options.examples == "blocks" else _lines(units)
    if not lines:
        raise DataError(f"{path} holds nothing but empty lines; expected text")
    return _dataset(lines, options, str(path), sequential=True)[0]


def from_texts(
    texts: Sequence[str],
    *,
    options: DataOptions | None = None,
    name: str = "texts",
    place: Callable[[int], str] = "text {}".format,
) -> tuple[Dataset, Tensor]:
    """Strings as examples, and for each example the position of its string (longer ones are cut into several).

    >>> data, rows = from_texts(["to be", "or"], options=DataOptions(length=4))
    >>> data.alphabet.decode(data.x), rows.tolist()
    (['to b', 'e', 'or'], [0, 0, 1])

    Raises:
        DataError: an empty string, or none at all.
        ConfigError: blocks are asked for: strings of their own are no running text.
    """
    options = options or DataOptions()
    if options.examples == "blocks":
        raise ConfigError(f"data.examples=blocks cuts running text, and {name} are texts of their own; use lines")
    empty = [i for i, text in enumerate(texts) if not text]
    if empty or not texts:
        shown = f", first {', '.join(map(place, empty[:_SHOWN]))}" if empty else ""
        raise DataError(f"{name}: {len(empty)} of {len(texts)} texts are empty{shown}; fill them in or leave them out")
    _refuse_large(sum(map(len, texts)), name, options)
    lines = [_units(text if options.symbols == "characters" else text.encode(), options) for text in texts]
    return _dataset(lines, options, name, sequential=False)


def _decoded(raw: bytes, path: Path, options: DataOptions) -> str | bytes:
    if options.symbols == "bytes":
        return raw
    if b"\0" in raw:
        raise DataError(f"{path}: a NUL at byte {raw.index(0)}, which is no text; use data.symbols=bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it so, or use data.symbols=bytes"
        ) from error


def _units(text: str | bytes, options: DataOptions) -> np.ndarray:
    """Bytes, or code points."""
    if isinstance(text, bytes):
        return np.frombuffer(text, np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _lines(units: np.ndarray) -> list[np.ndarray]:
    """Lines that are not empty, without what ends them."""
    found = []
    for line in np.split(units, np.flatnonzero(units == _NEWLINE) + 1):
        if line.size and line[-1] == _NEWLINE:
            line = line[: -2 if line.size > 1 and line[-2] == _RETURN else -1]
        found += [line] if line.size else []
    return found


def _dataset(lines: list[np.ndarray], options: DataOptions, name: str, *, sequential: bool) -> tuple[Dataset, Tensor]:
    """Examples of at most ``data.length`` symbols, and the line that each comes from."""
    blocks, length = options.examples == "blocks", options.length
    pieces = [(i, line[at : at + length]) for i, line in enumerate(lines) for at in range(0, len(line), length)]
    notes = [_cut_note(lines, pieces, length, name)]
    if blocks:
        rest = len(pieces[-1][1]) % length
        pieces = pieces[:-1] if rest else pieces
        notes = [f"{name}: the last {rest} of {len(lines[0]):,} symbols make no block, and are left out"]
        notes = notes if rest else []
    if not pieces:
        raise DataError(
            f"{name}: {len(lines[0])} symbols, less than one block; use data.length={len(lines[0])} or less"
        )
    characters = None if options.symbols == "bytes" else _characters([piece for _, piece in pieces])
    alphabet = Alphabet(characters, end=not blocks)
    x = _padded([piece for _, piece in pieces], alphabet, length, name, options)
    found = Dataset(
        torch.from_numpy(x), name=name, kind="text", levels=alphabet.size, alphabet=alphabet,
        sequential=sequential, notes=tuple(note for note in notes if note),
    )  # fmt: skip
    return found, torch.tensor([i for i, _ in pieces])


def _cut_note(lines: list[np.ndarray], pieces: list[tuple[int, np.ndarray]], length: int, name: str) -> str:
    cut = sum(len(line) > length for line in lines)
    if not cut:
        return ""
    more = len(pieces) - len(lines) + cut
    return f"{name}: {cut:,} of {len(lines):,} lines are longer than {length} symbols, cut into {more:,} pieces"


def _characters(pieces: list[np.ndarray]) -> str:
    return np.unique(np.concatenate(pieces)).astype(np.uint32).tobytes().decode("utf-32-le")


def _padded(pieces: list[np.ndarray], alphabet: Alphabet, length: int, name: str, options: DataOptions) -> np.ndarray:
    """Symbols (N, length), END after each piece, in the smallest type that holds them."""
    kind = np.uint8 if alphabet.size <= 256 else np.int16 if alphabet.size <= 2**15 else np.int32
    _refuse_large(len(pieces) * length * np.dtype(kind).itemsize, name, options)
    x = np.full((len(pieces), length), alphabet.size - 1, kind)
    filled = np.arange(length) < np.array([len(piece) for piece in pieces])[:, None]
    units = np.concatenate(pieces)
    if alphabet.characters is not None:
        known = np.frombuffer(alphabet.characters.encode("utf-32-le"), np.uint32)
        units = np.searchsorted(known, units)
    x[filled] = units
    return x


def _refuse_large(size: int, name: str, options: DataOptions) -> None:
    if size > options.budget:
        raise DataError(
            f"{name}: {size / 2**20:.0f} MiB as symbols, more than data.memory={options.memory}; raise that"
        )


def recoded(dataset: Dataset, alphabet: Alphabet, name: str) -> Tensor:
    """The examples in the training set's symbols.

    Raises:
        DataError: bytes for characters or the reverse, examples with and without END, or a character never trained on.
    """
    own, x = dataset.alphabet, dataset.x
    assert isinstance(x, Tensor)
    if own is None or own == alphabet:
        return x
    if (own.characters is None) != (alphabet.characters is None) or own.end != alphabet.end:
        raise DataError(
            f"{name}: {_words(own)}, and the model was trained on {_words(alphabet)}; set data.symbols and "
            "data.examples as in training"
        )
    table = [(alphabet.characters or "").find(c) for c in own.characters or ""]
    table += [alphabet.size - 1] if own.end else []
    found = torch.tensor(table)[x.long()]
    if bool((found < 0).any()):
        _refuse_unknown(dataset, found < 0, alphabet, name)
    return found.to(torch.uint8 if alphabet.size <= 256 else torch.int32)


def _refuse_unknown(dataset: Dataset, unknown: Tensor, alphabet: Alphabet, name: str) -> None:
    own = dataset.alphabet
    assert own is not None
    assert own.characters is not None
    row, at = unknown.nonzero()[0].tolist()
    character = own.characters[int(dataset.x[row, at])]
    text = own.decode(dataset.x[row : row + 1])[0]
    raise DataError(
        f"{name}: {int(unknown.sum())} symbols are not among the {alphabet.size - alphabet.end} characters of the "
        f"training set, first {character!r} (U+{ord(character):04X}) in example {row} at symbol {at}, {text[:40]!r}; "
        "replace them, or train on bytes (data.symbols=bytes)"
    )


def _words(alphabet: Alphabet) -> str:
    return f"{'bytes' if alphabet.characters is None else 'characters'} {'with' if alphabet.end else 'without'} END"
