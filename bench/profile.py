"""
Where a worker's time goes: py-spy beside it, in an environment of the bench's own.

``python -m bench --only drain --quick --profile`` prints the functions that hold the processor.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bench.environments import environment
from bench.stage import Stage

SAMPLES_A_SECOND = 200


@contextmanager
def of(pid: int, stage: Stage, *, wanted: bool) -> Iterator[None]:
    """Watch process *pid* while the block runs, then print what was seen; nothing where not *wanted*."""
    if not wanted:
        yield
        return
    spy = environment("py-spy", ["py-spy==0.4.3"], stage.var).parent / "py-spy"
    seen = stage.var / "profile.txt"
    command = [str(spy), "record", "--pid", str(pid), "--format", "raw", "--output", str(seen)]
    command += ["--rate", str(SAMPLES_A_SECOND), "--gil"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
    if seen.exists():
        print(table(seen.read_text()))
    else:
        print(f"py-spy saw nothing: {words.decode()[-400:]}")


def table(raw: str, most: int = 28) -> str:
    """Return the functions that hold the interpreter, with and without what they call."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            total[frame] += int(count)
    whole = sum(own.values()) or 1
    lines = [f"{whole} samples with the interpreter's lock", "  own      function"]
    lines += [f"  {100 * n / whole:5.1f} %  {name}" for name, n in own.most_common(most)]
    lines += ["  with what it calls"]
    lines += [f"  {100 * n / whole:5.1f} %  {name}" for name, n in total.most_common(2 * most)]
    return "\n".join(lines)
