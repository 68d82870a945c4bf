"""metrics.jsonl: exact floats, the same bytes after a resume, whole after a crash."""

import errno
import json
import math
import os
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lambent.errors import CheckpointError, ConfigError, DataError, StorageError
from lambent.storage.metrics import LogWriter, MetricsWriter, json_line, read_metrics

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text().filter(lambda s: s not in ("nan", "inf", "-inf")),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def same(a, b):
    """Equal to the sign of zero, to NaN, and in type."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and a == b


@settings(max_examples=300, deadline=None)
@given(records=st.lists(st.dictionaries(st.text(), plain, max_size=4), max_size=4))
def test_what_is_written_is_what_is_read_exactly(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    lines = [json_line(record) for record in records]
    with MetricsWriter(path) as metrics:
        for record in records:
            metrics.write(record)
    assert path.read_bytes() == b"".join(lines)
    assert same(read_metrics(path), records)
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def record(step):
    """Floats that take all 17 digits."""
    return {"step": step, "elbo": -math.exp(step / 7), "beta": min(1.0, step / 3), "se": math.nan if step == 4 else 0.1}


def unbroken(path, steps):
    with MetricsWriter(path) as metrics:
        for step in range(1, steps + 1):
            metrics.write(record(step))
    return path.read_bytes()


@pytest.mark.parametrize("stopped_at", [0, 1, 4, 9])
@pytest.mark.parametrize("flushed", [0, 1, 3])
@pytest.mark.parametrize("torn", [b"", b'{"step": 99, "el'])
def test_a_resumed_file_ends_in_the_bytes_of_the_unbroken_one(tmp_path, stopped_at, flushed, torn):
    expected = unbroken(tmp_path / "whole.jsonl", 12)
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsWriter(path)
    for step in range(1, stopped_at + 1):
        metrics.write(record(step))
    offset = metrics.sync()
    assert offset == path.stat().st_size
    for step in range(stopped_at + 1, stopped_at + 1 + flushed):
        metrics.write(record(step))
    metrics.flush()
    metrics.write(record(50))  # in memory only when the process is killed
    metrics._pending.clear()
    with path.open("ab") as file:
        file.write(torn)
    assert [r["step"] for r in read_metrics(path)] == list(range(1, stopped_at + 1 + flushed))
    with MetricsWriter(path, offset=offset) as resumed:
        for step in range(stopped_at + 1, 13):
            resumed.write(record(step))
    assert path.read_bytes() == expected


def test_the_same_check_catches_a_resume_that_only_appends(tmp_path):
    expected = unbroken(tmp_path / "whole.jsonl", 12)
    path = tmp_path / "metrics.jsonl"
    unbroken(path, 8)
    with MetricsWriter(path, offset=path.stat().st_size) as resumed:
        for step in range(6, 13):
            resumed.write(record(step))
    assert path.read_bytes() != expected


def test_an_offset_that_is_not_this_file_s_is_refused_and_nothing_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = unbroken(path, 3)
    for offset, message in (
        (len(data) + 1, "found .* bytes, the checkpoint was saved at"),
        (5, "no line ends at byte 5"),
    ):
        with pytest.raises(CheckpointError, match=message):
            MetricsWriter(path, offset=offset)
        assert path.read_bytes() == data
    with pytest.raises(CheckpointError):
        MetricsWriter(path, offset=-1)


def test_every_truncation_reads_as_the_complete_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    data = unbroken(path, 3)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        assert len(read_metrics(path)) == data[:length].count(b"\n")


@pytest.mark.parametrize("line", [b'{"step": 1', b"[1]", b"\xff", b"[" * 100_000, b""])
def test_a_broken_line_before_the_last_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2: (not valid JSON|expected a JSON object)"):
        read_metrics(path)


def test_what_json_does_not_hold_is_named(tmp_path):
    with (
        MetricsWriter(tmp_path / "metrics.jsonl") as metrics,
        pytest.raises(ConfigError, match=r"metrics\.a\.b is Tensor"),
    ):
        metrics.write({"a": {"b": torch.ones(1)}})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_full_disk_is_a_storage_error_that_names_the_file(tmp_path, monkeypatch):
    metrics = MetricsWriter(tmp_path / "metrics.jsonl")
    metrics.write({"step": 1})

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match=r"metrics.jsonl: the disk is full \(12 bytes needed"):
            metrics.flush()
    metrics.close()
    metrics.close()


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"metrics\.jsonl: can't be read: No such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(StorageError, match="No such file"):
        MetricsWriter(tmp_path / "no" / "metrics.jsonl")


def test_the_log_has_a_time_on_each_entry_and_goes_on_below(tmp_path):
    for text in ("begun\n", "resumed: checkpoint damaged\n000002"):
        with LogWriter(tmp_path / "log.txt") as log:
            log.write(text)
            log.write("ü \udc80")
    lines = (tmp_path / "log.txt").read_bytes().decode().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    expected = [
        rf"{stamp} begun",
        rf"{stamp} ü \?",
        rf"{stamp} resumed: checkpoint damaged",
        "  000002",
        rf"{stamp} ü \?",
    ]
    assert len(lines) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines
