"""The shop for an ASGI server: ``uvicorn example.asgi:application``."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

# One process, no web server in front that could serve the few static files.
application = ASGIStaticFilesHandler(get_asgi_application())
