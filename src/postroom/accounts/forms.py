"""The three forms. Fields they do not know are ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.utils.module_loading import import_string
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from postroom.accounts import addresses, usermodel
from postroom.accounts.conf import config

if TYPE_CHECKING:
    from django.http import HttpRequest

PASSWORD_MAX_LENGTH = 1024
"""Bounds the work of one hash. Nobody types more."""


class PasswordField(forms.CharField):
    """
    A password: spaces count, nothing is cut off, what was typed is never shown again.

    The bound is a validator only: a ``maxlength`` attribute would cut a pasted password silently.
    """

    def __init__(self, *, autocomplete: str, **options: Any) -> None:
        widget = forms.PasswordInput(attrs={"autocomplete": autocomplete, "spellcheck": "false"})
        super().__init__(strip=False, widget=widget, **options)
        self.validators.append(MaxLengthValidator(PASSWORD_MAX_LENGTH))


class AddressField(forms.EmailField):
    """An address that a mail server would take."""

    default_validators = [addresses.validate_address]

    def __init__(self, **options: Any) -> None:
        attributes = {
            "autocomplete": "email",
            "inputmode": "email",
            "spellcheck": "false",
            "autocapitalize": "none",
        }
        super().__init__(max_length=addresses.MAX_LENGTH, widget=forms.EmailInput(attributes), **options)


class AccountForm(forms.Form):
    """What the three share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("label_suffix", "")
        super().__init__(*args, **kwargs)

    @property
    def wrong_fields(self) -> list[forms.BoundField]:
        """The fields that need a change, in their order."""
        return [field for field in self if field.errors]


class RegistrationForm(AccountForm):
    """An address and a password. A subclass named by ``REGISTRATION_FORM`` may ask for more."""

    email = AddressField(label=_("E-mail address"))
    password = PasswordField(label=_("Password"), autocomplete="new-password")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["password"].help_text = password_hint()

    def clean_password(self) -> str:
        """Apply the site's own rules, ``AUTH_PASSWORD_VALIDATORS``."""
        password: str = self.cleaned_data["password"]
        # The rule that it must not resemble the address needs an account to look at.
        user = usermodel.unsaved(self.cleaned_data.get("email", ""))
        password_validation.validate_password(password, user)
        return password


class LoginForm(AccountForm):
    """A name, which is the address unless the site's user model says otherwise, and a password."""

    username = forms.CharField(
        label=_("E-mail address"),
        max_length=addresses.MAX_LENGTH,
        # Not type=email: who has another login name could not type it.
        widget=forms.TextInput(
            attrs={
                "autocomplete": "username",
                "inputmode": "email",
                "spellcheck": "false",
                "autocapitalize": "none",
            }
        ),
    )
    password = PasswordField(label=_("Password"), autocomplete="current-password")

    def refuse(self) -> None:
        """Say that this did not work, and nothing about why."""
        self.add_error(None, ValidationError(_("E-mail address or password is not correct."), code="refused"))


class ConfirmForm(AccountForm):
    """Nothing in the registering browser; elsewhere the password chosen at registration."""

    password = PasswordField(
        label=_("Password"),
        autocomplete="current-password",
        help_text=_("The one you chose when you registered."),
    )

    def __init__(self, *args: Any, registering_browser: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if registering_browser:
            del self.fields["password"]

    def refuse(self) -> None:
        """Say that the password is another one; the link stays good."""
        text = _("This is not the password that was chosen at registration. Your link still works.")
        self.add_error("password", ValidationError(text, code="refused"))


def registration_form() -> type[AccountForm]:
    """Return the site's registration form."""
    form: type[AccountForm] = import_string(config().REGISTRATION_FORM)
    return form


def kept_form(request: HttpRequest) -> AccountForm | None:
    """Return the form of a POST to our pages that could not be taken, with all that was typed but the password."""
    match = request.resolver_match
    if match is None or match.func.__module__ != "postroom.accounts.views":
        return None
    if "email" in request.POST:
        return registration_form()(initial=request.POST.dict() | {"password": ""})
    if "username" in request.POST:
        return LoginForm(initial={"username": request.POST["username"]})
    return None


def password_hint() -> str:
    """Say from the start what the site's rules ask for; without a minimum length say only what is good."""
    lengths = [
        validator.min_length
        for validator in password_validation.get_default_password_validators()
        if isinstance(validator, password_validation.MinimumLengthValidator)
    ]
    if not lengths:
        return gettext("A sentence is good.")
    return gettext("%(count)d characters or more. A sentence is good.") % {"count": max(lengths)}
