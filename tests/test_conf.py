"""``settings.POSTROOM``: what cannot be meant is refused, with a word that helps."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django.fixtures import Settings

from postroom.conf import Config, config
from postroom.exceptions import SettingsError


def test_nothing_set_is_the_defaults(settings: Settings) -> None:
    settings.POSTROOM = {}
    assert config() == Config()

    del settings.POSTROOM
    assert config() == Config()


def test_setting_is_heard_at_once(settings: Settings) -> None:
    """Tests override settings: a value kept from before would be another site's."""
    settings.POSTROOM = {"CONCURRENCY": 4, "SEND_WITH": ["brevo", "smtp"]}

    assert config().CONCURRENCY == 4
    assert config().SEND_WITH == ("brevo", "smtp")


def test_misspelt_setting_is_refused_with_a_suggestion(settings: Settings) -> None:
    """A time-out under a wrong name is no time-out, and nobody notices until the night."""
    settings.POSTROOM = {"send_timeout": 10}

    with pytest.raises(SettingsError, match="Did you mean 'SEND_TIMEOUT_SECONDS'"):
        config()


def test_setting_that_resembles_none_gets_the_list(settings: Settings) -> None:
    settings.POSTROOM = {"XYZ": 1}

    with pytest.raises(ImproperlyConfigured, match="It knows: ATTEMPT_SECONDS, BACKOFF_BASE_SECONDS"):
        config()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SEND_WITH", "brevo"),
        ("SEND_WITH", []),
        ("MAILERS", ["brevo"]),
        ("DOORBELL", None),
        ("ONLY_TO", 7),
        ("CONCURRENCY", "32"),
        ("CONCURRENCY", 0),
        ("LEASE_SECONDS", -1),
        ("MAX_STRIKES", True),
        ("BACKOFF_CAP_SECONDS", None),
    ],
)
def test_value_that_cannot_be_meant_is_refused_by_name(settings: Settings, key: str, value: Any) -> None:
    settings.POSTROOM = {key: value}

    with pytest.raises(SettingsError, match=key):
        config()


def test_defaults_agree_with_each_other() -> None:
    """A claim outlives its renewal, an attempt its read, a budget a night of two hours."""
    defaults = Config()

    assert defaults.ATTEMPT_SECONDS > defaults.SEND_TIMEOUT_SECONDS
    assert defaults.STOP_SECONDS < defaults.LEASE_SECONDS
    assert defaults.BACKOFF_BASE_SECONDS < defaults.BACKOFF_CAP_SECONDS
