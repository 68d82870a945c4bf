"""What the command line writes of a run: samples, reconstructions, encodings, interpolations.

Numbers go to ``.npz`` in the data's own unit (integers where the data are such), images to a ``.png`` sheet too, and
samples of a table to ``.csv``, texts to ``.txt``, one a line, newlines and other controls escaped.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lambent.data import Dataset, View
from lambent.data.pictures import is_picture, png, sheet, to_bytes
from lambent.data.sources import Source, dataset_of
from lambent.data.view import CHUNK
from lambent.errors import ConfigError
from lambent.models.diffusion.model import ancestral
from lambent.networks.base import optional_hook
from lambent.runs.run import Run
from lambent.seeds import derive
from lambent.storage.files import write_out
from lambent.storage.text_lines import page_of

MOST = 1_000_000
"""Examples in one file."""
MOST_BYTES = 4 * 2**30
MOST_CELLS = 10_000
"""Images on one sheet."""
MOST_PIXELS = 100_000_000
Visit = tuple[int | None, float | None]
"""How many levels a sample of a diffusion visits, and with how much noise."""


def write_samples(
    run: Run,
    number: int,
    out: str | Path,
    *,
    seed: int = 0,
    label: str | None = None,
    mean: bool = False,
    steps: int | None = None,
    noise: float | None = None,
) -> None:
    """Draws ``number`` examples from the model and writes them.

    ``.npz`` holds ``x`` (and ``labels`` with ``classes`` for a model conditioned on classes), ``.png`` a sheet of
    images with a column a class, ``.csv`` a table with its column and category names, ``.txt`` a text a line.

    Args:
        run: A run whose prior can be sampled.
        number: How many.
        out: Where to.
        seed: Of the draws; the first examples of a longer file are those of a shorter one.
        label: The class, for conditional models; all in turn without it.
        mean: The mean of p(x|z) (the most probable category or symbol) instead of a draw.
        steps: Levels of a diffusion that are visited.
        noise: Share of a diffusion's noise added at each.

    Raises:
        ConfigError: a number, label or kind of file that can't be used, a flat prior, or steps without levels.
        StorageError: the file can't be written.

    >>> import tempfile
    >>> from lambent.runs.fit import fit
    >>> run = fit("vae", "digits", latent=2, epochs=1, quiet=True)
    >>> path = Path(tempfile.mkdtemp()) / "samples.npz"
    >>> write_samples(run, 5, path)
    >>> with np.load(path) as file:
    ...     print(file["x"].shape, file["x"].dtype)
    (5, 1, 8, 8) uint8
    """
    path = _checked(run, Path(out), (".npz", ".png", ".csv", ".txt"))
    _check_number(run, number, path, "number")
    condition = run.conditions(number, label)
    parts = []
    for start, stop in _stretches(number):
        own, given = seed if start == 0 else derive(seed, "sample chunk", start), _rows(condition, start, stop)
        parts.append(_draw(run, stop - start, own, given, mean=mean, visit=(steps, noise)))
    x = torch.cat(parts)
    if path.suffix.lower() == ".csv":
        write_out(path, _csv(run, x))
    elif path.suffix.lower() == ".txt":
        write_out(path, page_of([[text] for text in _read(run, x)]))
    elif path.suffix.lower() == ".png":
        columns = _columns(number) if condition is None or label is not None else len(run.classes)
        write_out(path, png(sheet(to_bytes(x, run.transform), min(number, columns))))
    else:
        _write_npz(path, x=_own_unit(run, x, whole=not mean), **_classes(run, condition))


def write_reconstructions(
    run: Run, data: Source, out: str | Path, *, number: int | None = None, split: str = "test"
) -> None:
    """Encodes data (the posterior's mode), decodes the codes (the mean of p(x|z)) and writes both.

    ``.npz`` holds ``original`` (binarised where the model scores binary data), ``reconstruction``, ``z`` (integers for
    indices of codes) and, if there are any, ``labels`` with ``classes``; ``.png`` and ``.txt`` show each example above
    its reconstruction.

    Args:
        run: A run.
        data: A source's name, an array or a data set.
        out: Where to.
        number: At most this number of examples, the first ones.
        split: Of a source that has several.

    Raises:
        ConfigError: a number or kind of file that can't be used.
        DataError: data that the model can't score.
        StorageError: the file can't be written.
    """
    path = _checked(run, Path(out), (".npz", ".png", ".txt"))
    view = _view(run, data, split, number)
    _check_number(run, 2 * len(view), path, "twice the examples")
    original, condition = _examples(view)
    z = run.encode(view)
    decoded = torch.cat([_central(run, z[a:b], _rows(condition, a, b)) for a, b in _stretches(len(z))])
    if path.suffix.lower() == ".txt":
        write_out(path, page_of(list(zip(_read(run, original), _read(run, decoded), strict=True))))
        return
    if path.suffix.lower() == ".png":
        columns = min(len(view), 20)
        pairs = [_padded(to_bytes(part, run.transform), columns) for part in (original, decoded)]
        woven = np.stack([p.reshape(-1, columns, *p.shape[1:]) for p in pairs], 1)
        write_out(path, png(sheet(woven.reshape(-1, *pairs[0].shape[1:]), columns, group=2)))
        return
    values = {
        "original": _own_unit(run, original, whole=True),
        "reconstruction": _own_unit(run, decoded, whole=_is_text(run)),
    }
    _write_npz(path, **values, z=_latents(run, z), **_labels(view.dataset))


def write_encodings(run: Run, data: Source, out: str | Path, *, seed: int | None = None, split: str = "test") -> None:
    """Writes latents of data as ``z`` (N, latent) in an ``.npz``, with ``labels`` and ``classes`` if there are any.

    Of a model of codes these are indices, as integers, all levels side by side, the lowest first.

    Args:
        run: A run.
        data: A source's name, an array or a data set.
        out: Where to.
        seed: Draws of q(z|x); None gives its mode.
        split: Of a source that has several.

    Raises:
        ConfigError: not an ``.npz``.
        DataError: data that the model can't score.
        StorageError: the file can't be written.
    """
    path = _checked(run, Path(out), (".npz",))
    view = _view(run, data, split, None)
    _write_npz(path, z=_latents(run, run.encode(view, seed=seed)), **_labels(view.dataset))


def write_interpolations(
    run: Run, data: Source, out: str | Path, *, pairs: int = 8, steps: int = 10, split: str = "test"
) -> None:
    """Decodes points on straight lines between the encodings of examples 0 and 1, 2 and 3, and so on.

    On a sphere the lines are brought to it, where they are parts of great circles.

    ``.npz`` holds ``x`` (pairs, steps, *event), ``z`` (pairs, steps, latent) and ``ends`` (pairs, 2, *event); ``.png``
    has a row a pair, its ends outside, ``.txt`` a block of lines a pair. A conditional model keeps the condition of the
    pair's first example.

    Args:
        run: A run with continuous latents.
        data: A source's name, an array or a data set.
        out: Where to.
        pairs: How many.
        steps: Points on a line, its ends included.
        split: Of a source that has several.

    Raises:
        ConfigError: numbers or a kind of file that can't be used, or discrete latents.
        DataError: data that the model can't score, or too few.
        StorageError: the file can't be written.
    """
    path = _checked(run, Path(out), (".npz", ".png", ".txt"))
    run.require_lines()
    if pairs < 1 or steps < 2:
        raise ConfigError(f"pairs={pairs}, steps={steps}: expected at least 1 pair and 2 steps")
    _check_number(run, pairs * (steps + 2), path, "pairs × (steps + 2)")
    view = _view(run, data, split, 2 * pairs)
    ends, condition = _examples(view)
    codes = run.encode(view)
    z = run.between(codes[0::2], codes[1::2], steps)
    given = None if condition is None else condition[0::2].repeat_interleave(steps, 0)
    flat = z.flatten(0, 1)
    x = torch.cat([_central(run, flat[a:b], _rows(given, a, b)) for a, b in _stretches(len(flat))])
    x, ends = x.unflatten(0, (pairs, steps)), ends.unflatten(0, (pairs, 2))
    if path.suffix.lower() == ".txt":
        rows = torch.cat([ends[:, :1], x.to(ends.dtype), ends[:, 1:]], 1)
        write_out(path, page_of([_read(run, row) for row in rows]))
        return
    if path.suffix.lower() == ".png":
        cells = torch.cat([ends[:, :1].float(), x, ends[:, 1:].float()], 1).flatten(0, 1)
        write_out(path, png(sheet(to_bytes(cells, run.transform), steps + 2)))
        return
    own = _own_unit(run, ends.flatten(0, 1), whole=True).reshape(ends.shape)
    _write_npz(path, x=_own_unit(run, x.flatten(0, 1), whole=_is_text(run)).reshape(x.shape), z=z.numpy(), ends=own)


def _checked(run: Run, path: Path, kinds: tuple[str, ...]) -> Path:
    """``path`` if its suffix is one that fits what is written and the run's data."""
    kind = path.suffix.lower()
    shown = tuple(k for k in kinds if k != ".csv" or run.transform.columns)
    shown = tuple(k for k in shown if k != ".txt" or _is_text(run))
    shown = tuple(k for k in shown if k != ".png" or is_picture(run.transform))
    if kind in shown and not path.is_dir():
        return path
    if kind == ".png" and ".png" in kinds:
        raise ConfigError(
            f"{path}: examples of shape {run.transform.event} are no images of 1 or 3 channels; "
            f"write {' or '.join(shown)}"
        )
    if kind in (".csv", ".txt") and kind in kinds:
        of = "table" if kind == ".csv" else "text"
        raise ConfigError(f"{path}: this run's data are no {of}; write {' or '.join(shown)}")
    what = "a folder" if path.is_dir() else f"suffix {path.suffix!r}" if path.suffix else "no suffix"
    known = tuple(k for k in kinds if k != ".txt" or _is_text(run))
    usual = ", ".join(known[:-1]) + f" or {known[-1]}" if len(known) > 1 else known[0]
    raise ConfigError(f"{path}: {what}, expected a file name that ends in {usual}")


def _check_number(run: Run, number: int, path: Path, what: str) -> None:
    """Refuses nothing, and what would not fit a file, a sheet or the memory."""
    if number < 1:
        raise ConfigError(f"{what}={number}: expected at least 1")
    size = number * math.prod(run.transform.event) * 4
    if number > MOST or size > MOST_BYTES:
        most = min(MOST, MOST_BYTES // (4 * math.prod(run.transform.event)))
        raise ConfigError(
            f"{what}={number:,}: at most {most:,} of this shape fit one file; write several, by seed or part"
        )
    pixels = number * math.prod(run.transform.event[-2:])
    if path.suffix.lower() == ".png" and (number > MOST_CELLS or pixels > MOST_PIXELS):
        raise ConfigError(f"{what}={number:,}: too many images for one sheet (at most {MOST_CELLS:,}); write .npz")


def _stretches(n: int) -> list[tuple[int, int]]:
    return [(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def _rows(values: Tensor | None, start: int, stop: int) -> Tensor | None:
    return None if values is None else values[start:stop]


def _view(run: Run, data: Source, split: str, number: int | None) -> View:
    """The first ``number`` examples (all without it) as the model scores them."""
    dataset = dataset_of(data, run.config.data, split)
    if number is not None and not 1 <= number <= len(dataset):
        raise ConfigError(
            f"{number} examples asked for: {dataset.name} has {len(dataset):,}; expected 1 to {len(dataset):,}"
        )
    return run.prepare(dataset if number is None else dataset.head(number), split)


def _examples(view: View) -> tuple[Tensor, Tensor | None]:
    rows = torch.arange(len(view))
    condition = view.condition(rows)
    return view.batch(rows).cpu(), None if condition is None else condition.cpu()


@torch.inference_mode()
def _draw(run: Run, n: int, seed: int, condition: Tensor | None, *, mean: bool, visit: Visit) -> Tensor:
    """As `Run.sample`, but the mean of a category is its most probable one."""
    if not mean or not _categorical(run):
        return run.sample(n, seed=seed, condition=condition, mean=mean, steps=visit[0], noise=visit[1])
    generator = torch.Generator(run.device).manual_seed(derive(seed, "sample"))
    given = None if condition is None else condition.to(run.device)
    return _centre(run, run.model(None, ancestral(run.model, n, generator, *visit), given).px)


@torch.inference_mode()
def _central(run: Run, z: Tensor, condition: Tensor | None) -> Tensor:
    """The mean of p(x|z), and of categorical columns the most probable category."""
    if not _categorical(run):
        return run.decode(z, condition)
    given = None if condition is None else condition.to(run.device)
    return _centre(run, run.model.decode(z.to(run.device).unsqueeze(0), given))


def _centre(run: Run, px: torch.distributions.Distribution) -> Tensor:
    found = px.mean[0].cpu().clone()
    found[:, _categorical(run)] = px.mode[0].cpu()[:, _categorical(run)].to(found.dtype)
    return found


def _categorical(run: Run) -> list[int]:
    return [i for i, column in enumerate(run.transform.columns) if column.kind == "categorical"]


def _own_unit(run: Run, x: Tensor, *, whole: bool) -> np.ndarray:
    """Examples in the data's own unit: with ``whole``, integers where the likelihood scores such."""
    support = optional_hook(run.model.likelihood, "support")
    if whole and support is not None and all(b.integer for b in support.bounds) and not run.transform.divisor:
        integers = x.round().long().numpy()
        small = integers.size and integers.min() >= 0 and integers.max() < 256
        return integers.astype(np.uint8) if small else integers
    if not run.transform.divisor:
        return x.float().numpy()
    return run.transform.invert(x.double()).float().numpy()


def _latents(run: Run, z: Tensor) -> np.ndarray:
    """Latents as they are, and indices of codes as integers."""
    return z.long().numpy() if run.config.latent_kind == "codes" else z.numpy()


def _is_text(run: Run) -> bool:
    return run.transform.alphabet is not None


def _read(run: Run, x: Tensor) -> list[str]:
    """The symbols decoded as text."""
    assert run.transform.alphabet is not None
    return run.transform.alphabet.decode(x)


def _classes(run: Run, condition: Tensor | None) -> dict[str, np.ndarray]:
    if condition is None or run.transform.condition != "labels":
        return {}
    return {"labels": condition.argmax(1).numpy(), "classes": np.array(run.classes)}


def _labels(dataset: Dataset) -> dict[str, np.ndarray]:
    if dataset.labels is None:
        return {}
    return {"labels": dataset.labels.cpu().numpy(), "classes": np.array(dataset.classes)}


def _csv(run: Run, x: Tensor) -> bytes:
    """Rows under the table's own column names, codes as the names of their categories, counts as integers.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    transform = run.transform
    values = transform.invert(x.double()).numpy()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_text(column.name) for column in transform.columns])
    for row in values:
        writer.writerow([_cell(run, i, value) for i, value in enumerate(row)])
    return buffer.getvalue().encode()


def _cell(run: Run, i: int, value: float) -> str:
    kind = run.transform.columns[i].kind
    if kind == "categorical":
        return _text(run.transform.categories[i][round(value)])
    return str(round(value)) if kind == "count" and value == round(value) else f"{value:.7g}"


def _text(cell: str) -> str:
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _columns(number: int) -> int:
    return math.ceil(math.sqrt(number))


def _padded(cells: np.ndarray, columns: int) -> np.ndarray:
    """As many white images more as fill the last row."""
    missing = -len(cells) % columns
    return np.concatenate([cells, np.full((missing, *cells.shape[1:]), 255, np.uint8)])


def _write_npz(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_out(path, buffer.getvalue())
