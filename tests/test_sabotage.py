"""The sabotages fit the code as it is; whether the tests notice them is for ``make sabotage`` to say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sabotage.__main__ import Run
from tests.sabotage.patches import SABOTAGES, DoesNotApplyError, Sabotage

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = [pytest.param(sabotage, id=sabotage.name) for sabotage in SABOTAGES]


@pytest.mark.parametrize("sabotage", BY_NAME)
def test_sabotage_fits_exactly_one_line_and_leaves_python(sabotage: Sabotage) -> None:
    """A line was rewritten, the sabotage of it changed nothing, and nobody checked the promise any more."""
    path, index = sabotage.place(ROOT / "src" / "postroom")
    lines = path.read_text().splitlines()

    lines[index] = lines[index].replace(sabotage.before, sabotage.after)

    assert sabotage.before != sabotage.after
    ast.parse("\n".join(lines))


@pytest.mark.parametrize("sabotage", BY_NAME)
def test_tests_that_have_to_notice_exist(sabotage: Sabotage) -> None:
    assert sabotage.tests
    for test in sabotage.tests:
        path, *_, name = test.partition("[")[0].split("::")
        names = {
            node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")
        }
        assert name in names, test


@pytest.mark.parametrize(
    ("text", "found"), [("", "nowhere"), ("x = 1\n\nif x:\n    x = 1\n", "a.py:1, a.py:4")]
)
def test_sabotage_of_a_line_that_is_not_there_exactly_once_is_an_error(
    tmp_path: Path, text: str, found: str
) -> None:
    (tmp_path / "a.py").write_text(text)

    with pytest.raises(DoesNotApplyError, match=found):
        Sabotage(name="any", before="x = 1", after="x = 2", tests=()).apply(tmp_path)

    assert (tmp_path / "a.py").read_text() == text


def test_sabotage_keeps_the_indentation_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("if y:\n    x = 1\n    z = 1\n")

    Sabotage(name="any", before="x = 1", after="pass", tests=()).apply(tmp_path)

    assert (tmp_path / "a.py").read_text() == "if y:\n    pass\n    z = 1\n"


def said(*lines: str, exit_code: int = 1) -> Run:
    return Run(exit_code=exit_code, said="\n".join(["F.E", *lines]), seconds=1)


def test_test_is_red_where_one_of_its_cases_failed() -> None:
    run = said("FAILED tests/test_a.py::test_b[sqlite-get] - assert 1 == 2", "FAILED tests/test_a.py::test_c")

    assert run.is_proof
    names = ("test_b", "test_c", "test", "test_d")
    assert [name for name in names if run.is_red(f"tests/test_a.py::{name}")] == ["test_b", "test_c"]


def test_tests_that_could_not_be_run_prove_nothing() -> None:
    """A sabotage that only broke an import was counted as caught."""
    broken = said("FAILED tests/test_a.py::test_b", "ERROR tests/test_a.py::test_c - no such table")

    assert not broken.is_proof
    assert not said("no tests ran", exit_code=4).is_proof
    # What Python itself ends with, when the settings cannot be imported.
    assert not said("ImportError: cannot import name 'outbox'").is_proof
