"""The demo from start to end."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live

from labelguard.demo.digits import Digit, digits
from labelguard.demo.people import PEOPLE, Person
from labelguard.demo.servers import Api, DemoFailed, Labelguard
from labelguard.demo.show import Standing, spread, summary, table
from labelguard.studio.launch import Account, StudioNotStarted, StudioProcess, free_port

TASKS = 140
"""More than the scripts finish, so that a visitor who signs in finds work."""
EACH = 60
"""Images that each scripted annotator does."""
OVERLAP = 3
GOLD_EVERY = 3
"""Every third image's digit is in the vault."""
_SEED = 20
_MARKER = ".labelguard-demo"
_LOOK_EVERY = 2.0
"""Seconds between two looks at what was found."""
_GUIDELINE = (
    "Name the digit, say whether it is even or odd and whether its line closes to a loop, and say how sure you are."
)


def run(
    once: bool = False,
    *,
    studio_python: Path = Path(".venv-studio/bin/python"),
    folder: Path = Path(".demo"),
    console: Console | None = None,
) -> int:
    """Run the demo; with ``once`` it ends when its annotators are done, else when it is interrupted.

    ``folder`` is emptied first and then holds everything: both servers' data and logs, the policy, the gold
    file, the configuration (``env``) and, in the end, ``summary.json``. Returns 0; with ``once``, 1 where something
    planted was not found or somebody careful was accused. Failures are said on the console.
    """
    # A log or a pipe has no width of its own.
    console = console or Console(width=None if Console().is_terminal else 160)
    with _terminated_like_interrupted():
        try:
            with ExitStack() as stack:
                demo = _Demo(console, studio_python, folder.absolute(), stack)
                return demo.play(once)
        except (DemoFailed, StudioNotStarted) as error:
            console.print(str(error), markup=False)
            return 1
        except KeyboardInterrupt:
            console.print("\nThe demo has ended; its data stays until the next one.")
            return 130 if once else 0


@dataclass(slots=True)
class _Demo:
    console: Console
    studio_python: Path
    folder: Path
    stack: ExitStack
    random: Random = field(default_factory=lambda: Random(_SEED))  # noqa: S311 - a script, not a secret

    def play(self, once: bool) -> int:
        began = time.monotonic()
        self._empty_folder()
        port, token = free_port(), secrets.token_urlsafe(24)
        address = f"http://127.0.0.1:{port}"
        studio = self._start_studio(address)
        admin = self._api(studio.url, f"Token {studio.admin.token}")
        own = studio.sign_up("labelguard@example.com", first="labelguard")
        accounts = {p.name: studio.sign_up(p.email, first=p.name) for p in PEOPLE}
        project, truths = self._make_project(admin)
        configuration = {
            "LABELGUARD_DATABASE_URL": f"sqlite:///{self.folder / 'labelguard.sqlite3'}",
            "LABELGUARD_STUDIO_URL": studio.url,
            "LABELGUARD_STUDIO_API_KEY": own.token,
            "LABELGUARD_PUBLIC_URL": address,
            "LABELGUARD_PORT": str(port),
            "LABELGUARD_API_TOKEN": token,
            "LABELGUARD_SECRET_KEY": secrets.token_urlsafe(24),
        }
        labelguard = self._start_labelguard(configuration, address)
        self._set_up(labelguard, project, truths)

        standings = [Standing(person, accounts[person.name].id) for person in PEOPLE]
        watch = _Watch(self._api(address, f"Bearer {token}"), project, standings)
        with Live(console=self.console, auto_refresh=False) as live:

            def look() -> None:
                watch.look()
                live.update(table(standings, studio.url, project), refresh=True)

            self._work(studio.url, accounts, project, truths, standings, look)
            watch.settle()
            look()
            outcome = summary(standings, studio.url, project, time.monotonic() - began)
            (self.folder / "summary.json").write_text(json.dumps(outcome, indent=2) + "\n", "utf-8")
            if not once:
                self._invite(studio, accounts, project, address, token)
                while True:
                    time.sleep(_LOOK_EVERY)
                    look()
        if not self.console.is_terminal:
            self.console.print()  # there, rich ends the table without a new line
        for sentence in outcome["wrong"]:
            self.console.print(sentence, markup=False)
        if not outcome["wrong"]:
            self.console.print(f"Everything planted was found, in {outcome['seconds']:.0f} seconds altogether.")
        return 1 if outcome["wrong"] else 0

    def _empty_folder(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / _MARKER).exists():
            raise DemoFailed(f"{self.folder} is not a folder of the demo's; move it away or choose another.")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / _MARKER).touch()

    def _start_studio(self, labelguard: str) -> StudioProcess:
        if not self.studio_python.is_file():
            raise DemoFailed(
                f"There is no Python at {self.studio_python}. `make demo` installs Label Studio; by hand: "
                "python -m venv .venv-studio; .venv-studio/bin/pip install label-studio"
            )
        studio = StudioProcess(self.studio_python.absolute(), self.folder / "studio", labelguard_url=labelguard)
        self.stack.callback(studio.stop)
        self._say("Starting Label Studio (half a minute)")
        studio.start()
        return studio

    def _start_labelguard(self, configuration: Mapping[str, str], address: str) -> Labelguard:
        env = self.folder / "env"
        env.touch(mode=0o600)
        env.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in configuration.items()), "utf-8")
        labelguard = Labelguard(self.folder, configuration)
        self.stack.callback(labelguard.stop)
        self._say("labelguard serve", command=True)
        labelguard.start(address)
        return labelguard

    def _make_project(self, admin: Api) -> tuple[int, dict[int, int]]:
        """The project with its tasks; returns its id and the true digit of each task."""
        here = files(__package__)
        made = admin.call(
            "POST",
            "/api/projects/",
            json={
                "title": "Handwritten digits",
                "label_config": (here / "label_config.xml").read_text("utf-8"),
                "expert_instruction": _GUIDELINE,
                "maximum_annotations": OVERLAP,
            },
        )
        project = int(made["id"])
        images: dict[int, Digit] = {d.number: d for d in digits(TASKS, self.random)}
        admin.call(
            "POST",
            f"/api/projects/{project}/import",
            json=[{"data": {"image": d.image, "scan": d.number}} for d in images.values()],
        )
        listing = admin.call(
            "GET", "/api/tasks/", params={"project": project, "page_size": TASKS, "fields": "task_only"}
        )
        truths = {int(task["id"]): images[task["data"]["scan"]].label for task in listing["tasks"]}
        if len(truths) != TASKS:
            raise DemoFailed(f"Label Studio took {len(truths)} of {TASKS} tasks.")
        return project, truths

    def _set_up(self, labelguard: Labelguard, project: int, truths: Mapping[int, int]) -> None:
        """What an admin does once for a project."""
        policy = (files(__package__) / "policy.yaml").read_text("utf-8")
        (self.folder / "policy.yaml").write_text(policy.replace("project: 1", f"project: {project}", 1), "utf-8")
        gold = [
            {"task": task, "control": "digit", "value": str(label)}
            for task, label in list(truths.items())[::GOLD_EVERY]
        ]
        (self.folder / "gold.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in gold), "utf-8")
        for command in (
            ["policy", "apply", "policy.yaml"],
            ["gold", "import", "gold.jsonl", "--project", str(project)],
            ["connect", "--project", str(project)],
        ):
            self._say(f"labelguard {' '.join(command)}", command=True)
            self.console.print(labelguard.command(*command), markup=False, style="dim")

    def _work(
        self,
        studio: str,
        accounts: Mapping[str, Account],
        project: int,
        truths: Mapping[int, int],
        standings: Sequence[Standing],
        look: Any,
    ) -> None:
        """Everybody in turn asks for the next task and submits, until each has done enough."""
        desks = {s.person.name: self._api(studio, f"Token {accounts[s.person.name].token}") for s in standings}
        self._say(f"{len(standings)} annotators label {EACH} images each")
        looked = 0.0
        for _ in range(EACH):
            for standing in standings:
                if self._one_task(desks[standing.person.name], standing.person, project, truths):
                    standing.submitted += 1
                if time.monotonic() - looked > _LOOK_EVERY:
                    look()
                    looked = time.monotonic()

    def _one_task(self, desk: Api, person: Person, project: int, truths: Mapping[int, int]) -> bool:
        """What the label stream does: ask for a task, send the answer. False where no task is left."""
        task = desk.call("GET", f"/api/projects/{project}/next")
        if task is None:
            return False
        answer = person.answer(truths[task["id"]], self.random)
        desk.call(
            "POST",
            f"/api/tasks/{task['id']}/annotations/",
            params={"project": project},
            json={"result": answer.result(), "lead_time": round(answer.lead_time, 2)},
        )
        return True

    def _invite(
        self, studio: StudioProcess, accounts: Mapping[str, Account], project: int, address: str, token: str
    ) -> None:
        logins = [("admin", studio.admin), *((name, accounts[name]) for name in ("Dora", "Ana"))]
        self.console.print(f"\nLabel Studio: {studio.url}/projects/{project}/data", markup=False)
        for name, account in logins:
            self.console.print(f"  {name:6} {account.email:22} password {account.password}", markup=False)
        self.console.print(
            "Sign in as Dora and press Label All Tasks: what was sent back to her waits in the page.\n"
            "Label something as even and odd to see it happen.\n"
            f"Status page: {address}/   token {token}\n"
            f"Change {self.folder / 'policy.yaml'} and use it: "
            f"set -a; . {self.folder / 'env'}; set +a; labelguard policy apply {self.folder / 'policy.yaml'}\n"
            "Ctrl-C ends the demo.\n",
            markup=False,
            soft_wrap=True,
        )

    def _api(self, url: str, authorization: str) -> Api:
        api = Api(url, authorization)
        self.stack.callback(api.close)
        return api

    def _say(self, what: str, *, command: bool = False) -> None:
        self.console.print(f"$ {what}" if command else f"{what} ...", markup=False, style="bold")


@dataclass(slots=True)
class _Watch:
    """Reads through labelguard's API what it found."""

    api: Api
    project: int
    standings: Sequence[Standing]

    def look(self) -> None:
        """Bring everybody's standing up to date."""
        spread(self.standings, list(self._all("findings")), list(self._all("actions")))

    def settle(self, timeout: float = 60) -> None:
        """Wait until labelguard has judged everything it received and done what follows from it.

        Raises:
            DemoFailed: it did not get there in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            waiting = self.api.call("GET", "/api/v1/status", params={"project": self.project})["deliveries"]["pending"]
            busy = [a for a in self._all("actions") if a["state"] == "approved" and a["kind"] not in _FOR_THE_PAGE]
            if not waiting and not busy:
                return
            time.sleep(0.5)
        raise DemoFailed(f"labelguard was not done with everything within {timeout:.0f} s; its log says why.")

    def _all(self, what: str) -> Iterator[Mapping[str, Any]]:
        after: int | None = 0
        while after is not None:
            page = self.api.call(
                "GET", f"/api/v1/{what}", params={"project": self.project, "after": after, "limit": 1000}
            )
            yield from page[what]
            after = page["next"]


_FOR_THE_PAGE = ("prompt", "rework")
"""Actions that wait until the annotator opens the page."""


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, with both servers stopped."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
