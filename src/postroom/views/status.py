"""
The status of one e-mail as JSON, for the session that holds its receipt and for nobody else.
"""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest, JsonResponse
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from postroom.status import describe, email_of, receipt_for


@require_safe
def status(request: HttpRequest, uuid: UUID) -> JsonResponse:
    """
    Answer with the status, or with ``404 {"status": "none"}`` for everything that is not held.

    The 404 has the same bytes for an unknown, a foreign and a forgotten e-mail. ``?zone=`` is the
    visitor's time zone; nothing else in the request is looked at, and nothing is changed.
    """
    receipt = receipt_for(request, uuid)
    email = email_of(uuid) if receipt else None
    if receipt is None or email is None:
        return _private(JsonResponse({"status": "none"}, status=404))
    told = describe(
        email, address=receipt.address, type=receipt.type, time_zone=request.GET.get("zone") or None
    )
    return _private(JsonResponse(told.as_json()))


def _private(response: JsonResponse) -> JsonResponse:
    """Keep the answer out of every cache; with ``no-store`` Django's middleware adds no ETag either."""
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Cookie"])
    return response
