"""`lambent demo`, made short: it trains, measures, shows, and never touches what is there."""

import sys

import pytest

from lambent.cli import demo as demo_module
from lambent.cli.app import run
from lambent.cli.demo import demo, free_folder
from lambent.recipes import configure
from lambent.runs.run import load


@pytest.fixture
def short(monkeypatch):
    changed = {**demo_module.SETTINGS, "epochs": 2, "validate_every": 1, "hidden": 16}
    monkeypatch.setattr(demo_module, "SETTINGS", changed)
    monkeypatch.setattr(demo_module, "SAMPLES", 3)


def test_it_leaves_a_run_its_numbers_a_report_and_samples_and_says_where(short, tmp_path, capsys):
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 0
    said = capsys.readouterr().out
    stored = load(tmp_path / "demo").evaluate(samples=3).to_dict()
    assert f"{stored['iwae_3']['value']:.4f} ± {stored['iwae_3']['se']:.4f} nats" in said
    for file in (tmp_path / "demo" / "report.html", tmp_path / "demo" / "samples" / "samples.png"):
        assert file.stat().st_size > 1000
        assert str(file) in said
    assert len(said.partition("Next:\n")[2].splitlines()) == 3
    assert "IWAE-3" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")


def test_a_second_demo_goes_beside_the_first(short, tmp_path):
    demo(tmp_path / "demo")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "demo").rglob("*")}
    demo(tmp_path / "demo")
    assert (tmp_path / "demo-2" / "report.html").is_file()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "demo").rglob("*")} == before


def test_the_free_folder_is_the_first_that_holds_nothing(tmp_path):
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "a-2").write_text("a file in the way")
    assert free_folder(tmp_path / "a") == tmp_path / "a-3"


def test_without_matplotlib_it_still_trains_and_says_what_is_missing(short, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    demo(tmp_path / "demo")
    assert 'pip install "lambent[plots]"' in capsys.readouterr().out
    assert (tmp_path / "demo" / "samples" / "samples.png").is_file()


def test_its_settings_are_settings(tmp_path):
    config = configure("vae", settings=demo_module.SETTINGS)
    assert config.model.latent == 2
    assert config.train.threads == 1
