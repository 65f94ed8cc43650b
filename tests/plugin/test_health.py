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


def numbers(web: Service) -> dict[str, float]:
    """The metrics, by name with labels."""
    lines = web.client.get("/metrics").get_data(as_text=True).splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


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
        "checks": {"store_readable": {"ok": True}, "store_writable": {"ok": True}, "worker": {"ok": True}},
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


def test_the_metrics_count_deliveries_and_what_came_of_them(web: Service) -> None:
    """Deliveries, findings, actions and refusals are counted by what they were."""
    web.deliver(submission("spam"))
    web.deliver(submission("spam", "important", annotation=12, task=8))
    web.deliver({"action": "SOMETHING_NEW", "project": {"id": PROJECT}})
    web.deliver({"action": "SOMETHING_ELSE", "project": {"id": PROJECT}})
    web.deliver(b"{")
    found = numbers(web)

    assert found['labelguard_deliveries{action="ANNOTATION_CREATED",state="done"}'] == 2
    unknown = [value for name, value in found.items() if name.startswith('labelguard_deliveries{action="unknown"')]
    assert sum(unknown) == 2
    assert found["labelguard_rejected_total"] == 1
    assert found["labelguard_pending"] == 0
    assert found['labelguard_findings{rule="label-constraints",state="open"}'] == 1
    assert sum(v for k, v in found.items() if k.startswith('labelguard_actions{kind="prompt"')) == 1
    assert found['labelguard_receive_seconds_count{status="200"}'] == 4
    assert found['labelguard_receive_seconds_count{status="400"}'] == 1
    assert found["labelguard_actions_enabled"] == 1


def test_the_metrics_tell_how_long_the_oldest_has_waited(tmp_path: Path) -> None:
    """A growing queue can be alarmed on before it hurts; after a minute the service is not ready either."""
    with service(tmp_path, inline_deadline=0) as web:
        web.engine.stop()
        web.deliver(submission("spam"))
        web.clock.move(seconds=75)
        web.deliver(submission("spam", annotation=12))
        found = numbers(web)

    assert found["labelguard_pending"] == 2
    assert found["labelguard_pending_oldest_seconds"] == 75


def test_refusals_are_counted_beyond_those_that_are_kept(web: Service) -> None:
    """The counter goes on when the oldest refusals are thrown away."""
    web.engine = type(web.engine)(web.store, web.clock, keep_rejected=2)
    for size in range(5):
        web.engine.reject(PROJECT, "too odd", size)

    with web.store.read() as conn:
        assert len(records.list_rejected(conn)) == 2
    assert numbers(web)["labelguard_rejected_total"] == 5


def test_two_services_in_one_process_do_not_share_numbers(web: Service, tmp_path: Path) -> None:
    """The registry belongs to the application, not to the process."""
    web.deliver(submission("spam"))
    other = tmp_path / "other"
    other.mkdir()
    with service(other) as second:
        assert 'labelguard_receive_seconds_count{status="200"}' not in numbers(second)


def test_jobs_are_counted_by_how_they_ended(web: Service) -> None:
    """A job that fails night after night shows."""

    def run(conn: sa.Connection) -> None:
        for error in (None, "Label Studio did not answer.", None):
            records.finish_job(conn, records.start_job(conn, "audit", PROJECT, NOW), NOW, error=error)

    web.store.write(run)

    assert numbers(web)['labelguard_job_runs{job="audit",state="done"}'] == 2
    assert numbers(web)['labelguard_job_runs{job="audit",state="failed"}'] == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nothing", "/api/v1/status", "/status.css"])
def test_everything_served_is_locked_down(web: Service, path: str) -> None:
    """Whatever is served runs no scripts, is put in no frame and gives no address away."""
    headers = web.client.get(path, buffered=True).headers

    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
