"""The house rules that a machine can check: layers, public names, files, migrations, words."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "src" / "postroom"
MODULES = sorted(
    path
    for folder in ("src", "example", "tests", "bench", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if "migrations" not in path.parts
)

OPEN_ENDS = "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX"))
PLACES_OF_ONE_MACHINE = r"(?<![\w.:/-])/(?:" + "|".join(("root", "home/[a-z]+", "work", "tmp/[a-z]")) + r")\b"
INDEX_HOSTS = "|".join((r"pypi\.org", r"python" + r"hosted\.org", r"registry\.npmjs", r"deb\.debian"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked_text() -> list[tuple[str, str]]:
    """Every text file that git keeps, or would keep: its name and its text."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            found.append((name, content.decode()))
    return found


def test_upper_layers_know_lower_ones_and_never_the_other_way_round():
    # In a process of its own: import-linter configures logging, and silences ours for later tests.
    command = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"

    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_accounts_use_public_names_only():
    """A site may leave out the accounts, or write its own: what they can do, it must be able to do."""
    public = set(_value_of_all())

    used = {
        (name_of(path), name)
        for path in (ENGINE / "accounts").rglob("*.py")
        for name in _names_of_engine(ast.parse(path.read_text()))
    }

    assert {(path, name) for path, name in used if name not in public} == set()
    assert len(used) > 5


def _names_of_engine(node: ast.AST) -> Iterator[str]:
    """What *node* takes from the engine: its names, or the path of a module; types apart."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom) and node.module == "postroom":
        yield from (alias.name for alias in node.names if alias.name != "accounts")
    elif isinstance(node, ast.ImportFrom):
        yield from _private_of_engine(node.module or "")
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield from _private_of_engine(alias.name)
    for child in ast.iter_child_nodes(node):
        yield from _names_of_engine(child)


def _private_of_engine(module: str) -> list[str]:
    inside = module.startswith("postroom.") and not f"{module}.".startswith("postroom.accounts.")
    return [module] if inside else []


def _value_of_all() -> list[str]:
    import postroom

    return list(postroom.__all__)


@pytest.mark.parametrize("name", _value_of_all())
def test_every_public_name_can_be_imported_and_is_no_module(name):
    """A module that bears the name of a public function would replace it on the first import."""
    import postroom

    assert getattr(postroom, name) is not None
    assert not (ENGINE / f"{name}.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_says_what_it_owns(path):
    tree = ast.parse(path.read_text())

    assert ast.get_docstring(tree) or not tree.body, f"{name_of(path)} opens without a docstring"


@pytest.mark.parametrize(
    ("what", "pattern", "files"),
    [
        ("something left open", rf"\b({OPEN_ENDS})\b", r"."),
        ("a place of one machine", PLACES_OF_ONE_MACHINE, r"."),
        ("the host of a package index", INDEX_HOSTS, r"."),
        ("an index in a requirement file", r"^--|https?://", r"^requirements/"),
    ],
    ids=["open", "machine", "index", "requirements"],
)
def test_no_file_holds(what, pattern, files):
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_text()
        if re.search(files, name)
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]

    assert found == [], f"{what}: {found}"


def test_migrations_say_what_the_models_say():
    loader = MigrationLoader(None)
    wanted = ProjectState.from_apps(apps)

    changes = MigrationAutodetector(loader.project_state(), wanted).changes(graph=loader.graph)

    ours = {label: [str(change) for change in found] for label, found in changes.items()}
    assert ours == {}


@pytest.mark.django_db
def test_every_table_is_made_by_a_migration():
    tables = set(connection.introspection.table_names())

    wanted = {model._meta.db_table for model in apps.get_models() if model.__module__.startswith("postroom")}
    assert wanted
    assert wanted <= tables


def test_every_variable_of_the_example_file_is_read_and_every_one_read_is_listed():
    """A variable that nobody reads is a promise that is not kept; one not listed is not found."""
    text = (ROOT / ".env.example").read_text()
    listed = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    code = "\n".join(path.read_text() for path in (ROOT / "example").rglob("*.py"))

    assert listed
    assert {name for name in listed if not _is_read(name, code)} == set()
    assert _contract() <= listed


def _is_read(name: str, code: str) -> bool:
    return f'"{name}"' in code or name.startswith("POSTROOM_")


def _contract() -> set[str]:
    """The variables that the example promises to people and scripts."""
    return {
        "PORT",
        "SITE_URL",
        "DEBUG",
        "DATABASE_URL",
        "BREVO_API_KEY",
        "BREVO_API_URL",
        "BREVO_WEBHOOK_SECRET",
        "EMAIL_URL",
        "SECRET_KEY",
        "ALLOWED_HOSTS",
        "DEFAULT_FROM_EMAIL",
        "TIME_ZONE",
    }


def test_wheels_version_is_the_one_of_the_changelog():
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    assert version is not None

    newest = re.search(r"^## \[?(\d[\w.]*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest.group(1) == version.group(1)
