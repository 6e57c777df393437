"""Settings that cannot be meant are refused with a sentence."""

from typing import Any

import pytest
from django.core.checks import run_checks

from postroom.accounts.conf import AccountsSettingsError, config

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"VERIFICATION_MAX_AGE": 60}, "Did you mean 'VERIFICATION_MAX_AGE_SECONDS'?"),
        ({"COLOUR": "red"}, "It knows: "),
        ({"LOGIN_AFTER_VERIFICATION": 1}, "is of type bool"),
        ({"VERIFICATION_MAX_AGE_SECONDS": "86400"}, "is of type int"),
        ({"VERIFICATION_MAX_AGE_SECONDS": 600}, "must be more than 600"),
        ("everything", "is a dictionary"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(settings: Any, given: Any, says: str):
    settings.POSTROOM_ACCOUNTS = given

    with pytest.raises(AccountsSettingsError, match=says.replace("?", r"\?")):
        config()
    assert [check.id for check in run_checks(app_configs=[]) if check.id == "postroom_accounts.E001"]


@pytest.mark.parametrize("name", ["REGISTRATION_FORM", "CREATE_USER"])
@pytest.mark.parametrize("path", ["no.such.module", "postroom.accounts.forms.Missing", "plain", ""])
def test_a_path_that_leads_nowhere_is_said_at_the_start(settings: Any, name: str, path: str):
    """It was a 500 at the first registration."""
    settings.POSTROOM_ACCOUNTS = {name: path}

    [error] = [check for check in run_checks(app_configs=[]) if check.id == "postroom_accounts.E002"]

    assert f"POSTROOM_ACCOUNTS['{name}'] cannot be imported: " in error.msg


def test_a_missing_backend_is_said_at_the_start(settings: Any):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]

    assert "postroom_accounts.W001" in [check.id for check in run_checks(app_configs=[])]
