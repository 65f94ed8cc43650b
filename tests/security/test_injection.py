"""Threat: what is sent is taken for something else: a path, a header, a line of the log, a terminal's command.

Log lines are read by people and by programs that raise alarms; a forged one misleads both. Each event stays one
line, whatever stands in a title, an action, a name, an agent or an error.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from labelguard.cli.output import print_rows, say
from labelguard.logs import configure
from webservice import PROJECT, Service, service, submission

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

FORGED = '{"event": "forged", "level": "info"}'
BREAKERS = [
    f"\n{FORGED}\n",
    f"\r\n{FORGED}\r\n",
    f"\x1b[2J\x1b[1;1H{FORGED}",
    f"\x1b]0;title\x07{FORGED}",
    f"\x00{FORGED}",
    f"\u2028{FORGED}\u2029",
    f"\x85{FORGED}",
    f'", "event": "forged", "x": "{FORGED}',
    "\u202e" + FORGED,
    "\x08" * 200 + FORGED,
]


@pytest.mark.parametrize("breaker", BREAKERS, ids=[str(n) for n in range(len(BREAKERS))])
@pytest.mark.parametrize("as_json", [True, False])
def test_nobody_can_write_a_line_of_the_log(tmp_path: Path, as_json: bool, breaker: str) -> None:
    """Every field of a delivery, names, tokens and headers try; what is written is counted."""
    plain = lines_of(tmp_path / "plain", as_json, "harmless")
    forged = lines_of(tmp_path / "forged", as_json, breaker)
    assert len(forged) == len(plain)
    for line in forged:
        assert line.isprintable(), ascii(line)
        if as_json:
            assert json.loads(line)["event"] != "forged"
        else:
            assert not line.startswith(("{", "\x1b"))


def lines_of(folder: Path, as_json: bool, text: str) -> list[str]:
    """The lines that come of deliveries, sign-ins and requests which carry a text wherever they can."""
    folder.mkdir()
    log = io.StringIO()
    configure("DEBUG", json=as_json, stream=log)
    with service(folder) as web:
        body = submission("spam", "important", unique_id=text)
        body["project"]["title"] = text
        body["task"]["data"] = {text: text}
        body["annotation"]["result"][0]["value"]["choices"].append(text)
        header = text.encode("utf-8").decode("latin-1").replace("\r", "").replace("\n", "").replace("\x00", "")
        requests: list[Any] = [
            body,
            {**body, "action": text[:100]},
            {**body, "action": 1, text: text},
            {**body, "annotation": {"id": text}},
            {**body, "annotation": {**body["annotation"], "created_at": text, "id": 12}},
            json.dumps(body)[:-1] + text,
        ]
        for request in requests:
            web.deliver(request)
        web.client.post("/sign-in", data={"token": text, "name": text}, headers={"User-Agent": header})
        web.client.get("/nowhere", query_string={"a": text}, headers={"Referer": header, "X-Forwarded-For": header})
        web.client.post(f"/webhook/{PROJECT}", data=b"{}", headers={"X-Labelguard-Token": header})
        web.sign_in(text)
        web.engine.process_pending()
    # Not splitlines(): it would take for an end of line what a reader of the log may not.
    return [line for line in log.getvalue().split("\n") if line]


def test_an_error_with_lines_in_it_stays_one_line_of_json(web: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback is inside its event; for a terminal each of its lines is marked."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"boom\n{FORGED}\x1b[2J")

    monkeypatch.setattr(web.engine, "take_in", broken)
    for as_json in (True, False):
        log = io.StringIO()
        configure("INFO", json=as_json, stream=log)
        assert web.deliver(submission("spam")).status_code == 500
        lines = [line for line in log.getvalue().split("\n") if line]
        if as_json:
            assert len(lines) == 1
        assert not [line for line in lines if line.startswith("{") and json.loads(line)["event"] == "forged"]
        assert not [line for line in lines if "\x1b" in line]


def test_a_line_is_short_whatever_was_sent(tmp_path: Path) -> None:
    """A log is bounded by the number of events, not by the size of what they are about."""
    log = io.StringIO()
    configure("DEBUG", json=True, stream=log)
    huge = "x" * 300_000
    with service(tmp_path, max_body_bytes=2_000_000) as web:
        body = submission("spam", "important", unique_id=huge)
        body["project"]["title"] = huge
        for request in (
            body,
            {**body, "action": huge},
            {**body, "annotation": {**body["annotation"], "created_at": huge}},
        ):
            web.deliver(request)
    assert log.getvalue()
    assert max(len(line) for line in log.getvalue().split("\n")) < 3_000


@pytest.mark.parametrize(
    "path",
    [
        "/status.css/../base.html",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../status.html",
        "/status.html",
        "//etc/passwd",
        "/status.css%00.html",
        "/favicon.svg/..;/base.html",
        "/page.js/../strings.en.json",
        "/page/strings.en.json",
        "/labelguard.sqlite3",
        "/.git/config",
        "/manifest.json",
        "/page/v1/..%2f..%2fapi/v1/status",
        "/\\..\\status.html",
    ],
)
def test_no_path_leads_to_a_file(web: Service, path: str) -> None:
    """Three files are served, each by its own address."""
    web.sign_in()
    answer = web.client.get(path)
    assert answer.status_code in (308, 404)
    for content in ("root:", "{% ", "block_title", "SQLite"):
        assert content not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "text", ["a\r\nSet-Cookie: evil=1", "a\nb", "a\x00b", "\r\n\r\n<html>", "%0d%0aSet-Cookie:%20evil=1"]
)
def test_no_header_is_written_by_what_is_sent(web: Service, text: str) -> None:
    """Names, notes, filters and paths that hold ends of lines."""
    csrf = web.sign_in(text)
    answers = [
        web.client.post("/sign-in", data={"token": "x", "name": text}),
        web.submit(f"/switch/stop?project={text}&done={text}"),
        web.client.get("/", query_string={"project": text, "done": text}),
        web.api("GET", "/findings", query_string={"rule": text, "state": text}),
        web.client.get(f"/page/v1/prompts/{text}/seen", headers={"X-Labelguard-Session": "x"}),
        web.client.get("/page.js", headers={"If-None-Match": text.replace("\r", "").replace("\n", "")}),
    ]
    assert csrf
    for answer in answers:
        assert answer.status_code < 500
        for name, value in answer.headers:
            assert (name + value).isprintable()
            assert "evil" not in name
        assert "evil" not in answer.headers.get("Set-Cookie", "")
        answer.close()


def test_a_terminal_obeys_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Titles and labels are printed by commands too."""
    evil = "\x1b[2J\x1b]0;x\x07\r\x08\u202e\x9b2J"
    print_rows([{"title": evil}], {"title": "TITLE"}, "none")
    say(f"Project {evil} is not connected.")
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).split("\n"))


def test_a_formula_is_not_made_of_json(web: Service) -> None:
    """Answers are JSON with their type said, so that no browser takes them for a page or a table."""
    web.deliver(submission("spam", "important"))
    answer = web.api("GET", "/findings")
    assert answer.content_type == "application/json"
    assert "<" not in web.client.get("/api/v1/<script>").get_data(as_text=True)
