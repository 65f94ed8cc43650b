"""Starting and stopping a Label Studio server of one's own.

Label Studio lives in a virtual environment of its own (its pins are strict), so it is run by that
environment's Python. The demo and the live tests start their servers through this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests


class StudioNotStarted(RuntimeError):
    """Label Studio did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Account:
    """A Label Studio login."""

    id: int
    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


def free_port() -> int:
    """A TCP port that is free on the loopback interface at the moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class StudioProcess:
    """A real Label Studio on a port of the loopback interface, with its data in a folder."""

    def __init__(
        self,
        python: Path,
        data_dir: Path,
        *,
        port: int | None = None,
        labelguard_url: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """``python`` is the interpreter of Label Studio's environment.

        With ``labelguard_url`` the page script is inserted and ``/labelguard/`` passed on to that address,
        as ``labelguard studio`` does.
        """
        self.python = python
        self.data_dir = data_dir
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.labelguard_url = labelguard_url
        self._env = dict(env or {})
        self._admin_password = secrets.token_urlsafe(12)
        self._admin_token = secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = Account(1, "admin@example.com", self._admin_password, self._admin_token)

    def start(self, timeout: float = 180) -> None:
        """Start and wait until it answers; a fresh one needs about 25 seconds."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.data_dir),
            "LANG": "C.UTF-8",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_USERNAME": self.admin.email,
            "LABEL_STUDIO_PASSWORD": self.admin.password,
            "LABEL_STUDIO_USER_TOKEN": self.admin.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # A receiver on the loopback interface is refused otherwise.
            "SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
            **self._env,
        }
        if self.labelguard_url:
            env["LABELGUARD_UPSTREAM"] = self.labelguard_url
        command = studio_command(self.python, self.port)
        log = (self.data_dir / "server.log").open("ab")
        self._process = subprocess.Popen(
            command, env=env, cwd=self.data_dir, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if requests.get(f"{self.url}/health", timeout=2).json().get("status") == "UP":
                    return
            except (requests.RequestException, ValueError):
                time.sleep(0.3)
        self.stop()
        raise StudioNotStarted(f"Label Studio did not start within {timeout:.0f} s. Its log ends:\n{self.log_tail()}")

    def log_tail(self, lines: int = 30) -> str:
        """The end of the server's log."""
        path = self.data_dir / "server.log"
        return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self) -> None:
        """Stop the server and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for sign, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
                return

    def sign_up(self, email: str, password: str | None = None, *, first: str = "", last: str = "") -> Account:
        """Make an account the way a person does: through the invitation link's form."""
        password = password or secrets.token_urlsafe(12)
        as_admin = {"Authorization": f"Token {self.admin.token}"}
        invite = requests.get(f"{self.url}/api/invite", headers=as_admin, timeout=20).json()["invite_url"]
        session = requests.Session()
        form_url = self.url + invite[invite.index("/user/") :] if "/user/" in invite else self.url + invite
        page = session.get(form_url, timeout=20).text
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        answer = session.post(
            form_url,
            data={
                "email": email,
                "password": password,
                "csrfmiddlewaretoken": found.group(1) if found else "",
            },
            headers={"Referer": form_url},
            timeout=20,
        )
        answer.raise_for_status()
        token = session.get(f"{self.url}/api/current-user/token", timeout=20).json()["token"]
        me = session.get(f"{self.url}/api/current-user/whoami", timeout=20).json()
        if first or last:
            requests.patch(
                f"{self.url}/api/users/{me['id']}/",
                json={"first_name": first, "last_name": last},
                headers={"Authorization": f"Token {token}"},
                timeout=20,
            ).raise_for_status()
        return Account(int(me["id"]), email, password, token)


def studio_command(python: Path, port: int, arguments: Sequence[str] = ()) -> list[str]:
    """The command that runs Label Studio through the wrapper on a loopback port."""
    wrapper = Path(__file__).with_name("wrapper.py")
    return [str(python), str(wrapper), "start", "--port", str(port), "--no-browser", *arguments]
