"""
Settings of the shop, for development as they stand and for the world by environment variables.

``.env.example`` lists the variables. Without ``DEBUG`` everything that only development may do
is refused in one sentence: keys that were made up, links by http, a provider that is played.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import django

from example import broker, environment
from example.environment import BASE_DIR, refuse, text
from postroom.beat import SCHEDULE

environment.read_file(BASE_DIR / ".env")
VAR_DIR = environment.var_dir()
DEBUG = environment.flag("DEBUG", True)
if DEBUG:
    # Of the shop that runs now, so that "manage.py postroom_doctor" beside it speaks of the same one.
    environment.read_file(VAR_DIR / "running.env")
    environment.read_file(VAR_DIR / "secrets.env")


SITE_URL = environment.site_url(f"http://127.0.0.1:{environment.port()}")
_SITE = urlsplit(SITE_URL)
_HTTPS = _SITE.scheme == "https"
_HOSTS = [host.strip() for host in text("ALLOWED_HOSTS").split(",") if host.strip()]
ALLOWED_HOSTS = _HOSTS or [_SITE.hostname or "", *(["127.0.0.1", "localhost", "[::1]"] if DEBUG else [])]
SECRET_KEY = text("SECRET_KEY")
BREVO_WEBHOOK_SECRET = text("BREVO_WEBHOOK_SECRET")
BREVO_API_KEY = text("BREVO_API_KEY")
BREVO_API_URL = text("BREVO_API_URL")
DEFAULT_FROM_EMAIL = environment.sender("Factors <shop@example.com>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
TIME_ZONE = environment.time_zone()

SMTP = environment.smtp_options(timeout=30)
_BREVO = bool(BREVO_API_KEY or BREVO_API_URL or not SMTP)

if DEBUG:
    _SECRETS = VAR_DIR / "secrets.env"
    SECRET_KEY = environment.generated("SECRET_KEY", environment.new_secret(), into=_SECRETS)
    BREVO_WEBHOOK_SECRET = environment.generated(
        "BREVO_WEBHOOK_SECRET", f"brevo:{environment.new_secret()}", into=_SECRETS
    )
else:
    if len(SECRET_KEY) < 40:
        refuse("with DEBUG=off SECRET_KEY must be 40 characters or more that nobody knows.")
    if SECRET_KEY.startswith("django-insecure-") or len(set(SECRET_KEY)) < 5:
        refuse("with DEBUG=off SECRET_KEY must be random, and this one can be guessed.")
    if not _HTTPS:
        refuse(f"with DEBUG=off links must be https. Type SITE_URL=https://{_SITE.netloc}")
    if "DEFAULT_FROM_EMAIL" not in os.environ:
        refuse("with DEBUG=off type DEFAULT_FROM_EMAIL=you@your.domain, an address that your provider knows.")
    if not (BREVO_API_KEY or BREVO_API_URL or SMTP):
        refuse("with DEBUG=off nobody plays the provider. Type BREVO_API_KEY=… or EMAIL_URL=smtp://…")
    if _BREVO and not BREVO_WEBHOOK_SECRET:
        refuse("with DEBUG=off type BREVO_WEBHOOK_SECRET=user:password, and give Brevo the same.")
if BREVO_WEBHOOK_SECRET:
    environment.webhook_secret(BREVO_WEBHOOK_SECRET)


ROOT_URLCONF = "example.urls"
ASGI_APPLICATION = "example.asgi.application"
WSGI_APPLICATION = "example.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "example.accounts",
    "example.shop",
    "postroom",
    "postroom.accounts",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "example.middleware.OneHost",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csp.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "example.middleware.Stopwatch",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "postroom.accounts.middleware.DatabaseAwayMiddleware",
]
if DEBUG:
    INSTALLED_APPS.insert(2, "postroom.mailbox")
if django.VERSION < (6, 0):
    MIDDLEWARE[2] = "example.middleware.ContentSecurityPolicy"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "example" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "example.tour.context",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "example" / "static"]

DATABASES: dict[str, dict[str, Any]] = {"default": environment.database(VAR_DIR / "example.sqlite3")}

USE_TZ = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]


CELERY_BROKER_URL = broker.url()
CELERY_BROKER_TRANSPORT_OPTIONS = broker.transport_options(CELERY_BROKER_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Celery's own limit ends the worker after three quarters of an hour without a broker.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TIMEZONE = "UTC"
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_BEAT_SCHEDULE = SCHEDULE
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat")

POSTROOM = environment.postroom_settings(
    {
        "DOORBELL": "" if CELERY_BROKER_URL == broker.NONE else "celery",
        "SITE_URL": SITE_URL,
        "SITE_NAME": "Factors",
        # A killed worker's e-mails are taken back after 5 s instead of 30: somebody is watching.
        "LEASE_SECONDS": 5,
    }
)
ANYMAIL = {"WEBHOOK_SECRET": BREVO_WEBHOOK_SECRET} if BREVO_WEBHOOK_SECRET else {}

_API_URL = environment.brevo_api_url(
    "https://api.brevo.com/v3/" if BREVO_API_KEY else "http://127.0.0.1:9025/v3/"
)
PROVIDER_URL = _API_URL if _BREVO else ""
_MAILERS: dict[str, dict[str, Any]] = {}
if _BREVO:
    _MAILERS["brevo"] = {
        "BACKEND": "anymail.backends.brevo.EmailBackend",
        "OPTIONS": {"api_key": BREVO_API_KEY or "played", "api_url": PROVIDER_URL},
    }
if SMTP:
    _MAILERS["smtp"] = {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": SMTP}
POSTROOM["SEND_WITH"] = list(_MAILERS)
if DEBUG:
    # The mailbox at /mailbox/ records what goes by, and passes it on.
    _MAILERS = {
        alias: {
            "BACKEND": "postroom.mailbox.EmailBackend",
            "OPTIONS": {"path": str(environment.private(VAR_DIR / "mailbox.sqlite3")), "behind": mailer},
        }
        for alias, mailer in _MAILERS.items()
    }
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "postroom.backends.OutboxEmailBackend"}, **_MAILERS}
else:
    EMAIL_BACKEND = "postroom.backends.OutboxEmailBackend"
    POSTROOM["MAILERS"] = _MAILERS


AUTH_USER_MODEL = "accounts.Account"
AUTHENTICATION_BACKENDS = [
    "postroom.accounts.signin.AddressBackend",
    "django.contrib.auth.backends.ModelBackend",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
_VALIDATION = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"{_VALIDATION}.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": f"{_VALIDATION}.UserAttributeSimilarityValidator", "OPTIONS": {"user_attributes": ["email"]}},
    {"NAME": f"{_VALIDATION}.CommonPasswordValidator"},
    {"NAME": f"{_VALIDATION}.NumericPasswordValidator"},
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
if find_spec("argon2"):
    PASSWORD_HASHERS.insert(0, "django.contrib.auth.hashers.Argon2PasswordHasher")


SECURE_CSP = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "object-src": ["'none'"],
    "frame-ancestors": ["'none'"],
}
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _HTTPS
CSRF_TRUSTED_ORIGINS = [SITE_URL]
CSRF_FAILURE_VIEW = "postroom.accounts.views.csrf_failure"
if _HTTPS:
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz/"]
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"no_links": {"()": "example.log.NoLinks"}},
    "formatters": {
        "people": {"format": "%(asctime)s %(levelname)s %(message)s"},
        # For the terminal of "python -m example", which makes sentences of it.
        "lines": {"format": "%(levelname)s %(name)s %(message)s"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "lines" if text("POSTROOM_LINES") else "people",
        }
    },
    "loggers": {
        "postroom": {"handlers": ["console"], "level": "INFO", "propagate": False},
        "django": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        # The path of a confirmation link is a secret.
        "uvicorn.access": {"filters": ["no_links"]},
        "django.server": {"filters": ["no_links"]},
        "django.request": {"filters": ["no_links"], "level": "ERROR"},
    },
}
