"""
The bench measures the truth only while it works: its arithmetic, its provider, its tables, its smallest row.

No time is asserted here. What it prints of a run is a matter of the machine; that it prints what it
measured is a matter of this file.
"""

import http.client
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import figures, plot, report, results
from bench.rows import TITLES
from bench.stage import ROOT, Stage

DOCS = ROOT / "docs"


def test_interval_holds_the_median_and_is_the_same_for_the_same_samples():
    """An interval drawn with fresh dice would change a committed table without any new measurement."""
    samples = [1.0, 1.2, 0.9, 1.1, 1.3, 0.8, 1.05]

    once, again = figures.bootstrap(samples), figures.bootstrap(samples)

    assert once == again
    assert once.value == 1.05
    assert 0.8 <= once.low <= once.value <= once.high <= 1.3


def test_ratio_is_taken_pair_by_pair():
    """A machine that slows down half-way slows both sides of a pair: the ratio must not notice."""
    ours, theirs = [20.0, 10.0, 2.0], [10.0, 5.0, 1.0]

    ratio = figures.paired_ratio(ours, theirs)

    assert (ratio.low, ratio.value, ratio.high) == (2.0, 2.0, 2.0)
    assert figures.paired_difference(ours, theirs).value == 5.0


def test_sides_take_turns_in_beginning():
    """Whoever always goes second always meets the warmer machine."""
    order: list[str] = []

    ones, others = figures.abba(lambda: order.append("A"), lambda: order.append("B"), 3)

    assert "".join(order) == "ABBAAB"
    assert len(ones) == len(others) == 3


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.0, 1), (1.0, 10)])
def test_percentile_is_a_sample_by_nearest_rank(share, expected):
    """An interpolated "95th percentile" of ten samples is a number that nobody measured."""
    assert figures.percentile([3, 1, 2, 5, 4, 10, 9, 8, 7, 6], share) == expected


def test_provider_answers_counts_and_refuses_a_used_key(tmp_path):
    """The judge of every duplicate in the bench must itself be able to count to two."""
    with Stage(tmp_path) as stage, stage.provider(tls=False) as provider:
        provider.reset(keys=True, marks=[2])
        address = f"http://127.0.0.1:{provider.port}/v3/smtp/email"
        first = _post(address, "a@example.com", key="one")
        repeated = _post(address, "a@example.com", key="one")
        twice = _post(address, "a@example.com", key="two")
        facts = provider.wait(3)

    assert (first, repeated, twice) == (201, 400, 201)
    assert (facts["calls"], facts["refused"], facts["distinct"], facts["twice"]) == (3, 1, 1, 1)
    assert facts["marks"][0]["at"] > 0


def test_every_row_has_a_title_and_a_question():
    """A row that cannot be imported is found on the day of the release otherwise."""
    for name in TITLES:
        assert callable(importlib.import_module(f"bench.rows.{name}").ask)


def test_the_smallest_row_runs_from_end_to_end(tmp_path):
    """The harness rots unseen: nobody runs it until somebody doubts a number."""
    command = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--only",
        "latency",
        "--rounds",
        "1",
        "--out",
        str(tmp_path),
    ]
    env = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "BENCH_VAR": str(tmp_path / "var"),
    }

    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)

    assert run.returncode == 0, run.stdout + run.stderr
    written = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["latency"]
    assert all(figure["value"] > 0 for figure in written["rows"][0]["figures"])
    assert written["machine"]["python"]


def test_no_bulk_enqueue_is_no_rate_of_bulk_enqueue():
    """The stand-in for a function that is missing was once shown under that function's name."""
    row = importlib.import_module("bench.rows.enqueue")

    missing = row._bulk([{"seconds": 1.0, "bulk": False}])
    there = row._bulk([{"seconds": 0.5, "bulk": True}])

    assert (missing.value, missing.met) == (None, None)
    assert missing.note
    assert (there.value, there.met) == (20_000, True)


def test_changed_code_is_not_shown_as_the_commit(tmp_path):
    """Asked from within its own folder, git found no change where there were many, and a table named the wrong code."""
    (tmp_path / "src").mkdir()
    _git(tmp_path, "init", "-q")
    _git(
        tmp_path,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.com",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "one",
    )

    clean = results.changed(tmp_path)
    (tmp_path / "src" / "new.py").write_text("new = True")

    assert not clean
    assert results.changed(tmp_path)


def test_docs_show_what_was_measured_and_nothing_else():
    """A table that somebody typed says what somebody wished."""
    kept = json.loads((DOCS / "benchmarks" / "results.json").read_text())
    page = (DOCS / "benchmarks.md").read_text()

    assert page == report.filled(page, kept)
    assert (DOCS / "benchmarks" / "results.svg").read_text() == plot.svg(kept)


def _post(address: str, to: str, key: str) -> int:
    body = json.dumps({"to": [{"email": to}], "headers": {"idempotencyKey": key}}).encode()
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    told = json.load(answer)
    connection.close()
    assert "messageId" in told if answer.status == 201 else told["code"] == "duplicate_parameter"
    return answer.status


def _git(where: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=where, check=True, capture_output=True)
