"""A real Label Studio and a real labelguard, for tests that need both.

Label Studio runs in an environment of its own: the interpreter is ``LABELGUARD_STUDIO_PYTHON``, or that of
``.venv-studio`` beside the tests, which ``make test`` installs.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from databases import database_url
from labelguard.connect import ConnectReport, connect
from labelguard.connectors import Notifier
from labelguard.engine import Clock, Engine
from labelguard.outbox import Outbox
from labelguard.schedule import Jobs
from labelguard.service import Running, Service
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.studio.launch import Account, StudioProcess, free_port
from labelguard.web.app import create_app
from labelguard_connectors import LabelStudio

API_TOKEN = "the-api-token-of-this-test"

LABEL_CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="label" toName="text" choice="single"><Choice value="cat"/><Choice value="dog"/></Choices>
</View>"""


def studio_python() -> Path | None:
    """The interpreter of Label Studio's environment, or None where there is none."""
    named = os.environ.get("LABELGUARD_STUDIO_PYTHON")
    python = Path(named) if named else Path(__file__).parents[2] / ".venv-studio" / "bin" / "python"
    return python if python.exists() else None


def now() -> datetime:
    """The real time: Label Studio has no other."""
    return datetime.now(UTC)


def choice(*labels: str, control: str = "label", to: str = "text") -> list[dict[str, Any]]:
    """A result that picks labels of a Choices control."""
    return [{"from_name": control, "to_name": to, "type": "choices", "value": {"choices": list(labels)}}]


def until(reached: Callable[[], bool], seconds: float = 30) -> bool:
    """Wait until something holds; False when it does not in time."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Api:
    """Label Studio's API as one account uses it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {token}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Make a request that must succeed; returns its JSON, or None where it has no body."""
        answer = self._session.request(method, f"{self.url}{path}", timeout=120, allow_redirects=False, **arguments)
        if not answer.ok or answer.is_redirect:
            raise AssertionError(f"{method} {path} answered {answer.status_code}: {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def status(self, method: str, path: str, **arguments: Any) -> int:
        """Make a request that may fail; returns its status."""
        return self._session.request(method, f"{self.url}{path}", timeout=120, **arguments).status_code

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()


@dataclass
class LiveProject:
    """A project on the real server, worked on through its API."""

    id: int
    server: StudioServer
    tasks: list[int] = field(default_factory=list)

    @property
    def api(self) -> Api:
        """The admin's API."""
        return self.server.api

    def import_tasks(self, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks (each ``{"data": ..., "annotations": ...}``); returns the new ids."""
        before = set(self.task_ids())
        self.api.call("POST", f"/api/projects/{self.id}/import", json=list(tasks))
        new = [task for task in self.task_ids() if task not in before]
        self.tasks += new
        return new

    def import_texts(self, count: int, start: int = 0) -> list[int]:
        """Import plain text tasks."""
        return self.import_tasks([{"data": {"text": f"text {start + i}"}} for i in range(count)])

    def task_ids(self) -> list[int]:
        """The project's tasks by id."""
        listing = self.api.call(
            "GET", "/api/tasks/", params={"project": self.id, "page_size": 100000, "fields": "task_only"}
        )
        return sorted(task["id"] for task in listing["tasks"])

    def submit(self, account: Account, task: int, result: list[dict[str, Any]], **more: Any) -> int:
        """Submit an annotation as an annotator's page does; returns its id."""
        made = self.server.as_(account).call(
            "POST", f"/api/tasks/{task}/annotations/?project={self.id}", json={"result": result, "lead_time": 3, **more}
        )
        return int(made["id"])

    def update(self, account: Account, annotation: int, result: list[dict[str, Any]]) -> None:
        """Update an annotation as an annotator's page does."""
        self.server.as_(account).call("PATCH", f"/api/annotations/{annotation}/", json={"result": result})

    def next_task(self, account: Account) -> int | None:
        """The task the label stream serves an annotator now."""
        try:
            served = self.server.as_(account).call("GET", f"/api/projects/{self.id}/next")
        except AssertionError as error:
            if " answered 404" in str(error):
                return None
            raise
        return int(served["id"])

    def annotations(self) -> dict[tuple[int, datetime], dict[str, Any]]:
        """Every annotation as Label Studio has it, by id and creation time, through its export-like listing."""
        listing = self.api.call(
            "GET",
            "/api/tasks/",
            params={"project": self.id, "page_size": 100000, "fields": "all", "resolve_uri": "false"},
        )
        found = {}
        for task in listing["tasks"]:
            for each in task["annotations"]:
                found[(each["id"], datetime.fromisoformat(each["created_at"]))] = {
                    "task": task["id"],
                    "result": each["result"],
                    "completed_by": each["completed_by"],
                    "updated_by": each["updated_by"],
                    "was_cancelled": each["was_cancelled"],
                    "ground_truth": each["ground_truth"],
                    "updated_at": datetime.fromisoformat(each["updated_at"]),
                }
        return found


@dataclass
class StudioServer:
    """The running Label Studio with the accounts made on it."""

    process: StudioProcess
    _apis: dict[str, Api] = field(default_factory=dict)
    _accounts: dict[str, Account] = field(default_factory=dict)
    _connectors: list[LabelStudio] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return self.process.url

    @property
    def admin(self) -> Account:
        """The first account."""
        return self.process.admin

    @property
    def api(self) -> Api:
        """The admin's API."""
        return self.as_(self.admin)

    def as_(self, account: Account) -> Api:
        """The API as an account uses it."""
        if account.token not in self._apis:
            self._apis[account.token] = Api(self.url, account.token)
        return self._apis[account.token]

    def account(self, name: str) -> Account:
        """An account by name, signed up on first use."""
        if name not in self._accounts:
            self._accounts[name] = self.process.sign_up(f"{name}@example.com", first=name.title())
        return self._accounts[name]

    def cookie(self, account: Account) -> str:
        """The Cookie header of a browser in which the account is signed in."""
        with requests.Session() as browser:
            form = browser.get(f"{self.url}/user/login/", timeout=20).text
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
            browser.post(
                f"{self.url}/user/login/",
                data={
                    "email": account.email,
                    "password": account.password,
                    "csrfmiddlewaretoken": found.group(1) if found else "",
                },
                headers={"Referer": f"{self.url}/user/login/"},
                timeout=20,
            ).raise_for_status()
            return "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)

    def project(self, title: str, *, tasks: int = 0, label_config: str = LABEL_CONFIG, **more: Any) -> LiveProject:
        """A new project with some text tasks."""
        made = self.api.call("POST", "/api/projects/", json={"title": title, "label_config": label_config, **more})
        project = LiveProject(int(made["id"]), self)
        if tasks:
            project.import_texts(tasks)
        return project

    def connector(self, account: Account | None = None, *, timeout: float = 120) -> LabelStudio:
        """labelguard's connector, acting as its own user unless told otherwise."""
        connector = LabelStudio(self.url, (account or self.account("labelguard")).token, timeout=timeout)
        self._connectors.append(connector)
        return connector

    def close(self) -> None:
        """Let go of the connections and stop the server."""
        for api in self._apis.values():
            api.close()
        for connector in self._connectors:
            connector.close()
        self.process.stop()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Say nothing about each request."""


@dataclass
class Receiver:
    """A running labelguard with its own store, as ``labelguard serve`` runs it but for the schedule."""

    store: Store
    engine: Engine
    outbox: Outbox
    studio: LabelStudio
    settings: Settings
    clock: Clock = now
    notifier: Notifier | None = None
    _running: Running | None = None
    _server: BaseWSGIServer | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Its public address."""
        return self.settings.public_url

    def start(self) -> None:
        """Begin to answer."""
        app = create_app(self.store, self.engine, self.outbox, self.studio, self.settings, self.clock)
        self._server = make_server("127.0.0.1", self.settings.port, app, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver")
        self._thread.start()
        service = Service(self.settings, self.store, self.engine, self.outbox, self.studio, self.notifier, self.clock)
        self._running = Running(service, schedule=False)
        self._running.__enter__()

    def stop(self) -> None:
        """Stop to answer; what was received stays in the store."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None
        if self._running is not None:
            self._running.__exit__()

    def connect(self, project: LiveProject, **more: Any) -> ConnectReport:
        """Connect a project to it."""
        return connect(self.store, self.engine, self.studio, project.id, public_url=self.url, clock=self.clock, **more)

    def jobs(self, *, later: timedelta = timedelta(0)) -> Jobs:
        """What the schedule runs, some time from now."""
        return Jobs(
            self.store,
            self.engine,
            self.outbox,
            self.studio,
            self.notifier,
            self.settings,
            lambda: self.clock() + later,
        )

    def settled(self) -> None:
        """Wait until everything received has been processed."""
        self.engine.process_pending()

    def annotations(self, project: int) -> dict[tuple[int, datetime], dict[str, Any]]:
        """The store's live annotations in the shape of :meth:`LiveProject.annotations`."""
        with self.store.read() as conn:
            rows = records.current_annotations(conn, project)
        return {
            (row["id"], row["created_at"]): {
                key: row[key]
                for key in (
                    "task",
                    "result",
                    "completed_by",
                    "updated_by",
                    "was_cancelled",
                    "ground_truth",
                    "updated_at",
                )
            }
            for row in rows
        }


@contextmanager
def receiver(
    folder: Path, server: StudioServer, *, clock: Clock = now, notifier: Notifier | None = None, **settings: Any
) -> Iterator[Receiver]:
    """A labelguard on a free port, with whatever clock, stopped and closed in the end."""
    port = free_port()
    effective = Settings(
        **{
            "database_url": database_url(folder),
            "studio_url": server.url,
            "studio_api_key": SecretStr(server.account("labelguard").token),
            "public_url": f"http://127.0.0.1:{port}",
            "port": port,
            "api_token": SecretStr(API_TOKEN),
            "secret_key": SecretStr("a key for this test"),
            **settings,
        }
    )
    studio = server.connector()
    store = Store.open(effective.database_url)
    engine = Engine(store, clock, own_user=studio.server().user.id)
    outbox = Outbox(store, engine, studio, notifier, clock)
    running = Receiver(store, engine, outbox, studio, effective, clock, notifier)
    running.start()
    try:
        yield running
    finally:
        running.stop()
        store.close()
