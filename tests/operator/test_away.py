"""Commands without a database: a sentence, whichever check of Django's meets it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operator.commands import manage


@pytest.mark.parametrize(
    "command",
    [
        "postroom_pause",
        "postroom_resume",
        "postroom_retry --dry-run",
        "postroom_prune",
        "postroom_test ann@example.com",
        "postroom_worker --until-empty",
        "postroom_purge_accounts",
    ],
)
def test_a_database_that_is_away_is_a_sentence(command: str, tmp_path: Path) -> None:
    """On Django 6.1 each of them was forty lines of traceback, the two for cron on 5.2 as well."""
    settings = f"DATABASES['default']['NAME'] = {str(tmp_path / 'nowhere' / 'db.sqlite3')!r}"

    code, text, _seconds = manage(*command.split(), settings=settings, folder=tmp_path)

    assert code in (1, 2)
    assert "Traceback" not in text
    assert "unable to open database file" in text


def test_a_mailer_without_its_key_is_a_sentence_where_somebody_wants_to_send(tmp_path: Path) -> None:
    """It was a traceback of the provider's library; a process that only enqueues needs no key."""
    brevo = {"brevo": {"BACKEND": "anymail.backends.brevo.EmailBackend"}}
    settings = f"POSTROOM = {{'SEND_WITH': ['brevo'], 'MAILERS': {brevo!r}}}"

    code, text, _seconds = manage("postroom_worker", settings=settings, folder=tmp_path)

    assert code == 1
    assert "(postroom.E004) The mailer 'brevo' cannot be used: " in text
    assert "api_key" in text.lower()
    assert "Traceback" not in text
