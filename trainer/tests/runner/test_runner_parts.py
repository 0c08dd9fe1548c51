"""The pure parts of the runner."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from espalier_trainer.errors import ConfigError
from espalier_trainer.runner.cause import RankExit, first_cause, last_words
from espalier_trainer.runner.metrics_file import GrowingFile, ProgressMeter, parse_point
from espalier_trainer.runner.rank_log import LineCutter, RankLog
from espalier_trainer.runner.settings import read_settings
from espalier_trainer.runner.telemetry import LogSource


def test_carriage_returns_become_lines_once_a_second() -> None:
    now = [0.0]
    cutter = LineCutter(clock=lambda: now[0])
    lines = cutter.feed(b"\r 1%\r 2%\r 3%")
    now[0] = 1.5
    lines += cutter.feed(b"\r 4%\r 5%\r")
    lines += cutter.feed(b"\ndone\r\n\nbye")
    lines += cutter.close()
    assert lines == [b" 1%", b" 3%", b" 5%", b"done", b"", b"bye"]


def test_colours_stay_and_endless_lines_are_cut() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"\x1b[31mred\x1b[0m\n") == [b"\x1b[31mred\x1b[0m"]
    assert [len(line) for line in cutter.feed(b"x" * 40_000)] == [16_384, 16_384]
    assert [len(line) for line in cutter.close()] == [7_232]


def test_a_log_stops_growing_at_its_limit_and_keeps_its_end_in_memory(tmp_path: Path) -> None:
    log = RankLog(tmp_path / "rank-0.log", max_bytes=20)
    for number in range(10):
        log.feed(f"line {number}\n".encode())
    log.close()
    assert (tmp_path / "rank-0.log").read_text() == (
        "line 0\nline 1\nline 2\n[the log has reached 20 bytes; nothing more is kept]\n"
    )
    assert log.tail[-1] == "line 9"


def test_a_full_disk_does_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "rank-0.log").symlink_to("/dev/full")
    log = RankLog(tmp_path / "rank-0.log")
    log.feed(b"one\ntwo\n")
    log.close()
    assert log.disk_full
    assert list(log.tail) == ["one", "two"]


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (["Traceback (most recent call last):", "  File a", "KeyError: 1", "error: no such key"], "no such key"),
        (["Traceback (most recent call last):", "  File a", "    x()", "KeyError: 1", "", "after"], "KeyError: 1"),
        (
            ["[rank1]: Traceback (most recent call last):", "[rank1]:   File a", "[rank1]: OSError: gone"],
            "OSError: gone",
        ),
        (["\x1b[31mfatal\x1b[0m", ""], "fatal"),
        ([], ""),
    ],
)
def test_last_words_are_the_line_that_says_most(tail: list[str], words: str) -> None:
    assert last_words(tail) == words


def test_the_cause_is_not_the_rank_that_merely_noticed() -> None:
    echo = RankExit(rank=0, code=1, tail=["RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer"])
    guilty = RankExit(rank=1, code=1, tail=["ValueError: bad row"])
    assert first_cause([echo, guilty]).message == "rank 1: ValueError: bad row"
    assert first_cause([echo, RankExit(rank=1, code=-9)]).exit_code == 137
    assert first_cause([echo]).rank == 0
    killed = RankExit(rank=2, code=-signal.SIGKILL, killed=True)
    assert first_cause([killed, guilty]).rank == 1


def test_a_log_that_found_no_room_makes_the_disk_the_cause() -> None:
    cause = first_cause([RankExit(rank=0, code=1, tail=["KeyError: 1"])], disk_full=True)
    assert (cause.exit_code, cause.reason) == (75, "DISK_FULL")


def test_half_a_line_of_metrics_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    growing = GrowingFile(path)
    assert growing.read() == []
    path.write_bytes(b'{"step": 1}\n{"st')
    assert [line.offset for line in growing.read()] == [0]
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert [(line.offset, line.data) for line in growing.read()] == [(12, b'{"step": 2}\n')]


@pytest.mark.parametrize("line", [b"", b"[]\n", b"{}\n", b'{"step": "x"}\n', b'{"step": 1, "values": 3}\n', b"\xff\n"])
def test_a_line_that_is_no_point_is_none(line: bytes) -> None:
    assert parse_point(line) is None


def test_progress_survives_odd_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "time": 10, "total_steps": 9, "values": {"train/loss": 2.5}}\n'
        "garbage\n"
        '{"step": 3, "time": 14, "values": {"train/loss": "Infinity"}}\n'
        '{"step": 3, "time": 15, "final": true, "values": {"eval/loss": 1.0}}\n'
    )
    meter = ProgressMeter(path)
    meter.refresh()
    assert (meter.step, meter.total_steps, meter.loss, meter.eta_seconds) == (3, 9, float("inf"), 12.0)


def test_a_long_log_is_cut_at_lines_and_its_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.log"
    text = b"".join(b"%06d\n" % number for number in range(40_000)) + b"unfinished"
    path.write_bytes(text)
    source = LogSource(path, 0)
    pieces: list[Any] = []
    while (found := source.next_batch(is_over=False)) is not None:
        pieces.append(found)
    assert all(batch.logs[0].data.endswith(b"\n") for _, batch in pieces)
    while (found := source.next_batch(is_over=True)) is not None:
        pieces.append(found)
    assert b"".join(batch.logs[0].data for _, batch in pieces) == text
    assert [offset for offset, _ in pieces] == [batch.logs[0].offset for _, batch in pieces]
    assert [batch.logs[0].end for _, batch in pieces] == [False, False, False, True]


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, "ESPALIER_RUN_DIR"),
        ({"ESPALIER_GRACE_SECONDS": "soon"}, "ESPALIER_GRACE_SECONDS"),
        ({"ESPALIER_GRACE_SECONDS": "nan"}, "ESPALIER_GRACE_SECONDS"),
        ({"ESPALIER_SIGTERM_MEANS": "war"}, "ESPALIER_SIGTERM_MEANS"),
        ({"ESPALIER_ORCHESTRATOR": "127.0.0.1:1"}, "ESPALIER_ATTEMPT_TOKEN_FILE"),
        ({"ESPALIER_ATTEMPT_TOKEN_FILE": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, env: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_settings({"ESPALIER_RUN_DIR": str(tmp_path), **env} if env else {})
