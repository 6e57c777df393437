"""
The package as a stranger installs it: built, put into an empty environment, tried in a new site.

Nothing is downloaded. The empty environment gets copies of Django and of the two packages that
Django needs from the one that runs the tests; pip, without an index, then installs the wheel only
if it needs nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import django
import pytest

ROOT = Path(__file__).resolve().parent.parent
DJANGO_ALONE = ("django", "asgiref", "sqlparse")

Python = Callable[..., str]


def run(*command: object, **options: object) -> str:
    """Run a command and return what it said; a failure shows it."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what belongs to the package."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", copy)
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds Django, what Django needs, and the wheel."""
    folder = tmp_path_factory.mktemp("empty environment")
    venv.create(folder, symlinks=True)
    library = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in DJANGO_ALONE:
        copy_distribution(name, library)
    pip(folder, "install", "--quiet", "--no-index", wheel)
    return folder


def pip(environment: Path, *arguments: object) -> str:
    """Let the pip that is at hand work on *environment*, which has none."""
    python = environment / "bin" / "python"
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments)


@pytest.fixture(scope="module")
def python(environment: Path) -> Python:
    """Runs the environment's Python, with warnings as errors and nothing of this one's variables."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(environment), "PYTHONWARNINGS": "error"}

    def call(*arguments: object, **options: object) -> str:
        return run(environment / "bin" / "python", *arguments, env=clean, **options)

    return call


def copy_distribution(name: str, library: Path) -> None:
    """Copy an installed package, with what pip knows about it."""
    found = distribution(name)
    tops = {Path(str(file)).parts[0] for file in found.files or () if ".." not in Path(str(file)).parts}
    for top in tops - {"__pycache__"}:
        source = Path(str(found.locate_file(top)))
        if source.is_dir():
            shutil.copytree(source, library / top, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, library / top)


def test_wheel_brings_django_alone(environment):
    listed = pip(environment, "freeze", "--all")

    names = {re.split("==| @ ", line)[0].lower() for line in listed.splitlines()}
    assert names == {*DJANGO_ALONE, "django-postroom"}


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    tops = {name.split("/")[0] for name in names}
    assert tops == {"postroom", "django_postroom-0.2.0.dist-info"}
    assert not [name for name in names if name.endswith((".pyc", ".po"))]


def test_wheel_holds_what_pages_and_type_checkers_need(wheel):
    """Each file of the source that is no Python is asked for by a page, a migration or a checker."""
    names = set(zipfile.ZipFile(wheel).namelist())

    source = ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "postroom").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".po")
    }
    assert wanted <= names
    assert "postroom/py.typed" in names


def test_every_module_is_imported_with_django_alone(python, tmp_path):
    """Celery, Anymail, psycopg: each is optional, so no import may need one."""
    script = """
        import importlib, pkgutil
        from django.conf import settings
        settings.configure(
            SECRET_KEY="x" * 50,
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=[
                "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
                "django.contrib.sessions", "django.contrib.messages",
                "postroom", "postroom.mailbox", "postroom.accounts",
            ],
        )
        import django
        django.setup()
        import postroom
        names = [m.name for m in pkgutil.walk_packages(postroom.__path__, "postroom.")]
        names.remove("postroom.tasks")  # the one module that is Celery's
        for name in names:
            importlib.import_module(name)
        print(len(names))
    """

    counted = python("-c", textwrap.dedent(script), cwd=tmp_path)

    assert int(counted) > 30


def blocks(document: str, word: str) -> list[str]:
    """The blocks of Python of *document* that hold *word*, in order."""
    text = (ROOT / document).read_text()
    return [block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if word in block]


def ways_to_set_it() -> dict[str, str]:
    """The settings as the documents print them, as far as the Django at hand knows them."""
    of_both_lines = blocks("docs/quickstart.md", "EMAIL_BACKEND =")
    of_new_line = blocks("README.md", "MAILERS =") + blocks("docs/quickstart.md", "\nMAILERS =")
    found = {f"EMAIL_BACKEND-{number}": block for number, block in enumerate(of_both_lines)}
    if django.VERSION >= (6, 1):
        found |= {f"MAILERS-{number}": block for number, block in enumerate(of_new_line)}
    return found


@pytest.mark.parametrize("settings", ways_to_set_it().values(), ids=ways_to_set_it())
def test_readme_can_be_followed_in_a_new_site(settings, python, scratch):
    """
    A README whose lines do not work costs the reader the first evening. So its own lines are put
    into the site that ``startproject`` makes, with the few names around them that a site has.
    """
    python("-m", "django", "startproject", "site1", scratch)
    python("manage.py", "startapp", "shop", cwd=scratch)
    _follow_the_settings(scratch, settings)
    _follow_the_composer(scratch)

    python("manage.py", "makemigrations", "shop", cwd=scratch)
    python("manage.py", "migrate", "--verbosity", "0", cwd=scratch)
    said = python("manage.py", "shell", "-v", "0", "-c", "import shop.buy", cwd=scratch)

    assert said.split() == ["accepted", "1", "['ann@example.com']"]


def _follow_the_settings(site: Path, block: str) -> None:
    file = site / "site1" / "settings.py"
    # A name of the site's own, as in "env(...)"; and a mailer that this machine can have.
    before = 'def env(name):\n    return "key"\n\n'
    if "EMAIL_BACKEND =" in block:
        # A site that was begun before Django 6.1 has no MAILERS, and hears of that from Django itself.
        before += 'globals().pop("MAILERS", None)\nimport warnings\n'
        before += 'warnings.filterwarnings("ignore", message="The EMAIL_BACKEND setting is deprecated")\n'
    after = """
        for _name in POSTROOM["SEND_WITH"]:
            _mailers = POSTROOM.get("MAILERS") or MAILERS
            _mailers[_name] = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}
        INSTALLED_APPS += ["shop"]
    """
    [of_sqlite] = blocks("docs/quickstart.md", "transaction_mode")
    file.write_text(file.read_text() + before + block + of_sqlite + textwrap.dedent(after))


def _follow_the_composer(site: Path) -> None:
    [block] = blocks("README.md", "@composer")
    composer, _, use = block.partition("with transaction.atomic()")
    assert use, "the README shows how a composer is enqueued in a transaction"
    shop = site / "shop"
    (shop / "models.py").write_text(
        "from django.db import models\n\n\nclass Order(models.Model):\n    email = models.EmailField()\n"
    )
    (shop / "emails.py").write_text(
        "from datetime import timedelta\n"
        "from django.core.mail import EmailMessage\n"
        "from postroom import composer, render\n"
        "from shop.models import Order\n\n" + composer
    )
    templates = shop / "templates" / "shop"
    templates.mkdir(parents=True)
    (templates / "order_confirmation.subject.txt").write_text("Your order {{ order.pk }}")
    (templates / "order_confirmation.txt").write_text("Thank you.")
    (shop / "buy.py").write_text(
        "from django.core import mail\n"
        "from django.db import transaction\n"
        "from postroom import drain\n"
        "from postroom.models import OutboundEmail\n"
        "from shop.emails import order_confirmation\n"
        "from shop.models import Order\n\n"
        "mail.outbox = []\n"
        "with transaction.atomic()" + use.replace("create(...)", 'create(email="ann@example.com")') + "\n"
        "drain()\n"
        "print(OutboundEmail.objects.get().state, len(mail.outbox), mail.outbox[0].to)\n"
    )
