"""
The sabotages, and how a line is found.

A line is looked for in all of the package, so that code may move between modules. It has to be
there exactly once: a patch that fits nowhere, or in two places, proves nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class DoesNotApplyError(LookupError):
    """The line to replace is not there exactly once; ``patches.py`` has to follow the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One line of the package, replaced by a wrong one."""

    name: str
    before: str
    """The line without its indentation, which stays."""

    after: str
    tests: tuple[str, ...]
    """Node ids of the tests that have to turn red, each in at least one of its cases."""

    def place(self, package: Path) -> tuple[Path, int]:
        """Return the file and the index of the line; raises DoesNotApplyError."""
        places = [
            (path, index)
            for path in sorted(package.rglob("*.py"))
            for index, line in enumerate(path.read_text().splitlines())
            if line.strip() == self.before
        ]
        if len(places) != 1:
            found = ", ".join(f"{path.relative_to(package)}:{index + 1}" for path, index in places)
            raise DoesNotApplyError(f"{self.name}: {self.before!r} is found {found or 'nowhere'}")
        return places[0]

    def apply(self, package: Path) -> None:
        """Replace the line in the files below *package*; raises DoesNotApplyError."""
        path, index = self.place(package)
        lines = path.read_text().splitlines(keepends=True)
        lines[index] = lines[index].replace(self.before, self.after)
        path.write_text("".join(lines))


SABOTAGES = (
    Sabotage(
        name="settle without claim_id",
        before='named &= Q(state=State.SENDING, claim_id=Col("given", _field("claim_id")))',
        after="named &= Q(state=State.SENDING)",
        tests=(
            "tests/conformance/test_settle.py::test_worker_that_lost_its_claim_cannot_end_the_claim_of_another",
            "tests/conformance/test_claim.py::test_renewal_of_a_claim_that_somebody_else_holds_does_nothing",
        ),
    ),
    Sabotage(
        name="claim without its guard",
        before="return self.filter(state=State.PENDING, due_at__lte=now or timezone.now())",
        after="return self.filter(due_at__lte=now or timezone.now())",
        tests=("tests/conformance/test_claim.py::test_claimed_email_is_not_claimed_again",),
    ),
    Sabotage(
        name="ring before commit",
        before="transaction.on_commit(lambda: ring(using), using=using, robust=True)",
        after="ring(using)",
        tests=(
            "tests/conformance/test_enqueue.py::test_bell_rings_after_the_commit_and_not_before",
            "tests/conformance/test_enqueue.py::test_rollback_leaves_nothing",
        ),
    ),
    Sabotage(
        name="compose in the sending thread",
        before="email, message = prepared.email, prepared.message",
        after="email, message = prepared.email, compose(prepared.email)",
        tests=("tests/test_worker.py::test_loop_writes_the_messages_and_senders_only_send",),
    ),
    Sabotage(
        name="no key",
        before="message.extra_headers[IDEMPOTENCY_HEADERS[self.provider]] = key",
        after="pass",
        tests=("tests/test_mailers.py::test_provider_recognises_a_repeat_by_its_key",),
    ),
    Sabotage(
        name="new key per repeat",
        before="return str(uuid.uuid5(self.uuid, str(self.epoch)))",
        after="return str(uuid.uuid5(self.uuid, str(self.attempt)))",
        tests=("tests/conformance/test_doubt.py::test_with_a_key_no_answer_is_repeated_with_the_same_key",),
    ),
    Sabotage(
        name="read time-out judged safe",
        before='"requests.ReadTimeout": FailureClass.UNCERTAIN,',
        after='"requests.ReadTimeout": FailureClass.TRANSIENT,',
        tests=("tests/test_failures.py::test_accident_after_the_body_left_is_doubt[read_timeout]",),
    ),
    Sabotage(
        name="no renewal",
        before="self._renew()",
        after="pass",
        tests=("tests/test_worker.py::test_lease_is_renewed_for_as_long_as_the_provider_takes",),
    ),
    Sabotage(
        name="GET confirms",
        before="form = ConfirmForm(_posted(request), registering_browser=here)",
        after="form = ConfirmForm(request.POST, registering_browser=here)",
        tests=(
            "tests/accounts/test_activate.py::TestOpening::test_a_hundred_looks_change_nothing[True-get]",
        ),
    ),
    Sabotage(
        name="confirm without session or password",
        before="if not (registering_browser or has_password(registration, password)):",
        after="if password and not has_password(registration, password):",
        tests=(
            "tests/accounts/test_verification.py::TestConfirm::test_a_link_without_the_person_confirms_nothing",
        ),
    ),
    Sabotage(
        name="other text for a taken address",
        before='return _page(request, "check_email", attempt=attempt, status=progress.of(attempt))',
        after='return _page(request, "check_email" if attempt.user else "already_confirmed", attempt=attempt, '
        "status=progress.of(attempt))",
        tests=(
            "tests/accounts/test_pages.py::TestRegister::test_the_answer_is_the_same_for_every_address",
            "tests/accounts/test_pages.py::TestLogin::test_register_then_login_gives_the_same_page_for_free_and_taken",
        ),
    ),
    Sabotage(
        name="status by ?email=",
        before="return _attempt(held[-1]) if held else None",
        after="return _attempt(held[-1]) if held else "
        'Registration.objects.filter(address=request.GET.get("email")).first()',
        tests=(
            "tests/accounts/test_pages.py::TestStatusAPI::test_whoever_has_no_receipt_gets_one_and_the_same_answer",
        ),
    ),
    Sabotage(
        name="a report lowers the rank",
        before="for event in sorted(reports, key=strength):",
        after="for event in reports:",
        tests=(
            "tests/conformance/test_reports.py::test_late_bounce_beats_a_delivery_and_not_the_other_way_round",
            "tests/conformance/test_reports.py::test_same_reports_give_the_same_answer_in_every_order",
        ),
    ),
    Sabotage(
        name="poison leaves the loop",
        before="except Exception as error:  # noqa: BLE001 - a composer is the site's code and may fail in any way",
        after="except () as error:",
        tests=("tests/test_worker.py::test_e_mail_that_cannot_be_written_stops_nobody_and_is_not_lost",),
    ),
)
"""In the order of an e-mail's life, the accounts after the engine's own."""
