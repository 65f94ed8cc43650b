"""The nginx lines of docs/page.md, in a real nginx between a browser's requests and a real Label Studio."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from labelguard.studio.launch import free_port
from live import Api, Receiver, StudioServer, choice
from nginx import nginx

DOCS = Path(__file__).parents[2] / "docs" / "page.md"
TAG = '<script src="/labelguard/page.js" async></script></head>'


def documented() -> str:
    """The lines as an admin copies them."""
    found = re.search(r"```nginx\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def front(studio: StudioServer, labelguard: Receiver, tmp_path: Path) -> Iterator[str]:
    """nginx with those lines; gives its address."""
    lines = documented()
    assert "http://127.0.0.1:8080" in lines
    assert "http://127.0.0.1:8090" in lines
    lines = lines.replace("http://127.0.0.1:8080", studio.process.url).replace("http://127.0.0.1:8090", labelguard.url)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with nginx(tmp_path, f"server {{ listen 127.0.0.1:{port}; {lines} }}", address):
        yield address


def test_pages_get_the_script_once_and_data_is_left_alone(front: str) -> None:
    """Label Studio's pages carry the tag; its API answers are what they were."""
    page = requests.get(f"{front}/user/login/", timeout=20)

    assert page.status_code == 200
    assert page.text.count(TAG) == 1
    assert "page.js" not in requests.get(f"{front}/api/version", timeout=20).text


def test_only_the_page_s_addresses_are_passed_on(front: str) -> None:
    """The script is there; receiver, API, metrics and status page are not on Label Studio's origin."""
    script = requests.get(f"{front}/labelguard/page.js", timeout=20)

    assert script.headers["Content-Type"].startswith("text/javascript")
    assert "labelguardPage" in script.text
    for path in ("", "api/v1/findings", "webhook/1", "metrics", "healthz", "page.js/../metrics"):
        answer = requests.get(f"{front}/labelguard/{path}", timeout=20)
        assert "labelguard" not in answer.headers.get("Server", "")
        assert "findings" not in answer.text
        assert "labelguard_" not in answer.text


def test_an_annotator_signs_in_and_submits_through_it(front: str, studio: StudioServer) -> None:
    """Nothing of Label Studio breaks: token, task, submit."""
    project = studio.project("Behind nginx")
    (task,) = project.import_texts(1)
    annotator = Api(front, studio.account("nina").token)

    made = annotator.call(
        "POST", f"/api/tasks/{task}/annotations/?project={project.id}", json={"result": choice("cat")}
    )

    assert made["result"][0]["value"] == {"choices": ["cat"]}
    annotator.close()
