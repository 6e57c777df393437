"""The errors that postroom raises. A failed attempt is data (an event), never one of these."""

from django.core.exceptions import ImproperlyConfigured


class PostroomError(Exception):
    """Something that postroom refuses to do; the message says what happened and what to do."""


class SettingsError(PostroomError, ImproperlyConfigured):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class UnknownKind(PostroomError, LookupError):
    """No composer of this name is registered in the code that runs now."""


class NotAllowed(PostroomError, ValueError):
    """The e-mail is in a state from which this verb does not lead anywhere."""


class ArgumentsNotJSON(PostroomError, TypeError):
    """A composer was asked to remember an argument that JSON cannot carry."""


class TextNotStorable(PostroomError, ValueError):
    """A message holds a character that no database of ours could give back: NUL, or half of a surrogate pair."""
