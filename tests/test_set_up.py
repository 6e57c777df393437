"""The first command of a newcomer, ``tools/setup.py``: what it says when something is missing."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_of_checkout", ROOT / "tools" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_checkout(folder: Path) -> Path:
    """A checkout with one requirement, its wheel beside it, and the digest that goes with the wheel."""
    (folder / "tools").mkdir(parents=True)
    (folder / "src" / "postroom").mkdir(parents=True)
    (folder / "src" / "postroom" / "__init__.py").write_text("")
    shutil.copy(ROOT / "tools" / "setup.py", folder / "tools")
    wheel = folder / "wheels" / "nothing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    about = "nothing-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    require(folder, digest_of(folder))
    return folder


def digest_of(checkout: Path) -> str:
    [wheel] = (checkout / "wheels").iterdir()
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout in a path with a space, set up once, and what that said."""
    checkout = make_checkout(tmp_path_factory.mktemp("a b") / "checkout")
    done = set_up(checkout)
    assert done.returncode == 0, done.stderr
    return checkout, done.stdout


@pytest.fixture
def checkout(first_start: tuple[Path, str]) -> Path:
    """The same checkout, with its first requirements again, and what they ask for."""
    require(first_start[0], digest_of(first_start[0]))
    assert set_up(first_start[0]).returncode == 0
    return first_start[0]


def require(checkout: Path, digest: str) -> None:
    folder = checkout / "requirements"
    folder.mkdir(exist_ok=True)
    for line in ("django52-py311", "django61-py313"):
        for what in ("run", "dev"):
            (folder / f"{what}-{line}.txt").write_text(
                f"nothing==1.0 \\\n    --hash=sha256:{digest}\n"
                f"winnothing==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:{digest}\n"
            )


def set_up(
    checkout: Path, what: str = "run", *then: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "HOME": str(checkout), "PIP_NO_INDEX": "1"}
    clean["PIP_FIND_LINKS"] = (checkout / "wheels").as_uri()
    return subprocess.run(
        [sys.executable, "tools/setup.py", what, *then],
        cwd=checkout,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def test_first_start_counts_what_it_installs(first_start):
    lines = first_start[1].splitlines()

    assert lines[0] == "postroom: first start, setting up (once; later it takes 3 s)"
    assert lines[1].startswith("  python      3.")
    assert "so Django" in lines[1]
    assert lines[2].startswith("  packages    1 of 1, hashes checked  ")
    assert len(lines) == 3


def test_second_start_has_nothing_to_do(checkout):
    set_up(checkout)

    second = set_up(checkout)

    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_environment_of_a_path_with_a_space_finds_the_checkout(checkout):
    python = checkout / ".venv" / "bin" / "python"

    found = subprocess.run([python, "-c", "import nothing, postroom"], cwd=checkout.parent, check=False)

    assert found.returncode == 0


def test_shop_goes_on_in_the_environment_and_is_told_of_the_first_start(checkout):
    """Both the set-up and the shop greet; a newcomer must not read it twice, nor never."""
    script = "import os; print(os.environ.get('POSTROOM_FIRST_START'))"
    for stamp in (checkout / ".venv").glob("*.stamp"):
        stamp.unlink()

    first = set_up(checkout, "run", "--", "-c", script)
    second = set_up(checkout, "run", "--", "-c", script)

    assert first.stdout.splitlines()[-1] == "1"
    assert second.stdout.splitlines() == ["None"]


def test_changed_requirements_are_installed_at_the_next_start(checkout):
    set_up(checkout)
    for path in (checkout / "requirements").iterdir():
        path.write_text(path.read_text() + "# one more line\n")

    again = set_up(checkout)

    assert "packages    1 of 1, hashes checked" in again.stdout


def test_environment_for_developing_is_enough_for_running(checkout):
    set_up(checkout, "dev")
    for path in (checkout / ".venv").glob("postroom-run.stamp"):
        path.unlink()

    assert set_up(checkout, "run").stdout == ""


def test_file_with_another_hash_is_not_installed(checkout):
    require(checkout, "0" * 64)
    python = checkout / ".venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "nothing"], check=True)

    refused = set_up(checkout)

    assert refused.returncode == 1
    assert "not the one this version was made with" in refused.stderr
    assert not list((checkout / ".venv").rglob("nothing.py"))
    # What was taken away by hand comes back for the other tests, which share this environment.
    for stamp in (checkout / ".venv").glob("*.stamp"):
        stamp.unlink()
    require(checkout, digest_of(checkout))
    assert set_up(checkout).returncode == 0


def test_no_answer_from_the_index_is_said_and_nothing_is_changed(scratch):
    """An environment without packages would look finished to whoever comes next."""
    checkout = make_checkout(scratch / "checkout")

    refused = set_up(checkout, PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_FIND_LINKS="")

    assert refused.returncode == 1
    assert refused.stderr.strip() == (
        "packages: no answer from the package index. Set-up needs it once; nothing was changed."
    )
    assert not (checkout / ".venv").exists()


def test_old_python_is_told_what_would_help(setup):
    with pytest.raises(setup.SetUpFailed) as refused:
        setup.check_python((3, 9, 2, "final", 0), "run")

    assert str(refused.value) == (
        "postroom needs Python 3.11 or newer; "
        f"{Path(sys.executable).name} is 3.9.2. If you have one: make run PYTHON=python3.12"
    )


def test_script_can_be_read_by_a_python_of_ten_years_ago():
    """It could not tell anybody that their Python is too old if that Python stumbled over its syntax."""
    import ast

    ast.parse((ROOT / "tools" / "setup.py").read_text(), feature_version=(3, 6))


def test_missing_venv_module_is_named_with_the_package_that_has_it(setup, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())

    with pytest.raises(setup.SetUpFailed, match="apt install python3-venv"):
        setup.check_venv()


@pytest.mark.parametrize(
    ("version", "django"), [((3, 11), "Django 5.2 LTS"), ((3, 12), "Django 6.1"), ((3, 13), "Django 6.1")]
)
def test_python_decides_which_django(setup, version, django):
    line, name = setup.line_of(version)

    assert name == django
    assert (ROOT / "requirements" / f"run-{line}.txt").exists()
