"""A letter is taken apart without trusting it."""

from __future__ import annotations

from email.message import EmailMessage as MIMEMessage

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives

from postroom.mailbox.contents import find_link, framed_html, read
from tests.mailbox.far_sides import message

SITE = "https://shop.example"


def source(text: str, html: str = "") -> bytes:
    composed = EmailMultiAlternatives("Hello", text, "shop@example.com", ["ann@example.com"])
    if html:
        composed.attach_alternative(html, "text/html")
    return bytes(composed.message().as_bytes())


def link_in(text: str, html: str = "", site: str = SITE) -> str | None:
    found = find_link(read(source(text, html)), site)
    return found.url if found else None


def test_text_html_headers_and_attachments_are_found() -> None:
    composed = message(headers={"X-Note": "first"}, cc=["bob@example.com"])
    composed.attach("bill.pdf", b"17 pounds", "application/pdf")

    contents = read(bytes(composed.message().as_bytes()))

    assert contents.text.startswith("Hello,\n\nhttp://testserver/accounts/activate/")
    assert "<p>Hello</p>" in contents.html
    assert contents.header_dict()["X-Note"] == "first"
    assert contents.header_dict()["Cc"] == "bob@example.com"
    assert [(file.name, file.type, file.size) for file in contents.attachments] == [
        ("bill.pdf", "application/pdf", 9)
    ]


def test_text_beyond_ascii_survives() -> None:
    contents = read(source("Grüße, আপনার 🎉\n", "<p>Grüße 🎉</p>"))

    assert contents.text == "Grüße, আপনার 🎉\n"
    assert "Grüße 🎉" in contents.html


def test_headers_that_come_twice_are_joined() -> None:
    assert read(b"Received: one\nReceived: two\n\n").header_dict() == {"Received": "one, two"}


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff\xfe\x00",
        b"Content-Type: multipart/alternative; boundary=x\n\nno part at all",
        b"Content-Type: multipart/mixed\n\n",
        b"Content-Type: text/plain; charset=no-such-charset\n\nhello",
        b"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: base64\n\n!!!!",
        b"From: <<>>,,@\nTo: =?utf-8?q?=?= <\nDate: yesterday\nContent-Type: ;;;\n\nhello",
        b"Content-Disposition: attachment; filename=\n\nhello",
        b"Content-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: inner\n\nhello",
    ],
)
def test_a_broken_message_is_shown_as_far_as_it_goes(broken: bytes) -> None:
    contents = read(broken)

    assert isinstance(contents.text, str)
    assert isinstance(framed_html(contents), str)
    assert find_link(contents, SITE) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://shop.example/activate/MQ/abc-def/.", "https://shop.example/activate/MQ/abc-def/"),
        ("<https://shop.example/activate/MQ/abc/>", "https://shop.example/activate/MQ/abc/"),
        ("https://SHOP.example/a https://shop.example/b", "https://SHOP.example/a"),
        ("https://shop.example/ then https://shop.example/verify/1/", "https://shop.example/verify/1/"),
        (
            "https://elsewhere.example/activate/1/ https://shop.example/orders/1/",
            "https://shop.example/orders/1/",
        ),
        ("https://shop.example.evil.example/activate/1/", None),
        ("https://shop.example@evil.example/activate/1/", None),
        ("https://shop.example:8443/activate/1/", None),
        ("javascript:alert(1)//https shop.example", None),
        ("https://[shop.example/activate/", None),
        ("no link", None),
    ],
)
def test_the_button_opens_a_link_of_the_site_and_no_other(text: str, expected: str | None) -> None:
    """No e-mail may put a foreign link under a button that looks like ours."""
    assert link_in(text) == expected


def test_a_link_that_confirms_is_told_from_another() -> None:
    confirming = find_link(read(source("https://shop.example/activate/1/")), SITE)
    other = find_link(read(source("https://shop.example/orders/1/?next=/activate/")), SITE)

    assert confirming is not None
    assert confirming.confirms
    assert other is not None
    assert not other.confirms


def test_without_a_text_the_links_of_the_html_count() -> None:
    html = '<a href="javascript:alert(1)">x</a><a class=b href="https://shop.example/activate/1/?a=1&amp;b=2">y</a>'
    composed = EmailMessage("Hello", html, "shop@example.com", ["ann@example.com"])
    composed.content_subtype = "html"

    found = find_link(read(bytes(composed.message().as_bytes())), SITE)

    assert found is not None
    assert found.url == "https://shop.example/activate/1/?a=1&b=2"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (
            "<!DOCTYPE html><html><head lang=en><title>x</title>",
            '<!DOCTYPE html><html><head lang=en><base target="_blank"><title>x</title>',
        ),
        ("<!doctype html>\n<p>x</p>", '<!doctype html><base target="_blank">\n<p>x</p>'),
        ("<p>x</p>", '<base target="_blank"><p>x</p>'),
        ("<header>x</header>", '<base target="_blank"><header>x</header>'),
    ],
)
def test_links_of_the_framed_html_open_a_new_tab(html: str, expected: str) -> None:
    """In the frame itself the site's own pages would be refused, and the confirm link with them."""
    assert framed_html(read(source("x", html))).strip() == expected


def test_inline_pictures_are_shown() -> None:
    composed = MIMEMessage()
    composed.set_content("Hello")
    composed.add_alternative('<img src="cid:logo">', subtype="html")
    composed.add_attachment(b"GIF89a", "image", "gif", cid="<logo>", disposition="inline")

    assert '<img src="data:image/gif;base64,R0lGODlh">' in framed_html(read(composed.as_bytes()))
