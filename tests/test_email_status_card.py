"""The card ``{% email_status %}``, the base template, and the style sheet of both."""

from __future__ import annotations

import re
import uuid
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from django.template import Context, RequestContext, Template
from django.test import RequestFactory
from django.utils import timezone, translation

import postroom
from postroom.models import EventType, State
from postroom.status import Receipt, describe
from tests.rows import row

ANN = "ann@example.org"
CSS = (Path(postroom.__path__[0]) / "static/postroom/postroom.css").read_text()


def page(source: str, **context: Any) -> str:
    template = Template("{% load postroom %}" + source)
    return template.render(RequestContext(RequestFactory().get("/"), context))


@pytest.mark.django_db
def test_card_shows_the_state_and_where_to_ask_for_the_next() -> None:
    email = row(State.ACCEPTED, report=EventType.DELIVERED, report_rank=50)
    email.save()

    html = page("{% email_status receipt %}", receipt=Receipt(uuid=email.uuid, address=ANN))

    assert "It has arrived at example.org" in html
    assert f'data-url="/mail/status/{email.uuid}/"' in html
    assert 'data-status="sent" data-detail="delivered"' in html
    assert html.count('role="status"') == 1
    assert '<p class="visually-hidden" role="status" data-part="live"></p>' in html
    assert "Check again" in html
    assert "done</span>" in html


@pytest.mark.django_db
def test_two_cards_on_a_page_bring_script_and_style_sheet_once() -> None:
    one, two = row(), row()
    one.save()
    two.save()

    html = page("{% postroom_css %}{% email_status one %}{% email_status two %}", one=one, two=two)

    assert html.count("email-status.js") == html.count("postroom.css") == 1
    assert html.count('<section class="email-status"') == 2


@pytest.mark.django_db
def test_card_escapes_what_the_visitor_typed() -> None:
    email = row()
    email.save()

    html = page("{% email_status r %}", r=Receipt(uuid=email.uuid, address="<script>alert(1)</script>@x.org"))

    assert "<script>alert" not in html


@pytest.mark.django_db
def test_app_that_knows_more_tells_its_own_story() -> None:
    told = describe(row(), verified_at=timezone.now(), type="verification")

    html = page("{% email_status url='/accounts/api/' status=told next_label='Log in' %}", told=told)

    assert 'data-url="/accounts/api/"' in html
    assert "Your address is confirmed" in html
    assert 'data-terminal="true"' in html


@pytest.mark.django_db
def test_card_of_an_email_that_is_gone_is_nothing() -> None:
    assert page("{% email_status receipt %}", receipt=Receipt(uuid=uuid.uuid4())) == ""
    assert page("{% email_status receipt %}", receipt=None) == ""
    assert Template("{% load postroom %}{% email_status nothing %}").render(Context()) == ""


@pytest.mark.django_db
def test_page_has_neither_inline_script_nor_inline_style() -> None:
    """The strict policy of the site would switch them off, and nobody would notice in development."""
    email = row()
    email.save()

    template = Template(
        "{% extends 'postroom/base.html' %}{% load postroom %}"
        "{% block content %}{% email_status email %}{% endblock %}"
    )
    html = template.render(Context({"email": email}))

    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert html.count("postroom.css") == 1
    assert '<html lang="en"' in html


def test_page_of_a_language_written_from_the_right_says_so() -> None:
    with translation.override("ar"):
        html = Template("{% extends 'postroom/base.html' %}").render(Context())

    assert '<html lang="ar" dir="rtl">' in html


# ---- the style sheet ---------------------------------------------------------------------------


def colours(scheme: str) -> dict[str, str]:
    """The custom properties of one scheme, read from the style sheet itself."""
    light, _, dark = CSS.partition("@media (prefers-color-scheme: dark)")
    source = light if scheme == "light" else light + dark.partition("/* ---- page")[0]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", source))


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, "relative luminance"."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


READ = [
    *product(("ink", "muted", "accent", "accent-strong"), ("paper", "surface", "sunken")),
    *product(("ok", "late", "stopped"), ("paper", "surface")),
    *((tone, f"{tone}-soft") for tone in ("ok", "late", "stopped")),
    *(("ink", f"{tone}-soft") for tone in ("accent", "ok", "late", "stopped")),
    *(("accent", f"{tone}-soft") for tone in ("accent", "ok", "late")),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_every_ground(scheme: str) -> None:
    values = colours(scheme)

    weak = {pair: contrast(values[pair[0]], values[pair[1]]) for pair in READ}

    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_of_fields_and_the_focus_can_be_seen(scheme: str) -> None:
    values = colours(scheme)

    seen = {
        pair: contrast(values[pair[0]], values[pair[1]])
        for pair in product(("edge", "focus"), ("paper", "surface"))
    }

    assert {pair: ratio for pair, ratio in seen.items() if ratio < 3} == {}


def test_style_sheet_never_touches_a_sites_own_elements() -> None:
    """The card brings it along onto pages with a style of their own."""
    rules = re.sub(r"/\*.*?\*/", "", CSS, flags=re.S)
    selectors = re.findall(r"(?:^|[{};])\s*([^{};@]+)\{", rules)
    parts = [part.strip() for selector in selectors for part in re.split(r",(?![^(]*\))", selector)]

    strangers = [part for part in parts if not part.startswith((".postroom", ".email-status", "to"))]

    assert strangers == []


def test_style_sheet_brings_nothing_from_elsewhere() -> None:
    assert not re.search(r"url\(|@import|https?:", CSS)
