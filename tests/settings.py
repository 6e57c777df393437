"""Settings of the test suite: the engine and the accounts, on the database that the run asks for."""

import importlib.util
import os
from urllib.parse import urlsplit

import django

from tests.servers import mariadb_server, postgresql_binaries

SECRET_KEY = "a key of the tests and of nothing else, long enough for every check"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEFAULT_FROM_EMAIL = "shop@example.com"
STATIC_URL = "static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "postroom",
    "postroom.accounts",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTHENTICATION_BACKENDS = [
    "postroom.accounts.signin.AddressBackend",
    "django.contrib.auth.backends.ModelBackend",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

_POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "USER": "postgres",
    "HOST": "127.0.0.1",
}
_MARIADB = {
    "ENGINE": "django.db.backends.mysql",
    "NAME": "mysql",
    "USER": "root",
    "HOST": "127.0.0.1",
}
DATABASES: dict[str, dict[str, object]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
        },
        "TEST": {},
    }
}
if postgresql_binaries() and importlib.util.find_spec("psycopg"):
    # The ports are written by conftest, which starts a server when a test needs it.
    DATABASES["postgres"] = {**_POSTGRESQL, "TEST": {"NAME": "test_postroom"}}
if mariadb_server() and importlib.util.find_spec("pymysql"):
    import pymysql

    pymysql.install_as_MySQLdb()
    DATABASES["mariadb"] = {**_MARIADB, "TEST": {"NAME": "test_postroom", "CHARSET": "utf8mb4"}}
_url = urlsplit(os.environ.get("POSTROOM_TEST_DATABASE", ""))
if _url.scheme:
    _base, _port = (_MARIADB, 3306) if _url.scheme in ("mysql", "mariadb") else (_POSTGRESQL, 5432)
    DATABASES["default"] = {
        **_base,
        "NAME": _url.path[1:] or _base["NAME"],
        "USER": _url.username or _base["USER"],
        "PASSWORD": _url.password or "",
        "HOST": _url.hostname,
        "PORT": _url.port or _port,
    }

POSTROOM: dict[str, object] = {"SEND_WITH": ["provider"], "SITE_URL": "http://testserver"}
ANYMAIL = {"WEBHOOK_SECRET": "hook:secret"}
_PROVIDER = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "postroom.backends.OutboxEmailBackend"}, "provider": _PROVIDER}
else:
    EMAIL_BACKEND = "postroom.backends.OutboxEmailBackend"
    POSTROOM["MAILERS"] = {"provider": _PROVIDER}
