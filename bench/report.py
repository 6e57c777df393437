"""The tables: on the terminal while it runs, and in ``docs/benchmarks.md`` from ``results.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BEGIN, END = "<!-- figures: {name} -->", "<!-- end of figures -->"


def number(value: float | None) -> str:
    """Write a number with as many digits as mean something."""
    if value is None:
        return "–"
    size = abs(value)
    if value == int(value) and size < 1e6:
        return f"{int(value):,}"
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def measured(figure: Mapping[str, Any]) -> str:
    """Write the value, its unit and its interval."""
    if figure["value"] is None:
        return f"– ({figure['note']})" if figure["note"] else "–"
    unit = f" {figure['unit']}" if figure["unit"] else ""
    words = f"{number(figure['value'])}{unit}"
    if figure["low"] is not None and number(figure["low"]) != number(figure["high"]):
        words += f" ({number(figure['low'])} to {number(figure['high'])})"
    return words


def target(figure: Mapping[str, Any]) -> str:
    """Write what it should be, and whether it is."""
    if figure["target"] is None:
        return ""
    sign = "≥" if figure["better"] == "more" else "≤"
    verdict = {True: "met", False: "**not met**", None: "not measured"}[figure["met"]]
    return f"{sign} {number(figure['target'])}: {verdict}"


def markdown(row: Mapping[str, Any]) -> str:
    """Return the table of one row."""
    lines = ["| what | measured | target |", "|---|---|---|"]
    for figure in row["figures"]:
        note = f"; {figure['note']}" if figure["note"] and figure["value"] is not None else ""
        lines.append(f"| {figure['label']} | {measured(figure)}{note} | {target(figure)} |")
    if row["error"]:
        lines.append(f"| the row broke off | {row['error'].splitlines()[0]} | |")
    measured_at = row["measured"]
    changed = " and changes not yet committed" if measured_at["git_changed"] else ""
    lines += [
        "",
        f"{measured_at['date']}, Python {measured_at['python']}, code {measured_at['git'][:12]}{changed}, one-minute load {measured_at['load'][0]:.1f} when it ended.",
    ]
    return "\n".join(lines)


def terminal(row: Mapping[str, Any]) -> str:
    """Return the same for people at a terminal."""
    width = max((len(figure["label"]) for figure in row["figures"]), default=0)
    lines = [f"{row['name']}: {row['title']}  [{row['seconds']:.0f} s]"]
    for figure in row["figures"]:
        words = f"  {figure['label']:{width}}  {measured(figure)}"
        goal = target(figure).replace("*", "")
        lines.append(f"{words}   [{goal}]" if goal else words)
    if row["error"]:
        lines.append(f"  broke off: {row['error']}")
    return "\n".join(lines)


def facts(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the machine's facts as one table."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    peers = ", ".join(sorted({peer for row in rows for peer in row.get("peers", ())}))
    told = {
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, kernel {machine['kernel']}",
        "software": f"Python {machine['python']}, {packages}",
        "peers": peers,
    }
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {words} |" for name, words in told.items() if words)]
    )


def filled(page: str, results: Mapping[str, Any]) -> str:
    """Return *page* with every table between its marks made anew from *results*."""
    tables = {row["name"]: markdown(row) for row in results["rows"]} | {
        "machine": facts(results["machine"], results["rows"])
    }
    for name, table in tables.items():
        begin = BEGIN.format(name=name)
        head, found, rest = page.partition(begin)
        if found:
            page = f"{head}{begin}\n{table}\n{END}{rest.partition(END)[2]}"
    return page
