"""What monitoring is told: queues and jobs out of the store, and what the process measured of its own work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from databases import SQLITE
from deliveries import PROJECT, annotation, created
from fakestudio import FakeNotifier, FakeStudio
from guarded import Guarded, guarded, policy
from labelguard.connectors import ConnectorError
from labelguard.outbox import Outbox
from labelguard.schedule import Jobs
from labelguard.settings import Settings
from labelguard.store import records, schema
from labelguard.web.metrics import Metrics
from webservice import NOW, Service, service, submission

WRONG = ("spam", "important")


def numbers(text: str) -> dict[str, float]:
    """The metrics, by name with labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def counted(found: dict[str, float], metric: str, label: str) -> float:
    """A metric's sum over all series with a label."""
    return sum(value for name, value in found.items() if name.startswith(metric + "{") and label in name)


def scrape(web: Service) -> dict[str, float]:
    """What ``/metrics`` tells."""
    return numbers(web.client.get("/metrics").get_data(as_text=True))


def told(world: Guarded) -> dict[str, float]:
    """What the numbers of a labelguard without a web side are."""
    return numbers(Metrics(world.store, world.engine, world.clock).exposition().decode())


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Service]:
    """A running service."""
    with service(tmp_path) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Guarded]:
    """A labelguard that gives wrong annotations to another annotator and tells the lead."""
    with guarded(tmp_path, policy(actions="[replace, {notify: lead}]", people="{lead: [ops]}")) as made:
        yield made


def test_deliveries_are_counted_by_what_they_were_and_when_they_were_judged(web: Service) -> None:
    """An action that anybody may invent gets no label of its own; a redelivery is none."""
    web.deliver(submission("spam"))
    web.deliver(submission("spam"))
    web.deliver(submission(*WRONG, annotation=12, task=8))
    web.deliver({"action": "SOMETHING_NEW", "project": {"id": PROJECT}})
    web.deliver({"action": "SOMETHING_ELSE", "project": {"id": PROJECT}})
    found = scrape(web)

    assert counted(found, "labelguard_deliveries_total", 'action="ANNOTATION_CREATED"') == 2
    assert counted(found, "labelguard_deliveries_total", 'action="unknown"') == 2
    assert found["labelguard_duplicates_total"] == 1
    # PostgreSQL gives a number to a redelivery too, and does not use it.
    assert found["labelguard_received_total"] in (4, 5)
    assert found["labelguard_findings_total"] == 1
    assert found['labelguard_findings_waiting{rule="label-constraints",state="open"}'] == 1
    assert found['labelguard_actions{kind="prompt",state="approved"}'] == 1
    assert found['labelguard_receive_seconds_count{status="200"}'] == 5
    assert counted(found, "labelguard_judgment_seconds_count", "") == 4
    assert found["labelguard_actions_enabled"] == 1
    assert found["labelguard_store_write_seconds_count"] > 4
    assert found["labelguard_store_up"] == 1
    assert found["labelguard_store_bytes"] > 0
    assert found["process_resident_memory_bytes"] > 0


def test_refusals_are_counted_by_their_reason(web: Service) -> None:
    """A sender that lost its token is told from one that sends nonsense."""
    web.deliver(b"{")
    web.deliver(submission("spam"), token="another")
    web.deliver(submission("spam", project=4))
    found = scrape(web)

    assert found['labelguard_refused_total{reason="malformed"}'] == 1
    assert found['labelguard_refused_total{reason="unauthorized"}'] == 1
    assert found['labelguard_refused_total{reason="other_project"}'] == 1
    assert found["labelguard_rejected_total"] == 2


def test_refusals_are_counted_beyond_those_that_are_kept(web: Service) -> None:
    """The counter goes on when the oldest refusals are thrown away."""
    engine = type(web.engine)(web.store, web.clock, keep_rejected=2)
    for size in range(5):
        engine.reject(PROJECT, "too odd", size)

    with web.store.read() as conn:
        assert len(records.list_rejected(conn)) == 2
    assert scrape(web)["labelguard_rejected_total"] == 5


def test_the_oldest_that_waits_shows_its_age(tmp_path: Path) -> None:
    """A growing queue can be alarmed on before it hurts."""
    with service(tmp_path, inline_deadline=0) as web:
        web.engine.stop()
        web.deliver(submission("spam"))
        web.clock.move(seconds=75)
        web.deliver(submission("spam", annotation=12))
        found = scrape(web)

    assert found["labelguard_pending"] == 2
    assert found["labelguard_pending_oldest_seconds"] == 75
    assert found['labelguard_deliveries_total{action="ANNOTATION_CREATED",judged="late"}'] == 2
    assert found["labelguard_last_delivery_timestamp_seconds"] == (NOW + timedelta(seconds=75)).timestamp()


def test_deliveries_that_cannot_be_processed_show(world: Guarded) -> None:
    """Each waits for a person, or for the next version."""
    world.take(created(annotation(11)))
    world.store.write(lambda conn: conn.execute(sa.update(schema.inbox).values(state="failed", error="A reason.")))

    assert told(world)["labelguard_deliveries_failed"] == 1


def test_actions_show_how_long_they_have_been_due(world: Guarded) -> None:
    """What is tried again later is due when its pause is over; what is done is no longer there."""
    studio, notifier = FakeStudio(), FakeNotifier(unreachable={"ops": ConnectorError("The chat did not answer.")})
    body = created(annotation(11, *WRONG))
    studio.hold(body)
    world.take(body)
    world.clock.move(seconds=40)
    before = told(world)
    Outbox(world.store, world.engine, studio, notifier, world.clock, jitter=lambda: 0.0).deliver_due()
    world.clock.move(seconds=60)
    after = told(world)

    assert before['labelguard_outbox_due{kind="replace"}'] == 1
    assert before['labelguard_outbox_oldest_seconds{kind="replace"}'] == 40
    assert 'labelguard_outbox_due{kind="replace"}' not in after
    assert after['labelguard_action_attempts_total{kind="replace",outcome="done"}'] == 1
    assert after['labelguard_effect_seconds_sum{kind="replace"}'] == 40
    assert after['labelguard_action_attempts_total{kind="notify",outcome="postponed"}'] == 1
    assert after['labelguard_actions{kind="notify",state="delivering"}'] == 1
    # The first pause is 5 seconds, of which this jitter leaves half.
    assert after['labelguard_outbox_oldest_seconds{kind="notify"}'] == 57.5


def test_a_prompt_waits_for_its_annotator_and_not_for_us(web: Service) -> None:
    """However long nobody opens the page, no queue of ours is stuck."""
    web.deliver(submission(*WRONG))
    web.outbox.deliver_due()
    web.clock.move(hours=30)
    found = scrape(web)

    assert found['labelguard_actions{kind="prompt",state="approved"}'] == 1
    assert found['labelguard_outbox_due{kind="prompt"}'] == 0
    assert found['labelguard_outbox_oldest_seconds{kind="prompt"}'] == 0


def test_what_label_studio_itself_says_otherwise_is_counted(world: Guarded) -> None:
    """A delivery that does not hold: forged, or overtaken."""
    studio = FakeStudio()
    body = created(annotation(11, *WRONG))
    studio.hold(body)
    world.take(body)
    studio.save(11, by=102)
    Outbox(world.store, world.engine, studio, FakeNotifier(), world.clock).deliver_due()
    found = told(world)

    assert found['labelguard_unverified_total{reason="changed"}'] >= 1
    assert found['labelguard_action_attempts_total{kind="replace",outcome="failed"}'] == 1


def jobs(world: Guarded, studio: FakeStudio) -> Jobs:
    """The scheduled jobs."""
    outbox = Outbox(world.store, world.engine, studio, None, world.clock)
    return Jobs(world.store, world.engine, outbox, studio, None, Settings(), world.clock)


def test_each_job_shows_when_it_last_did_its_work(world: Guarded) -> None:
    """Since when one fails, and that one never succeeded."""
    studio = FakeStudio()
    of = f'{{job_name="reconcile",project="{PROJECT}"}}'
    studio.down = True
    jobs(world, studio).run("reconcile", PROJECT)
    never = told(world)
    studio.down = False
    world.clock.move(minutes=5)
    jobs(world, studio).run("reconcile", PROJECT)
    worked, at = told(world), world.clock()
    studio.down = True
    world.clock.move(minutes=5)
    jobs(world, studio).run("reconcile", PROJECT)
    failed = told(world)

    name = f"labelguard_job_last_success_timestamp_seconds{of}"
    assert [never[name], worked[name], failed[name]] == [0, at.timestamp(), at.timestamp()]
    assert [found[f"labelguard_job_failing{of}"] for found in (never, worked, failed)] == [1, 0, 1]
    assert failed['labelguard_job_seconds_count{job_name="reconcile",state="failed"}'] == 2
    assert failed['labelguard_job_seconds_count{job_name="reconcile",state="done"}'] == 1
    assert f"labelguard_job_last_success_seconds{of}" in worked


def test_what_the_webhook_missed_is_counted(world: Guarded) -> None:
    """Annotations that reconciling brought, and those whose first version nobody can know any more."""
    studio = FakeStudio()
    studio.hold(created(annotation(11, "spam")))
    studio.hold(created(annotation(12, "spam", task=8, saved=NOW + timedelta(minutes=9))))
    jobs(world, studio).run("reconcile", PROJECT)
    found = told(world)

    assert found['labelguard_repaired_total{what="new"}'] == 2
    assert found["labelguard_lost_versions_total"] == 1
    jobs(world, studio).run("reconcile", PROJECT)
    assert told(world)['labelguard_repaired_total{what="new"}'] == 2


def test_without_its_store_a_process_still_tells_its_own_numbers(web: Service) -> None:
    """Monitoring sees that the store is gone, instead of nothing."""
    web.deliver(submission("spam"))
    web.store.write(lambda conn: conn.exec_driver_sql("DROP TABLE switches"))
    found = scrape(web)
    web.store.write(schema.switches.create)  # the next test gets the same database

    assert found["labelguard_store_up"] == 0
    assert found['labelguard_receive_seconds_count{status="200"}'] == 1


def test_two_services_in_one_process_do_not_share_numbers(web: Service, tmp_path: Path) -> None:
    """The instruments belong to the store, not to the process."""
    web.deliver(submission("spam"))
    other = tmp_path / "other"
    other.mkdir()
    with service(other) as second:
        assert 'labelguard_receive_seconds_count{status="200"}' not in scrape(second)


@pytest.mark.store(SQLITE)
def test_a_scrape_costs_the_same_however_long_the_history(world: Guarded) -> None:
    """What is done is not looked at: twenty times the deliveries, judgments, findings, actions and runs."""

    def history(conn: sa.Connection, count: int) -> None:
        for table, state in ((schema.inbox, "done"), (schema.findings, "upheld"), (schema.actions, "done")):
            row = dict(conn.execute(sa.select(table).limit(1)).mappings().one())
            del row["id"]
            unique = {schema.inbox: "digest", schema.actions: "key"}.get(table)
            copies = [{**row, "state": state, **({unique: f"{state}{n}"} if unique else {})} for n in range(count)]
            conn.execute(sa.insert(table), copies)
        runs = [
            {"job": "audit", "project": PROJECT, "started_at": NOW + timedelta(n), "finished_at": NOW, "state": "done"}
            for n in range(count)
        ]
        conn.execute(sa.insert(schema.job_runs), [{**run, "summary": {}} for run in runs])

    world.take(created(annotation(11, *WRONG)))
    with world.store._backend.writer.begin() as conn:
        history(conn, 100)
    few = world.steps(lambda: told(world))
    with world.store._backend.writer.begin() as conn:
        conn.execute(sa.delete(schema.job_runs))
        conn.execute(sa.update(schema.inbox).values(digest=schema.inbox.c.digest + "a"))
        conn.execute(sa.update(schema.actions).values(key=schema.actions.c.key + "a"))
        history(conn, 2000)
    many = world.steps(lambda: told(world))

    assert few > 100
    assert many < 1.2 * few
