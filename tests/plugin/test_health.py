"""What probes and monitoring are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from databases import tamper
from labelguard.store import records, schema
from webservice import NOW, PROJECT, Service, service, submission


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A running service."""
    with service(tmp_path) as running:
        yield running


def ready(web: Service) -> tuple[int, dict[str, Any]]:
    """What the readiness probe is answered."""
    answer = web.client.get("/readyz")
    return answer.status_code, json.loads(answer.data)


def test_the_process_is_alive(web: Service) -> None:
    """The liveness probe asks nothing of the store."""
    web.store.close()

    assert web.client.get("/healthz").status_code == 200


def test_a_working_service_is_ready(web: Service) -> None:
    """Each check is named."""
    answer = web.client.get("/readyz")

    assert answer.status_code == 200
    assert answer.json == {
        "ready": True,
        "degraded": False,
        "checks": {
            "store_readable": {"ok": True},
            "store_writable": {"ok": True},
            "worker": {"ok": True},
            "label_studio": {"ok": True},
            "actions": {"ok": True},
            "engine_process": {"ok": True},
        },
    }


def test_a_store_that_is_gone_makes_it_unready(web: Service) -> None:
    """The answer says which check failed and what to look at."""
    web.store.close()
    status, said = ready(web)

    assert status == 503
    assert said["ready"] is False
    assert said["checks"]["store_writable"] == {
        "ok": False,
        "problem": "The store cannot be written: look at the disk's free space and the file's permissions.",
    }


def test_a_store_that_cannot_be_written_makes_it_unready(tmp_path: Path) -> None:
    """A store that is damaged shows as one that cannot be written, while it can still be read."""
    with service(tmp_path) as web:
        tamper(tmp_path, "DROP TABLE cursors")
        checks = ready(web)[1]["checks"]

    assert checks["store_readable"] == {"ok": True}
    assert checks["store_writable"]["ok"] is False


def test_a_delivery_turned_away_makes_it_unready_for_a_moment(tmp_path: Path) -> None:
    """A full disk may have room for a probe's small write and none for a delivery: the delivery is believed."""
    with service(tmp_path) as web:
        assert ready(web)[0] == 200
        tamper(tmp_path, "ALTER TABLE inbox RENAME TO elsewhere")
        assert web.deliver(submission("spam")).status_code == 503
        tamper(tmp_path, "ALTER TABLE elsewhere RENAME TO inbox")
        status, said = ready(web)
        web.clock.move(seconds=6)
        after = ready(web)[0]

    assert (status, after) == (503, 200)
    assert said["checks"]["store_readable"] == {"ok": True}
    assert said["checks"]["store_writable"]["ok"] is False


def test_asking_often_writes_seldom(web: Service) -> None:
    """Anybody may ask, so the check that writes is remembered for some seconds."""
    web.client.get("/readyz")
    web.clock.move(seconds=3)
    web.client.get("/readyz")
    with web.store.read() as conn:
        written = conn.scalar(sa.select(schema.cursors.c.updated_at).where(schema.cursors.c.name == "readyz"))
    web.clock.move(seconds=3)
    web.client.get("/readyz")
    with web.store.read() as conn:
        again = conn.scalar(sa.select(schema.cursors.c.updated_at).where(schema.cursors.c.name == "readyz"))

    assert (written, again) == (NOW, web.clock.now)


def test_a_worker_that_stopped_makes_it_unready(web: Service) -> None:
    """Deliveries would be taken in and never judged."""
    web.engine.stop()

    status, said = ready(web)

    assert status == 503
    assert said["checks"]["worker"]["problem"] == (
        "The worker that judges deliveries is not running: restart labelguard."
    )


def test_a_label_studio_that_does_not_answer_degrades_it_and_no_more(web: Service) -> None:
    """No balancer should take a service away that still takes deliveries in and judges them."""

    def run(conn: sa.Connection, error: str | None = None) -> None:
        records.finish_job(conn, records.start_job(conn, "reconcile", PROJECT, NOW), NOW, error=error)

    web.store.write(lambda conn: run(conn, "Label Studio did not answer."))
    status, said = ready(web)

    assert (status, said["ready"], said["degraded"]) == (200, True, True)
    assert said["checks"]["label_studio"]["problem"] == (
        "Label Studio could not be worked with at 12:00 UTC, for project 3: Label Studio did not answer. "
        "Deliveries are taken in and judged; what is missed meanwhile is read later."
    )
    web.store.write(run)
    assert ready(web)[1]["degraded"] is False


def test_actions_that_are_stopped_degrade_it(web: Service) -> None:
    """Somebody stopped them for a reason, and should not forget it."""
    web.store.write(lambda conn: records.set_actions_enabled(conn, False, by="Ada", now=NOW))
    status, said = ready(web)

    assert (status, said["degraded"]) == (200, True)
    assert said["checks"]["actions"]["problem"] == (
        "All actions are stopped; `labelguard actions resume` lets them happen again."
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nothing", "/api/v1/status", "/status.css"])
def test_everything_served_is_locked_down(web: Service, path: str) -> None:
    """Whatever is served runs no scripts, is put in no frame and gives no address away."""
    headers = web.client.get(path, buffered=True).headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
