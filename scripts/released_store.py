"""Write tests/plugin/stores/<schema>.sql: a store as the version at hand leaves it, with rows in every table.

Run it once when a version is released (``make`` never does). The tests upgrade each of these stores to the
newest schema and look for every row again.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from labelguard.connectors import User
from labelguard.engine import Engine
from labelguard.events import Event, Project
from labelguard.store import Store, records
from labelguard.store.schema import metadata
from labelguard.tokens import hash_token

STORES = Path(__file__).parents[1] / "tests" / "plugin" / "stores"
PROJECT = 3
BEGAN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
LABELS = ("spam", "important", "refund", "billing")
CONFIG = """<View><Text name="text" value="$text"/><Choices name="topics" toName="text" choice="multiple">
<Choice value="spam"/><Choice value="important"/><Choice value="refund"/><Choice value="billing"/></Choices></View>"""
POLICY = f"""\
project: {PROJECT}
people: {{lead: [ops]}}
cohorts: {{old: [ann@example.com], new: [ben@example.com]}}
rules:
  - rule: label-constraints
    control: topics
    mode: enforce
    options: {{exclusive: [[spam, important]]}}
    actions: [prompt, rework, {{notify: lead}}]
  - rule: gold-check
    control: topics
    mode: recommend
    actions: [prompt]
  - rule: single-label-overuse
    control: topics
    mode: recommend
    actions: [prompt]
"""


class _Clock:
    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=7)
        return self.now


def _body(action: str, number: int, labels: list[str], user: int, made: datetime, saved: datetime) -> dict[str, Any]:
    task = 1 + number // 3
    return {
        "action": action,
        "annotation": {
            "id": number,
            "task": task,
            "project": PROJECT,
            "result": [
                {
                    "id": f"r{number}",
                    "from_name": "topics",
                    "to_name": "text",
                    "type": "choices",
                    "origin": "manual",
                    "value": {"choices": labels},
                }
            ],
            "completed_by": user,
            "updated_by": user,
            "created_at": made.isoformat(),
            "updated_at": saved.isoformat(),
            "lead_time": 4.25,
            "was_cancelled": False,
            "ground_truth": False,
        },
        "task": {
            "id": task,
            "project": PROJECT,
            "data": {"text": f"Where is my parcel № {task}? “Now”, it's late; -- ünïcode\nand a second line"},
            "meta": {"batch": "a"},
            "overlap": 3,
            "created_at": BEGAN.isoformat(),
            "updated_at": saved.isoformat(),
        },
        "project": {"id": PROJECT, "title": "Mail", "label_config": CONFIG, "expert_instruction": "Be kind."},
    }


def _fill(store: Store) -> None:
    draw, clock = random.Random(7), _Clock()  # noqa: S311 - no secret
    people = [User(101, "ann@example.com", "Ann Archer"), User(102, "ben@example.com", "Ben"), User(103, "", "Cid")]

    def begin(conn: sa.Connection) -> None:
        project = Project(PROJECT, "Mail", CONFIG, "Be kind.", 3, updated_at=BEGAN)
        records.save_project(conn, project, clock())
        records.set_connection(
            conn,
            PROJECT,
            connected_at=BEGAN,
            webhook_id=5,
            webhook_url="http://localhost:8090/webhook/3",
            token_hash=hash_token("a token"),
        )
        records.save_annotators(conn, people)
        records.add_policy(conn, PROJECT, POLICY, clock(), by="Ada")
        for task in (2, 5, 8):
            value = {"from_name": "topics", "to_name": "text", "type": "choices", "value": {"choices": ["refund"]}}
            records.add_gold(conn, PROJECT, task, [value], "import:gold.csv", clock())
        records.retire_gold(conn, PROJECT, [8], clock())

    store.write(begin)
    engine = Engine(store, clock, own_user=9)
    for number in range(1, 37):
        wrong = number % 5 == 1
        labels = ["important", "spam"] if wrong else sorted(draw.sample(LABELS, draw.choice((1, 1, 2))))
        made = clock()
        user = 101 + number % 3
        engine.receive(PROJECT, Event.from_delivery({}, _body("ANNOTATION_CREATED", number, labels, user, made, made)))
        if number % 9 == 0:
            again = _body("ANNOTATION_UPDATED", number, ["billing"], user, made, clock())
            engine.receive(PROJECT, Event.from_delivery({}, again))
        engine.process_pending()
    engine.receive(PROJECT, Event.from_delivery({}, {"action": "SOMETHING_NEW", "project": {"id": PROJECT}}))
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 36}], "project": {"id": PROJECT}}
    engine.receive(PROJECT, Event.from_delivery({}, gone))
    engine.process_pending()
    waiting = _body("ANNOTATION_CREATED", 40, ["spam", "important"], 101, clock(), clock())
    engine.receive(PROJECT, Event.from_delivery({}, waiting))
    engine.reject(PROJECT, "The body is not JSON.", 17)

    def end(conn: sa.Connection) -> None:
        found = records.list_findings(conn)
        records.set_finding_state(
            conn, found[0]["id"], "disputed", by=f"annotator {found[0]['annotator']}", note="It is both!", now=clock()
        )
        records.set_finding_state(conn, found[1]["id"], "upheld", by="Ada", note="Seen.", now=clock())
        for state, action in zip(("done", "failed", "undone"), records.list_actions(conn), strict=False):
            records.update_action(
                conn, action["id"], clock(), state=state, attempts=2, error="A reason.", undo={"a": 1}
            )
        run = records.start_job(conn, "audit", PROJECT, clock())
        records.finish_job(conn, run, clock(), summary={"full": True, "tasks": 12, "new": 1})
        records.finish_job(conn, records.start_job(conn, "sweeps", PROJECT, clock()), clock(), error="It failed.")
        records.set_cursor(conn, f"reconcile:{PROJECT}", clock().isoformat(), clock())
        records.set_actions_enabled(conn, False, by="Ada", now=clock())

    store.write(end)


def main() -> None:
    """Write the file of the newest schema, unless it is there: what was released does not change."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/store.sqlite3")
        _fill(store)
        with store.read() as conn:
            for table in metadata.sorted_tables:
                if not conn.scalar(sa.select(sa.func.count()).select_from(table)):
                    raise SystemExit(f"The table {table.name} has no row; let the script put some there.")
        store.close()
        with closing(sqlite3.connect(f"{folder}/store.sqlite3")) as conn:
            (schema,) = conn.execute("SELECT version_num FROM alembic_version").fetchone()
            text = "\n".join(conn.iterdump()) + "\n"
    file = STORES / f"{schema}.sql"
    if file.exists():
        raise SystemExit(f"{file} is there already; what was released does not change.")
    file.write_text(text, encoding="utf-8")
    print(file)  # noqa: T201 - the script's answer


if __name__ == "__main__":
    sys.exit(main())
