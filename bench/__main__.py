"""``python -m bench [--quick] [--only NAME …] [--rounds N] [--out DIR]``: ask, print, write down."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench import plot, report
from bench.results import Row, machine
from bench.rows import LONG, TITLES, Options, question
from bench.stage import ROOT, Stage

VAR = Path(os.environ.get("BENCH_VAR") or ROOT / "var" / "bench")

DOCS = ROOT / "docs"


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that were asked for; 1 where one of them broke off."""
    given = parse(arguments)
    if given.docs:
        return docs(DOCS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    out = Path(given.out or VAR / "out")
    out.mkdir(parents=True, exist_ok=True)
    options = Options(quick=given.quick, rounds=given.rounds, rows=given.rows, profile=given.profile)
    results = kept(out) if given.only else {}
    results = {"machine": machine() | {"quick": given.quick}, "rows": results.get("rows", [])}
    with Stage(VAR, quick=given.quick) as stage:
        for name in given.only or [name for name in TITLES if not (given.quick and name in LONG)]:
            row = ask(name, stage, options)
            results["rows"] = in_order([*(r for r in results["rows"] if r["name"] != name), row])
            print(report.terminal(row), flush=True)
            results["machine"] |= {"load_after": list(os.getloadavg())}
            write(out, results)
    print(f"{out / 'results.json'}")
    return int(any(row["error"] for row in results["rows"]))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What this machine makes of postroom."
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, small tables, no long rows: about three minutes"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(TITLES), help=", ".join(TITLES))
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="pairs of rounds a ratio")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, metavar="N", help="finished rows of the full table"
    )
    parser.add_argument("--out", metavar="DIR", help="where results.json and results.svg go (var/bench/out)")
    parser.add_argument(
        "--profile", action="store_true", help="with drain: print where the worker's time goes"
    )
    parser.add_argument(
        "--docs", action="store_true", help="only write the tables of docs/benchmarks.md anew"
    )
    return parser.parse_args(arguments)


def docs(folder: Path) -> int:
    """Write the tables of the page, and the plot, from the results that lie beside it."""
    page, kept = folder / "benchmarks.md", folder / "benchmarks"
    results = json.loads((kept / "results.json").read_text())
    page.write_text(report.filled(page.read_text(), results))
    (kept / "results.svg").write_text(plot.svg(results))
    return 0


def kept(out: Path) -> dict[str, Any]:
    """Return what was measured before: asked for a few rows, a run replaces those and leaves the others."""
    path = out / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *rows* in the order in which they are asked."""
    return sorted(rows, key=lambda row: list(TITLES).index(row["name"]))


def ask(name: str, stage: Stage, options: Options) -> dict[str, Any]:
    """Ask one question; what breaks it off is written into its row, and the others go on."""
    began = time.monotonic()
    row = Row(name=name, title=TITLES[name], figures=[])
    try:
        row.figures = question(name)(stage, options)
    except Exception as error:  # noqa: BLE001 - a row that breaks off is a result
        traceback.print_exc()
        row.error = f"{type(error).__name__}: {error}"
    row.seconds = time.monotonic() - began
    facts = machine()
    measured = {key: facts[key] for key in ("date", "git", "git_changed", "python")} | {
        "load": facts["load_before"]
    }
    return row.as_json() | {"measured": measured | {"quick": options.quick}, "peers": sorted(stage.peers)}


def write(out: Path, results: dict[str, Any]) -> None:
    """Write results.json, and the plot."""
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if any(row["name"] == "rates" and row["figures"] for row in results["rows"]):
        (out / "results.svg").write_text(plot.svg(results))


if __name__ == "__main__":
    sys.exit(main())
