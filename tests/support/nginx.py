"""A real nginx with some lines of configuration."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from live import until


def nginx_binary() -> str:
    """Where nginx is; the test is skipped where there is none."""
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found is None:
        pytest.skip("there is no nginx here: install one")
    return found


def configured(folder: Path, lines: str) -> Path:
    """A configuration file with these lines in its ``http`` part; everything nginx writes is in the folder."""
    for name in ("body", "proxy"):
        (folder / name).mkdir(exist_ok=True)
    file = folder / "nginx.conf"
    file.write_text(
        f"""
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {lines}
}}
""",
        "utf-8",
    )
    return file


@contextmanager
def nginx(folder: Path, lines: str, address: str) -> Iterator[None]:
    """Run nginx with these lines until the end; what it answers ``GET address/health`` with says that it is up."""
    log = folder / "error.log"
    file = configured(folder, lines)
    running = subprocess.Popen([nginx_binary(), "-p", str(folder), "-c", str(file), "-e", str(log)])

    def answers() -> bool:
        try:
            return requests.get(f"{address}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    try:
        assert until(lambda: running.poll() is not None or answers())
        assert running.poll() is None, log.read_text("utf-8")
        yield
    finally:
        running.terminate()
        running.wait(10)
