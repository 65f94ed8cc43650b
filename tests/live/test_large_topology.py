"""The large installation of docker/: PostgreSQL, two webs, two workers, Label Studio, and nginx in front of all.

Containers do not run here, so the same processes run beside each other, with the nginx lines that the containers
are given.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from databases import POSTGRESQL, chosen, database_url, postgres
from labelguard.store import Store, records
from labelguard.studio.launch import Account, free_port
from live import Api, LiveProject, StudioServer, choice
from nginx import nginx
from processes import API_TOKEN, Process, environment, soon, start

DOCKER = Path(__file__).parents[2] / "docker"
CONFIG = """<View>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="spam"/><Choice value="important"/>
  </Choices>
</View>"""
POLICY = """
project: {project}
rules:
  - rule: label-constraints
    control: topics
    mode: enforce
    options: {{exclusive: [[spam, important]]}}
    actions: [prompt, second-opinion]
"""
WRONG = choice("spam", "important", control="topics")

pytestmark = pytest.mark.slow


@dataclass
class Installation:
    """Everything that runs, as people and machines reach it."""

    front: str
    """Label Studio's address for annotators."""
    inside: str
    """labelguard's address for Label Studio and admins."""
    webs: list[Process]
    settings: dict[str, Any]
    folder: Path
    store: Store
    """A look into what they keep."""
    workers: list[Process] = field(default_factory=list)

    def add_worker(self) -> None:
        """Start another worker."""
        self.workers.append(start("worker", self.folder, **self.settings))

    def command(self, *arguments: str) -> None:
        """Run a command of labelguard's on one of the machines."""
        command = [sys.executable, "-c", "from labelguard.cli import main; main()", *arguments]
        done = subprocess.run(
            command, env=environment(**self.settings), cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def found(self, project: LiveProject) -> list[int]:
        """The annotations with a finding, as the API tells them."""
        answer = requests.get(
            f"{self.inside}/api/v1/findings",
            params={"project": project.id, "limit": 100},
            headers={"Authorization": f"Bearer {API_TOKEN}"},
            timeout=20,
        )
        return sorted(finding["annotation"] for finding in answer.json()["findings"]) if answer.ok else []

    def done_jobs(self, job: str) -> int:
        """How many runs of a job came to their end."""
        with self.store.read() as conn:
            return sum(run["job"] == job and run["state"] == "done" for run in records.recent_jobs(conn, 1000))


@pytest.fixture
def large(studio: StudioServer, tmp_path: Path) -> Iterator[Installation]:
    """The large installation, with empty hands."""
    front, inside, webs = free_port(), free_port(), [free_port(), free_port()]
    with chosen(POSTGRESQL):
        name = database_url(tmp_path).rpartition("@/")[2].partition("?")[0]
        settings: dict[str, Any] = {
            "database_url": postgres().network_url(name),
            "studio_url": studio.url,
            "studio_api_key": studio.account("labelguard").token,
            "public_url": f"http://127.0.0.1:{inside}",
            "secret_key": "what all of them sign with",
            "election_seconds": 1,
            "reconcile_minutes": 0.1,
        }
        lines = (DOCKER / "upstream.large.conf").read_text("utf-8") + (DOCKER / "nginx.conf").read_text("utf-8")
        for documented, here in (
            ("studio:8080", studio.url.removeprefix("http://")),
            ("web-1:8090", f"127.0.0.1:{webs[0]}"),
            ("web-2:8090", f"127.0.0.1:{webs[1]}"),
            ("listen 80;", f"listen 127.0.0.1:{front};"),
            ("listen 8090;", f"listen 127.0.0.1:{inside};"),
        ):
            assert documented in lines
            lines = lines.replace(documented, here)
        running = [start("web", tmp_path, port=port, wait=False, **settings) for port in webs]
        store = Store.open(settings["database_url"])
        made = Installation(
            f"http://127.0.0.1:{front}", f"http://127.0.0.1:{inside}", running, settings, tmp_path, store
        )
        try:
            with nginx(tmp_path, lines, made.front):
                made.add_worker()
                yield made
        finally:
            for process in (*made.webs, *made.workers):
                process.kill()
            store.close()


def notes(large: Installation, cookie: str, project: LiveProject, task: int, annotation: int) -> list[str]:
    """What the page shows an annotator about what they saved: through the front, as their browser asks."""
    browser = {"Cookie": cookie, "Origin": large.front, "Sec-Fetch-Site": "same-origin"}
    address = f"{large.front}/labelguard/page/v1"
    opened = requests.post(f"{address}/session", json={"project": project.id}, headers=browser, timeout=20)
    if not opened.ok:
        return []
    answer = requests.get(
        f"{address}/prompts",
        params={"project": project.id, "task": task, "annotation": annotation},
        headers={**browser, "X-Labelguard-Session": opened.json()["token"]},
        timeout=20,
    )
    return [prompt["text"] for prompt in answer.json()["prompts"]] if answer.ok else []


def test_webs_and_workers_that_are_killed_are_replaced_by_the_others(
    large: Installation, studio: StudioServer, ana: Account
) -> None:
    """Annotators go on, what they submit is judged and acted on, and somebody keeps the schedule."""
    project = studio.project("Large", tasks=12, label_config=CONFIG)
    policy = large.folder / "policy.yaml"
    policy.write_text(POLICY.format(project=project.id), "utf-8")
    assert soon(lambda: all(ready(web) for web in large.webs), 240)
    large.command("connect", "--project", str(project.id))
    large.command("policy", "apply", str(policy))
    annotator = Api(large.front, ana.token)
    cookie = studio.cookie(ana)

    def submit(task: int) -> int:
        made = annotator.call(
            "POST", f"/api/tasks/{task}/annotations/?project={project.id}", json={"result": WRONG, "lead_time": 3}
        )
        return int(made["id"])

    # Both webs take deliveries in; a worker acts.
    saved = [submit(task) for task in project.tasks[:4]]
    assert soon(lambda: large.found(project) == saved, 240)
    assert soon(lambda: notes(large, cookie, project, project.tasks[0], saved[0]) != [], 240)
    assert all("was taken in" in web.said() for web in large.webs)
    assert soon(lambda: overlaps(studio, project)[:4] == [2] * 4, 240)
    assert soon(lambda: large.done_jobs("reconcile") > 0, 240)

    # The second worker stands by. Then a web and the worker with the schedule are gone without a word.
    large.add_worker()
    large.webs[0].kill()
    large.workers[0].kill()
    looked = large.done_jobs("reconcile")
    saved += [submit(task) for task in project.tasks[4:8]]
    assert soon(lambda: large.found(project) == saved, 240)
    assert soon(lambda: notes(large, cookie, project, project.tasks[5], saved[5]) != [], 240)
    assert soon(lambda: "schedule_taken" in large.workers[1].said(), 240)
    assert soon(lambda: large.done_jobs("reconcile") > looked, 240)
    assert soon(lambda: overlaps(studio, project)[:8] == [2] * 8, 240)

    # What comes back shares the work again, and nothing was lost or done twice.
    large.webs[0] = start("web", large.folder, port=large.webs[0].port, **large.settings)
    saved += [submit(task) for task in project.tasks[8:]]
    assert soon(lambda: large.found(project) == saved, 240)
    assert soon(lambda: overlaps(studio, project) == [2] * 12, 240)
    with large.store.read() as conn:
        actions = records.list_actions(conn, project=project.id, kind="second-opinion")
        kept = {(row["id"], row["created_at"]) for row in records.current_annotations(conn, project.id)}
    assert [(action["annotation"], action["state"]) for action in actions] == [(each, "done") for each in saved]
    assert kept == set(project.annotations())
    annotator.close()
    assert [process.stop() for process in (*large.webs, large.workers[1])] == [0, 0, 0]


def ready(web: Process) -> bool:
    """Whether a web can work."""
    try:
        return requests.get(f"{web.url}/readyz", timeout=10).ok
    except requests.RequestException:
        return False


def overlaps(studio: StudioServer, project: LiveProject) -> list[int]:
    """How many annotators each task is for, in the order of the tasks."""
    found = [studio.api.call("GET", f"/api/tasks/{task}/")["overlap"] for task in project.tasks]
    return [int(overlap) for overlap in found]
