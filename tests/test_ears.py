"""What wakes a worker, and what must not end it."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connections

from postroom.ears import Ears


@pytest.mark.django_db(transaction=True, databases=["default", "postgres", "mariadb"])
@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_connection_that_is_lost_in_the_middle_of_a_wait_ends_no_worker(database: str) -> None:
    """
    A receiver of the site asked the database while e-mails were in flight, and found out that the
    server had gone. Letting go of the dead connection's descriptor raised what Django does not
    wrap, and the worker died of it.
    """
    import psycopg

    ears, loop = Ears(database), asyncio.new_event_loop()
    try:
        ears.listen()
        raw = connections[database].connection
        sources = ears.sources(rings=True)
        for source in sources:
            loop.add_reader(source, loop.stop)

        with psycopg.connect(raw.info.dsn, host=raw.info.host) as administrator:
            administrator.execute("SELECT pg_terminate_backend(%s)", [raw.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            raw.execute("SELECT 1")

        assert [loop.remove_reader(source) for source in sources] == [True] * len(sources) == [True, True]
        ears.wait(0.1)
    finally:
        ears.close()
        loop.close()
        connections[database].close()
