"""The HTTP service over a real store, engine and outbox, for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from databases import database_url
from labelguard.engine import Engine
from labelguard.events import Project
from labelguard.outbox import Outbox
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.tokens import hash_token
from labelguard.web.app import create_app

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PROJECT = 3
TOKEN = "the-token-of-project-3"
API_TOKEN = "the-api-token-of-this-test"
LABEL_CONFIG = """
<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/><Choice value="refund"/><Choice value="billing"/>
  </Choices>
</View>
"""
POLICY = f"""\
project: {PROJECT}
rules:
  - rule: label-constraints
    control: topics
    mode: enforce
    options:
      exclusive: [[spam, important]]
    actions: [prompt]
"""


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        """The moment it shows."""
        return self.now

    def move(self, **by: float) -> None:
        """Move it forward."""
        self.now += timedelta(**by)


@dataclass
class Service:
    """The whole service, with a client that speaks to it."""

    store: Store
    engine: Engine
    outbox: Outbox
    settings: Settings
    clock: Clock
    app: Flask
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def deliver(self, body: Any, *, project: int = PROJECT, token: str | None = TOKEN) -> Any:
        """Post a body to the webhook as Label Studio does."""
        headers = {} if token is None else {"X-Labelguard-Token": token}
        if isinstance(body, (bytes, str)):
            return self.client.post(
                f"/webhook/{project}", data=body, headers={**headers, "Content-Type": "application/json"}
            )
        return self.client.post(f"/webhook/{project}", json=body, headers=headers)

    def api(self, method: str, path: str, **arguments: Any) -> Any:
        """Ask the API with the right token."""
        headers = {"Authorization": f"Bearer {API_TOKEN}", **arguments.pop("headers", {})}
        return self.client.open(f"/api/v1{path}", method=method, headers=headers, **arguments)

    def sign_in(self, name: str = "Ada") -> str:
        """Sign in to the status page; returns its HTML."""
        self.client.post("/sign-in", data={"token": API_TOKEN, "name": name})
        return self.page()

    def page(self, path: str = "/") -> str:
        """The status page's HTML."""
        return str(self.client.get(path).get_data(as_text=True))

    def submit(self, path: str, **fields: str) -> Any:
        """Send one of the status page's forms, with the token it carries."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.page())
        return self.client.post(path, data={"csrf": found.group(1) if found else "", **fields})


@contextmanager
def service(folder: Path, **settings: Any) -> Iterator[Service]:
    """A service with one connected project, whose policy forbids ``spam`` with ``important``."""
    clock = Clock()
    effective = Settings(
        **{
            "database_url": database_url(folder),
            "api_token": SecretStr(API_TOKEN),
            "secret_key": SecretStr("a key for this test"),
            "studio_url": "http://studio.example",
            "inline_deadline": 5,
            **settings,
        }
    )
    store = Store.open(effective.database_url, durable=False)
    engine = Engine(store, clock)
    outbox = Outbox(store, engine, None, None, clock)
    try:
        connect(store, PROJECT, TOKEN)
        store.write(lambda conn: records.add_policy(conn, PROJECT, POLICY, NOW, by="Ada"))
        engine.start()
        yield Service(
            store, engine, outbox, effective, clock, create_app(store, engine, outbox, None, effective, clock)
        )
    finally:
        engine.stop()
        store.close()


def connect(store: Store, project: int, token: str, title: str = "Mail") -> None:
    """Make a project known and connected, as ``labelguard connect`` leaves it."""
    store.write(
        lambda conn: records.save_project(
            conn, Project(id=project, title=title, label_config=LABEL_CONFIG), NOW - timedelta(days=1)
        )
    )
    store.write(
        lambda conn: records.set_connection(
            conn,
            project,
            connected_at=NOW - timedelta(days=1),
            webhook_id=1,
            webhook_url=f"http://localhost:8090/webhook/{project}",
            token_hash=hash_token(token),
        )
    )


def submission(
    *labels: str,
    annotation: int = 11,
    task: int = 7,
    user: int = 101,
    project: int = PROJECT,
    at: datetime = NOW,
    **fields: Any,
) -> dict[str, Any]:
    """The body Label Studio sends when an annotator submits these topics."""
    moment = at.isoformat()
    result = [
        {
            "id": "r1",
            "from_name": "topics",
            "to_name": "text",
            "type": "choices",
            "origin": "manual",
            "value": {"choices": list(labels)},
        }
    ]
    return {
        "action": "ANNOTATION_CREATED",
        "annotation": {
            "id": annotation,
            "task": task,
            "project": project,
            "result": result,
            "completed_by": user,
            "updated_by": user,
            "created_at": moment,
            "updated_at": moment,
            "lead_time": 4.2,
            "was_cancelled": False,
            "ground_truth": False,
            **fields,
        },
        "task": {
            "id": task,
            "project": project,
            "data": {"text": "Where is my money?"},
            "overlap": 1,
            "created_at": moment,
            "updated_at": moment,
        },
        "project": {"id": project, "title": "Mail", "label_config": LABEL_CONFIG, "token": "invitation"},
    }
