"""Models of text from the file to the page: trained, measured per symbol, written and shown as text."""

import json
import math
import random
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lambent import fit, load
from lambent.cli.app import run as command
from lambent.data import DataOptions, from_texts
from lambent.errors import CombinationError, ConfigError, DataError
from lambent.evaluation import evaluate as facts
from lambent.recipes import configure
from lambent.report import write_report
from lambent.runs.export import write_encodings, write_interpolations, write_reconstructions, write_samples
from lambent.storage.text_lines import escaped, unescaped

SMALL = {"decoder__hidden_dim": 12, "decoder__embedding": 4, "threads": 1}
BOTH = SMALL | {"encoder__hidden_dim": 12, "encoder__embedding": 4, "latent": 3}
LENGTH = 12


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Lines of 0 to 20 symbols, some of them markup, a backslash, a tab."""
    noise = random.Random(0)
    marks = ["<b>", "é", "&amp;", "\\n", "\t", "a", "b", "<script>x()</script>"]
    lines = ["".join(noise.choices(marks, k=noise.randrange(6)))[:20] for _ in range(150)]
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return path


def train(recipe, file, folder, **settings):
    given = {"epochs": 1, "data__length": LENGTH, **settings}
    return fit(recipe, file, out=folder / "run", quiet=True, **given)


@pytest.fixture(scope="module")
def sentences(file, tmp_path_factory):
    run = train("sentence-vae", file, tmp_path_factory.mktemp("s"), **BOTH)
    run.record(run.evaluate(samples=3))
    return run


@pytest.fixture(scope="module")
def blocks(file, tmp_path_factory):
    return train("char-lm", file, tmp_path_factory.mktemp("b"), **SMALL)


@pytest.fixture(scope="module")
def independent(file, tmp_path_factory):
    """Positions independent given z, over characters."""
    settings = {
        "likelihood": "text",
        "data__binarize": "none",
        "data__symbols": "characters",
        "latent": 2,
        "threads": 1,
    }
    sizes = {"encoder__hidden": (8,), "decoder__hidden": (8,)}
    return train("vae", file, tmp_path_factory.mktemp("i"), **settings, **sizes)


ALL = ["sentences", "blocks", "independent"]


@pytest.fixture
def run(request):
    return request.getfixturevalue(request.param)


each = pytest.mark.parametrize("run", ALL, indirect=True)


@each
def test_a_run_comes_back_with_its_alphabet_and_its_numbers(run):
    again = load(run.folder.path)
    assert again.transform == run.transform
    assert again.evaluate(samples=2).to_dict() == run.evaluate(samples=2).to_dict()


def counted(run, view):
    """Symbols of each example by a loop."""
    alphabet, counts = run.transform.alphabet, []
    for row in view.dataset.x.tolist():
        closed = alphabet.end and alphabet.size - 1 in row
        counts.append(row.index(alphabet.size - 1) + 1 if closed else len(row))
    return counts


@each
def test_bits_per_symbol_are_all_bits_over_all_symbols(run):
    found, view = run.evaluate(samples=3), run.prepare()
    counts = counted(run, view)
    assert len(counts) == found.n == len(view)
    nats = -found.best[1].value * found.n
    assert found.bits_per_dim == pytest.approx(nats / math.log(2) / sum(counts), rel=1e-12)
    assert found.to_dict()["symbols"] == pytest.approx(sum(counts) / found.n)
    text = str(found)
    assert f"bits/symbol      {found.bits_per_dim:.5f}" in text
    assert "bits/dim" not in text


def test_a_density_is_scored_exactly(blocks):
    found, view = blocks.evaluate(), blocks.prepare()
    with torch.inference_mode():
        x = view.batch(torch.arange(len(view)))
        values = blocks.model.log_prob(x)
    bits = -values.double() / math.log(2)
    assert found.log_likelihood.kind == "exact"
    assert found.bits_per_dim == pytest.approx(bits.mean().item() / LENGTH)
    assert found.to_dict()["bits_per_dim_se"] == pytest.approx(bits.std().item() / math.sqrt(len(bits)) / LENGTH)


@pytest.mark.parametrize(
    "fault", [lambda run, view: None, lambda run, view: torch.full((len(view),), LENGTH)], ids=["none", "padding too"]
)
def test_the_loop_catches_a_wrong_denominator(sentences, monkeypatch, fault):
    monkeypatch.setattr(facts, "_symbol_counts", fault)
    with pytest.raises((AssertionError, TypeError)):
        test_bits_per_symbol_are_all_bits_over_all_symbols(sentences)


def lines_of(path):
    raw = path.read_bytes().decode()
    assert raw.endswith("\n")
    assert "\r" not in raw
    return raw[:-1].split("\n")


@each
def test_samples_are_a_text_a_line(run, tmp_path):
    write_samples(run, 30, tmp_path / "s.txt", seed=4)
    drawn = run.sample(30, seed=4)
    assert [unescaped(line) for line in lines_of(tmp_path / "s.txt")] == run.transform.alphabet.decode(drawn)
    write_samples(run, 30, tmp_path / "s.npz", seed=4)
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["x"].dtype.kind in "iu"
        np.testing.assert_array_equal(arrays["x"], drawn.numpy())
    run.model.likelihood.support.check(drawn)


@pytest.mark.parametrize("run", ["sentences", "independent"], indirect=True)
def test_reconstructions_are_pairs_of_lines(run, file, tmp_path):
    write_reconstructions(run, str(file), tmp_path / "r.txt", number=9)
    found = lines_of(tmp_path / "r.txt")
    read = run.transform.alphabet.decode
    view = run.prepare(run.prepare(str(file)).dataset.head(9))
    assert [unescaped(line) for line in found[0::3]] == read(view.dataset.x)
    assert [unescaped(line) for line in found[1::3]] == read(run.reconstruct(view))
    assert set(found[2::3]) == {""}
    write_reconstructions(run, str(file), tmp_path / "r.npz", number=9)
    with np.load(tmp_path / "r.npz") as arrays:
        assert arrays["reconstruction"].dtype.kind in "iu"


@pytest.mark.parametrize("run", ["sentences", "independent"], indirect=True)
def test_interpolations_are_blocks_of_lines_between_two_examples(run, file, tmp_path):
    write_interpolations(run, str(file), tmp_path / "i.txt", pairs=2, steps=3)
    found, own = lines_of(tmp_path / "i.txt"), run.transform.alphabet.decode(run.prepare(str(file)).dataset.x[:4])
    assert len(found) == 2 * 5 + 1
    assert [unescaped(found[i]) for i in (0, 4, 6, 10)] == own
    assert found[5] == ""


def test_encodings_of_strings_of_ones_own(sentences, tmp_path):
    options = sentences.config.data
    texts, _ = from_texts(["abba", "<b>é</b>"], options=options)
    write_encodings(sentences, texts, tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as arrays:
        assert arrays["z"].shape == (2, 3)


def test_padding_does_not_move_an_encoding(sentences):
    """The encoder stops at END: what stands behind it can't be told."""
    x = sentences.prepare(from_texts(["abba"], options=sentences.config.data)[0]).batch(torch.arange(1))
    with torch.inference_mode():
        seen = sentences.model.as_input(x)
        z = sentences.model.posterior(seen, None).mean
        seen[:, :, 6:] = 0
        torch.testing.assert_close(sentences.model.posterior(seen, None).mean, z)


def test_what_does_not_fit_is_refused(sentences, independent, file, tmp_path):
    with pytest.raises(ConfigError, match="are no images"):
        write_samples(sentences, 3, tmp_path / "s.png")
    with pytest.raises(ConfigError, match=r"this run's data are no table; write \.npz or \.txt"):
        write_samples(sentences, 3, tmp_path / "s.csv")
    digits = fit("ppca", latent=1, epochs=1, quiet=True)
    with pytest.raises(ConfigError, match=r"this run's data are no text; write \.npz or \.png"):
        write_samples(digits, 3, tmp_path / "s.txt")
    other = file.parent / "other.txt"
    other.write_text("aßb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"first 'ß' \(U\+00DF\) in example 0 at symbol 1"):
        independent.evaluate(str(other), samples=1)
    assert sentences.evaluate(str(other), samples=1).n == 1  # bytes know them all
    for recipe, words in (
        ("vae", "is text; use data.binarize=none with likelihood=text"),
        ("sentence-vae", "likelihood=text scores sequences"),
    ):
        data = file if recipe == "vae" else "digits"
        with pytest.raises((ConfigError, DataError), match=words):
            fit(recipe, data, epochs=1, quiet=True)


class Marks(HTMLParser):
    """Tags of a page, and what stands in its blocks of text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.blocks, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "pre":
            self.inside = True
            self.blocks.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        if self.inside:
            self.blocks[-1] += data


@each
def test_the_report_shows_texts_as_text_and_runs_none_of_it(run, tmp_path):
    write_report(run, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    seen = Marks(page)
    assert not {"script", "b", "img"} & set(seen.tags)
    drawn = [escaped(text) for text in run.transform.alphabet.decode(run.sample(20, seed=0))]
    assert seen.blocks[0] == "\n".join(drawn)
    assert "bits/symbol" in page
    assert "bits/dim" not in page
    if run.config.has_latents:
        view = run.prepare()
        originals = [escaped(text) for text in run.transform.alphabet.decode(view.dataset.x[:10])]
        assert seen.blocks[1].split("\n")[0::3] == originals
        assert any("<b>" in line for line in originals)
        assert len(seen.blocks) == 3


def test_escaped_text_is_one_line_that_reads_back():
    noise = random.Random(1)
    pool = [*range(0x20), 0x5C, 0x6E, 0x75, 0x7F, 0x85, 0xAD, 0x2028, 0x202E, 0xFFFD, 0x1F600, 0xE0001, 65, 92, 92]
    for _ in range(3000):
        text = "".join(map(chr, noise.choices(pool, k=noise.randrange(12))))
        line = escaped(text)
        assert unescaped(line) == text
        assert len(line.splitlines()) <= 1
        assert all(c.isprintable() for c in line)


def test_a_text_that_repeats_costs_nothing_once_learnt(tmp_path):
    path = tmp_path / "abcd.txt"
    path.write_text("abcd" * 400)
    run = fit("char-lm", path, steps=60, lr=0.03, data__length=8, validate_every=20, quiet=True, **SMALL)
    assert run.evaluate().bits_per_dim < 0.05
    drawn = run.transform.alphabet.decode(run.sample(20, seed=0))
    assert sum(text == "abcd" * 2 for text in drawn) >= 15


def test_the_recipes_and_what_their_data_may_be():
    assert configure("char-lm").data.examples == "blocks"
    assert configure("char-lm", tokens=("decoder=transformer",)).data.length == 128
    assert configure("sentence-vae").encoder.end == -1
    with pytest.raises(CombinationError, match=r"encoder.end=-1 with data.examples=blocks: .* use encoder.end=none"):
        configure("sentence-vae", tokens=("examples=blocks",))
    assert configure("sentence-vae", tokens=("examples=blocks", "encoder.end=none")).encoder.end is None
    with pytest.raises(ConfigError, match=r"data.length=1 is out of range, expected at least 2"):
        configure("char-lm", tokens=("length=1",))
    assert DataOptions().symbols == "bytes"


def test_the_command_line_writes_text(blocks, tmp_path, capsys):
    path = tmp_path / "out.txt"
    assert command(["sample", str(blocks.folder.path), "-n", "3", "--out", str(path)]) == 0
    assert len(lines_of(path)) == 3
    assert command(["evaluate", str(blocks.folder.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["symbols"] == LENGTH
