"""Text as symbols: what goes in comes out, nothing is lost in between, and what can't be read is refused by name."""

# ruff: noqa: E501 (the table has a row a line)

import tomllib

import numpy as np
import pytest
import torch

import lambent.data.readers.text as text_module
from lambent.data import Alphabet, DataOptions, Transform, from_arrays, from_texts, load, split_off, training_sets
from lambent.data.support import binary, strings
from lambent.errors import ConfigError, DataError
from lambent.storage.toml import to_toml

VERSE = "Zwei Boote — ”naïve”\n\n  kaï\tx\r\nlast, without a newline: \U0001f600"
RNG = np.random.default_rng(0)


def written(folder, content, name="a.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def of(folder, content, **options):
    return load(written(folder, content), options=DataOptions(**options))


def glued(data):
    """The text of each example without its END, and all of them."""
    return data.alphabet.decode(data.x)


@pytest.mark.parametrize("symbols", ["bytes", "characters"])
@pytest.mark.parametrize("length", [2, 7, 200])
def test_lines_come_back_as_they_were_whatever_the_length(tmp_path, symbols, length):
    data = of(tmp_path, VERSE, symbols=symbols, length=length)
    end, counts = data.alphabet.size - 1, (data.x.long() != data.alphabet.size - 1).sum(1)
    assert data.alphabet.end
    assert data.event_shape == (length,)
    lines = [line for line in VERSE.replace("\r\n", "\n").split("\n") if line]
    if symbols == "characters":
        assert "".join(glued(data)) == "".join(lines)
    raw = b"".join(
        bytes(row[:n].tolist())
        if symbols == "bytes"
        else Alphabet(data.alphabet.characters).decode(row[None, :n])[0].encode()
        for row, n in zip(data.x, counts.tolist(), strict=True)
    )
    assert raw == "".join(lines).encode()
    assert all(
        bool((row[n:] == end).all()) and bool((row[:n] != end).all()) for row, n in zip(data.x, counts, strict=True)
    )


def pieces_of(line, length):
    """By a loop that knows nothing of arrays."""
    found, piece = [], []
    for symbol in line:
        piece.append(symbol)
        if len(piece) == length:
            found.append(piece)
            piece = []
    return found + ([piece] if piece else [])


def naive(raw, length):
    lines = [line.removesuffix(b"\r") for line in raw.split(b"\n")[:-1]] + [raw.split(b"\n")[-1]]
    rows = [piece for line in lines for piece in pieces_of(line, length)]
    return torch.tensor([piece + [256] * (length - len(piece)) for piece in rows])


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_lines_of_random_bytes_are_cut_as_by_a_loop(tmp_path, length):
    raw = bytes(RNG.choice([10, 13, 0, 97, 255, 200], 400).tolist())
    data = of(tmp_path, b"abc\n" + raw, length=length)
    torch.testing.assert_close(data.x.long(), naive(b"abc\n" + raw, length))
    assert data.x.dtype == torch.int16


def test_what_was_cut_is_reported(tmp_path):
    cut = of(tmp_path, "abcdefg\nab\nabcd\nabcde\n", length=4).notes
    assert cut == (f"{tmp_path}/a.txt: 2 of 4 lines are longer than 4 symbols, cut into 4 pieces",)
    assert of(tmp_path, "abcd\nab\n", length=4).notes == ()
    left = of(tmp_path, "abcdefg", length=3, examples="blocks")
    assert left.notes == (f"{tmp_path}/a.txt: the last 1 of 7 symbols make no block, and are left out",)
    assert glued(left) == ["abc", "def"]


def test_a_line_of_exactly_the_length_needs_no_end_and_an_empty_line_is_none(tmp_path):
    data = of(tmp_path, "\n\nabcd\n\r\nabc\n", length=4, symbols="characters")
    assert data.x.tolist() == [[0, 1, 2, 3], [0, 1, 2, 4]]


@pytest.mark.parametrize("symbols", ["bytes", "characters"])
def test_blocks_are_the_text_itself_newlines_and_all(tmp_path, symbols):
    raw = VERSE * 3
    data = of(tmp_path, raw, symbols=symbols, examples="blocks", length=5)
    whole = raw.encode() if symbols == "bytes" else raw
    assert not data.alphabet.end
    found = bytes(data.x.flatten().tolist()) if symbols == "bytes" else "".join(glued(data))
    assert found == whole[: len(whole) // 5 * 5]


def test_bytes_that_are_no_utf8_are_shown_as_such_and_kept(tmp_path):
    data = of(tmp_path, b"\xff\xfea\n", length=4)
    assert glued(data) == ["\ufffd\ufffda"]
    assert data.x.tolist() == [[255, 254, 97, 256]]


def test_a_byte_order_mark_is_no_character(tmp_path):
    assert glued(of(tmp_path, "\ufeffab", symbols="characters")) == ["ab"]


def test_the_end_of_a_file_is_held_out_and_of_strings_a_random_part(tmp_path):
    path = written(tmp_path, "".join(f"{i:03}\n" for i in range(100)))
    train, valid = training_sets(path, options=DataOptions(valid_fraction=0.1))
    assert glued(valid) == [f"{i:03}" for i in range(90, 100)]
    assert glued(train) == [f"{i:03}" for i in range(90)]
    drawn = split_off(from_texts([f"{i:03}" for i in range(100)])[0], 0.1, 0)[1]
    assert len(drawn) == 10
    assert glued(drawn) != [f"{i:03}" for i in range(90, 100)]


def fitted(data, **options):
    return Transform.fit(data, DataOptions(**options))


@pytest.mark.parametrize("symbols", ["bytes", "characters"])
def test_the_alphabet_is_part_of_the_record_and_read_back_exactly(tmp_path, symbols):
    text = "a\"b\\c'd\té\u2028\u0085\U0001f600\x07\x7f#= \n"
    data = of(tmp_path, text, symbols=symbols, examples="blocks", length=2)
    transform = fitted(data, symbols=symbols)
    assert Transform.from_dict(tomllib.loads(to_toml(transform.to_dict()))) == transform
    assert transform.shapes(3).levels == (256 if symbols == "bytes" else len(set(text[: len(text) // 2 * 2])))
    assert transform.view(data, fixed=False).batch(torch.arange(2)).dtype == torch.float32


def test_other_text_is_read_in_the_training_sets_characters(tmp_path):
    options = {"symbols": "characters", "length": 4}
    train, other = of(tmp_path, "dcba\n", **options), of(tmp_path, "bd\nca\n", **options)
    assert other.alphabet == Alphabet("abcd", end=True)
    few = of(tmp_path, "db\n", **options)
    seen = fitted(train, **options).align(few)
    assert few.x.tolist() == [[1, 0, 2, 2]]  # its own alphabet is b, d
    assert seen.x.tolist() == [[3, 1, 4, 4]]
    assert glued(seen) == ["db"]


def test_a_column_gives_its_cells_with_their_labels(tmp_path):
    rows = 'kind,said,n\nx,"one, ""two""\nthree",1\ny,  NA ,2\nx,héé,3\n'
    data = load(
        written(tmp_path, rows, "a.csv"), options=DataOptions(text="said", labels="kind", condition="n", length=8)
    )
    assert data.classes == ("x", "y")
    assert glued(data) == ['one, "tw', 'o"\nthree', "  NA ", "héé"]
    assert data.labels.tolist() == [0, 0, 1, 0]
    assert data.condition.tolist() == [[1.0], [1.0], [2.0], [3.0]]


def test_a_column_of_a_parquet_file(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"said": ["to be", "or"], "n": [1, 2]}), path)
    assert glued(load(str(path), options=DataOptions(text="said"))) == ["to be", "or"]
    with pytest.raises(DataError, match=r"column 'n' holds numbers, expected text \(data.text\)"):
        load(str(path), options=DataOptions(text="n"))


def read(content, support=None, name="a.txt", **options):
    """A row of the table: what is done before the first step."""

    def row(folder):
        asked = DataOptions(**options)
        data = load(written(folder, content, name), options=asked)
        Transform.fit(data, asked).view(data, fixed=False).check(support or strings(data.levels, end=data.alphabet.end))

    return row


def evaluated(trained, other, **options):
    def row(folder):
        train = load(written(folder, trained), options=DataOptions(**options))
        Transform.fit(train, DataOptions(**options)).align(
            load(written(folder, other, "b.txt"), options=DataOptions(**options))
        )

    return row


def folder_named_txt(folder):
    (folder / "a.txt").mkdir()
    load(str(folder / "a.txt"))


def other_options(folder):
    train = of(folder, "abc\nb\n", length=4)
    fitted(train, length=4).align(of(folder, "abc\nb\n", length=4, symbols="characters"))


def other_length(folder):
    fitted(of(folder, "abc\nb\n", length=4), length=4).align(of(folder, "abc\n", length=5))


def array_of(values):
    return lambda folder: strings(4, end=True).check(from_arrays(np.array(values, np.uint8)), "x")


CSV = "said,n\nabc,1\nde,2\n"
BAD = {
    "empty file": (read(""), DataError, "a.txt is empty (0 bytes)"),
    "empty lines only": (read("\n\r\n\n"), DataError, "holds nothing but empty lines"),
    "missing": (lambda f: load(str(f / "b.txt")), DataError, "b.txt: no such file"),
    "a folder": (folder_named_txt, DataError, "is an empty folder"),
    "an image": (read(b"\x89PNG\r\n\x1a\n rest"), DataError, "its content is an image, expected text"),
    "a zip": (read(b"\x93NUMPY\1\0"), DataError, "its content is .npy, expected text"),
    "a pickle": (read(b"\x80\x04\x95ab"), DataError, "holds a Python pickle"),
    "no utf-8": (read(b"ab\ncd\xff\n", symbols="characters"), DataError, "not UTF-8 text (invalid start byte at byte 5)"),
    "a NUL": (read("ab\0c", symbols="characters"), DataError, "a NUL at byte 2|data.symbols=bytes"),
    "less than a block": (read("abc", examples="blocks", length=4), DataError, "3 symbols, less than one block|length=3"),
    "a column of a file": (read("abc", text="said"), ConfigError, "data.text names columns of a table"),
    "binarised": (read("abc", binarize="static"), ConfigError, "data.binarize=static is for numbers|is text"),
    "scaled": (read("abc", scale="unit"), ConfigError, "data.scale=unit is for numbers"),
    "levels": (read("abc", grey_levels=4), ConfigError, "data.grey_levels=4 is for numbers"),
    "labels of a file": (read("abc", condition="labels"), DataError, "has no labels for data.condition=labels"),
    "scored by coins": (read("abc", binary()), DataError, "is text, expected values in {0, 1}; use likelihood=text"),
    "too large": (read("a\n" * 9000, length=200, memory=1), DataError, "3 MiB as symbols, more than data.memory=1"),
    "another suffix": (read("abc", name="a.md"), DataError, "text content under suffix '.md'|.txt"),
    "unknown character": (
        evaluated("abc\ncab\n", "ab\nbéa\n", symbols="characters", length=4),
        DataError,
        "b.txt: 1 symbols are not among the 3 characters of the training set, first 'é' (U+00E9) in example 1 at "
        "symbol 1, 'béa'",
    ),
    "bytes for characters": (other_options, DataError, "characters with END, and the model was trained on bytes with END"),
    "another length": (other_length, DataError, "expected examples of shape (4), got (5); set data.length=4"),
    "a symbol after END": (array_of([[0, 1, 3, 3], [0, 3, 2, 3]]), DataError, "1 symbols after END, which is 3, first at x[1,2]"),
    "a symbol too many": (array_of([[0, 1, 4, 3]]), DataError, "x: values 0..4 outside {0..3}"),
    "no such column": (read(CSV, name="a.csv", text="sad"), DataError, "no column 'sad' (data.text); did you mean 'said'?"),
    "blocks of a column": (read(CSV, name="a.csv", text="said", examples="blocks"), ConfigError, "data.examples=blocks cuts"),
    "an empty cell": (
        read('said\n"ab"\n""\n', name="a.csv", text="said"), DataError, "1 of 2 texts are empty, first line 3"
    ),
    "kinds of columns": (read(CSV, name="a.csv", text="said", drop=("n",)), ConfigError, "data.drop beside data.text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_refused_before_the_first_step(name, tmp_path):
    run, error, words = BAD[name]
    with pytest.raises(error) as raised:
        run(tmp_path)
    for fragment in words.split("|"):
        assert fragment in str(raised.value)
    assert "\n" not in str(raised.value)


def test_symbols_outside_the_alphabet_are_not_shown_as_something_else():
    with pytest.raises(DataError, match=r"symbols 0\.\.3 outside \{0\.\.2\}"):
        Alphabet("abc").decode(np.array([[0, 3]]))


def off_by_one(lines, options, name, *, sequential):
    short = DataOptions(**{**vars(options), "length": options.length - 1})
    found, rows = REAL(lines, short, name, sequential=sequential)
    return found, rows


REAL = text_module._dataset


def keeps_returns(units):
    return [line for line in np.split(units, np.flatnonzero(units == 10) + 1) if line.size]


@pytest.mark.parametrize(
    ("place", "fault"), [("_dataset", off_by_one), ("_lines", keeps_returns)], ids=["cut one early", "newline kept"]
)
def test_the_loop_above_catches_wrong_cuts(tmp_path, monkeypatch, place, fault):
    monkeypatch.setattr(text_module, place, fault)
    with pytest.raises(AssertionError):
        test_lines_of_random_bytes_are_cut_as_by_a_loop(tmp_path, 5)
