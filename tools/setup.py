"""
Set up the virtual environment of this checkout, once: ``python3 tools/setup.py run|dev``, and
go on in it with whatever follows ``--``.

Needs nothing but a Python with venv and pip. Owns which requirement file goes with which Python
and when an environment is up to date; says on the terminal what it does, and names the one
command that mends what is missing. Written so that an old Python understands it far enough to
be told that it is too old.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {"run": "make run", "dev": "make test"}
NO_ANSWER = ("connection broken by", "Could not fetch URL", "Temporary failure in name resolution")


class SetUpFailed(Exception):
    """The environment could not be made; the message says what to do. Nothing was changed."""


def main():
    """Bring the environment up to date; return the exit code."""
    parser = argparse.ArgumentParser(description="Set up the virtual environment of this checkout.")
    parser.add_argument("what", choices=sorted(COMMANDS), help="what it is for")
    parser.add_argument("--venv", default=".venv", help="the environment's folder")
    ours, then = split_at_dashes(sys.argv[1:])
    options = parser.parse_args(ours)
    try:
        check_python(sys.version_info, options.what)
        environment = Environment(ROOT / options.venv, options.what)
        if not environment.is_up_to_date():
            check_venv()
            environment.make()
            # The example says "first start" itself unless this has been said already.
            os.environ["POSTROOM_FIRST_START"] = "1"
        if then:
            sys.stdout.flush()
            os.execv(str(environment.python), [str(environment.python), *then])
    except SetUpFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\npostroom: set-up stopped; the next one goes on from here.", file=sys.stderr)
        return 130
    return 0


def split_at_dashes(arguments):
    """Part what is for this script from what its Python runs afterwards."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def check_python(version, what):
    """Raise SetUpFailed for a Python that is too old."""
    if tuple(version[:2]) < OLDEST:
        name = Path(sys.executable).name
        raise SetUpFailed(
            "postroom needs Python {}.{} or newer; {} is {}. If you have one: {} PYTHON=python3.12".format(
                OLDEST[0], OLDEST[1], name, ".".join(str(part) for part in version[:3]), COMMANDS[what]
            )
        )


def check_venv():
    """Raise SetUpFailed where the distribution keeps venv, or the pip inside it, apart."""
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise SetUpFailed("postroom needs Python's venv, which Debian keeps apart: apt install python3-venv")


def line_of(version):
    """Return the name of the requirement files and of the Django that go with a Python."""
    if tuple(version[:2]) == (3, 11):
        return "django52-py311", "Django 5.2 LTS"
    return "django61-py313", "Django 6.1"


class Environment:
    """One virtual environment, for running (``run``) or for developing (``dev``, which includes it)."""

    def __init__(self, folder, what):
        self.folder = folder
        self.what = what
        self.python = folder / "bin" / "python"
        self.line, self.django = line_of(sys.version_info)
        self.requirements = ROOT / "requirements" / "{}-{}.txt".format(what, self.line)

    def is_up_to_date(self):
        """Whether this environment, made by this Python for this folder, holds what the files say."""
        if not self.python.exists():
            return False
        return any(
            self._stamp(what).exists() and self._stamp(what).read_text() == self._digest(what)
            for what in {self.what, "dev"}
        )

    def make(self):
        """Create what is missing and install from the hashed file; raises SetUpFailed."""
        self._announce()
        was_there = self.folder.exists()
        try:
            self._create()
            self._install()
        except SetUpFailed:
            if not was_there:
                shutil.rmtree(str(self.folder), ignore_errors=True)
            raise
        self._make_importable()
        self._stamp(self.what).write_text(self._digest(self.what))

    def _announce(self):
        if self.what == "run":
            print("postroom: first start, setting up (once; later it takes 3 s)")
        else:
            print("postroom: setting up what tests and checks need (once; later it takes no time)")
        say("python", "{}, so {}".format(".".join(str(part) for part in sys.version_info[:3]), self.django))

    def _create(self):
        import venv

        same_python = self._version() == "{}.{}".format(*sys.version_info[:2])
        if same_python and (self._packages() / "pip").exists() and self.python.exists():
            return
        try:
            clear = self.folder.exists() and not same_python
            venv.EnvBuilder(with_pip=True, symlinks=True, clear=clear).create(str(self.folder))
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetUpFailed("postroom: {} could not be made: {}".format(self.folder, error)) from error

    def _packages(self):
        return self.folder / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"

    def _version(self):
        """The Python that made the environment, from its own note."""
        note = self.folder / "pyvenv.cfg"
        found = re.search(r"^version\w* *= *(\d+\.\d+)", note.read_text(), re.M) if note.exists() else None
        return found.group(1) if found else ""

    def _install(self):
        begin = time.monotonic()
        total = self._count()
        command = [str(self.python), "-I", "-m", "pip", "install", "--require-hashes", "--no-deps"]
        command += ["--only-binary", ":all:", "--retries", "2", "--disable-pip-version-check"]
        command += ["--no-input", "--no-compile", "--progress-bar", "off", "-r", str(self.requirements)]
        words, done = [], 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, cwd=str(ROOT)
        ) as pip:
            for line in pip.stdout:
                words.append(line)
                if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: ")):
                    done += 1
                    say_for_now("packages", "{} of {}".format(done, total))
        if pip.returncode:
            raise SetUpFailed(explain("".join(words)))
        say("packages", "{} of {}, hashes checked".format(done, total), time.monotonic() - begin)

    def _count(self):
        """How many packages of the file are for this Python and system: pip itself knows."""
        script = (
            "import sys\n"
            "from pip._vendor.packaging.requirements import Requirement\n"
            "lines = [line.rstrip(' \\\\\\n') for line in open(sys.argv[1]) if line[:1].isalnum()]\n"
            "markers = [Requirement(line).marker for line in lines]\n"
            "print(sum(marker is None or marker.evaluate() for marker in markers))\n"
        )
        counted = subprocess.check_output([str(self.python), "-I", "-c", script, str(self.requirements)])
        return int(counted)

    def _make_importable(self):
        """Let the environment find ``postroom`` in this checkout, as an editable install would."""
        (self._packages() / "postroom-checkout.pth").write_text("{}\n".format(ROOT / "src"))

    def _stamp(self, what):
        return self.folder / "postroom-{}.stamp".format(what)

    def _digest(self, what):
        requirements = ROOT / "requirements" / "{}-{}.txt".format(what, self.line)
        facts = [requirements.read_bytes(), sys.version.encode(), str(ROOT).encode()]
        return hashlib.sha256(b"\0".join(facts)).hexdigest()


def explain(words):
    """Return pip's failure in one sentence that says what to do."""
    if any(sign in words for sign in NO_ANSWER):
        return "packages: no answer from the package index. Set-up needs it once; nothing was changed."
    if "DO NOT MATCH THE HASHES" in words:
        return (
            "packages: the index served a file that is not the one this version was made with;\n"
            "nothing was installed. pip's words:\n" + words[words.index("THESE PACKAGES") :].strip()
        )
    return "packages: pip failed. Its last words:\n" + "\n".join(words.strip().splitlines()[-5:])


def say(label, text, seconds=None):
    """Print one finished step, with its time at the right."""
    took = "" if seconds is None else "{:.0f} s".format(max(seconds, 1))
    end = "\r" if sys.stdout.isatty() else ""
    print("{}{}".format(end, "  {:<12}{:<37}{:>6}".format(label, text, took).rstrip()), flush=True)


def say_for_now(label, text):
    """Show how far a step is, where the line can be written over."""
    if sys.stdout.isatty():
        print("\r  {:<12}{:<37}".format(label, text), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
