"""labelguard as the demo runs it, and Label Studio as the demo's people use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message is a sentence."""


class Api:
    """An HTTP API as the bearer of one token uses it."""

    def __init__(self, url: str, authorization: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = authorization

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON of an answer; None where there is nothing (404).

        Raises:
            DemoFailed: the request was refused, or nobody answered.
        """
        try:
            answer = self._session.request(method, self._url + path, timeout=60, **arguments)
        except requests.RequestException as error:
            raise DemoFailed(f"{method} {path} got no answer ({type(error).__name__}).") from error
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise DemoFailed(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        return answer.json() if answer.content else None

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()


class Labelguard:
    """The ``labelguard`` command with a configuration of its own, and the service that it runs."""

    def __init__(self, folder: Path, configuration: Mapping[str, str]) -> None:
        self._folder = folder
        # Whatever is configured for a real server must not reach the demo.
        ambient = {name: value for name, value in os.environ.items() if not name.startswith("LABELGUARD_")}
        self._environment = {**ambient, **configuration}
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> str:
        """Run a command as a person would, and return what it printed.

        Raises:
            DemoFailed: it failed; the message has what it said.
        """
        done = subprocess.run(
            [sys.executable, "-m", "labelguard", *arguments],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoFailed(f"`labelguard {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self, url: str, timeout: float = 60) -> None:
        """Run ``labelguard serve`` and wait until it is ready.

        Raises:
            DemoFailed: it did not become ready; the message has the end of its log.
        """
        log = self._folder / "labelguard.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labelguard", "serve"],
                env=self._environment,
                cwd=self._folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the demo, which stops everything in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if requests.get(f"{url}/readyz", timeout=2).ok:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
        self.stop()
        end = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
        raise DemoFailed(f"labelguard did not start within {timeout:.0f} s. Its log ends:\n{end}")

    def stop(self) -> None:
        """Stop the service."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
