"""What is in docker/ fits together and fits the service; the large topology runs in tests/live."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from labelguard.cli import app as commands
from labelguard.settings import _SECRET, Settings
from labelguard.studio.launch import free_port
from nginx import configured, nginx_binary

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def arguments(name: str) -> list[str]:
    """The arguments of one kind of instruction."""
    return [rest for kind, rest in instructions() if kind == name]


def composed(file: Path) -> dict[str, Any]:
    """A compose file."""
    document: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return document


def ours(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run labelguard."""
    return {name: each for name, each in document["services"].items() if each.get("image") == "labelguard"}


def copied() -> list[str]:
    """What the image is built from."""
    lines = [line.split() for line in arguments("COPY") if not line.startswith("--from")]
    return [source for line in lines for source in line[:-1]]


# The image


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    """`.dockerignore` lets exactly those through."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied())
    assert all((ROOT / source).exists() for source in copied())


def test_the_wheel_builds_from_what_is_copied(tmp_path: Path) -> None:
    """Nothing that it needs is missing in the image's first stage."""
    source = tmp_path / "source"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "wheels"), "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert fnmatch(wheel.name, "labelguard-*.whl")


def test_the_image_runs_as_nobody_special_and_says_when_it_is_ill() -> None:
    """The commands exist, the settings do, and no secret is baked in."""
    kinds = [kind for kind, _ in instructions()]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert set(kinds) <= known
    assert arguments("USER") == ["labelguard"]
    assert kinds.index("USER") > max(position for position, kind in enumerate(kinds) if kind == "RUN")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert json.loads(arguments("ENTRYPOINT")[0])[0] in scripts
    assert json.loads(arguments("CMD")[0])[0] in names()
    variables = dict(each.split("=", 1) for line in arguments("ENV") for each in shlex.split(line))
    settings = {name.removeprefix("LABELGUARD_").lower(): value for name, value in variables.items()}
    assert Settings.model_validate(settings).host == "0.0.0.0"  # noqa: S104 - inside its container
    assert not set(settings) & (_SECRET - {"database_url"})
    assert f":{settings['port']}/healthz" in arguments("HEALTHCHECK")[0]
    assert arguments("EXPOSE") == [settings["port"]]


def names() -> set[str]:
    """The commands of the command line."""
    return set(typer.main.get_command(commands).commands)  # type: ignore[attr-defined]


# Compose


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_services_name_only_what_exists(file: Path) -> None:
    """Commands, settings, secrets, volumes, files and other services."""
    document = composed(file)
    services = document["services"]
    for name, service in services.items():
        assert service["image"], name
        assert ":latest" not in service["image"]
        for other, needed in _conditions(service).items():
            assert other in services
            if needed == "service_healthy":
                assert "healthcheck" in services[other] or services[other]["image"] == "labelguard"
        assert set(service.get("secrets", [])) <= set(document["secrets"])
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert target.startswith("/")
            assert (DOCKER / source).is_file() if source.startswith(".") else source in document["volumes"]
    for name, service in ours(document).items():
        (command,) = service["command"]
        assert command in names(), name
        for variable in service["environment"]:
            setting = variable.removeprefix("LABELGUARD_").lower()
            assert setting in Settings.model_fields or setting.removesuffix("_file") in _SECRET, variable
        given = {value.rpartition("/")[2] for value in service["environment"].values() if "/run/secrets/" in value}
        assert given == set(service["secrets"])
        assert not any(variable.removeprefix("LABELGUARD_").lower() in _SECRET for variable in service["environment"])
    assert {each["file"].rpartition("/")[2] for each in document["secrets"].values()} == set(document["secrets"])


def _conditions(service: dict[str, Any]) -> dict[str, str]:
    needed = service.get("depends_on", {})
    if isinstance(needed, list):
        return dict.fromkeys(needed, "service_started")
    return {name: each["condition"] for name, each in needed.items()}


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_only_label_studio_is_for_everybody(file: Path) -> None:
    """labelguard's API and status page are published for the machine itself; the database not at all."""
    published = {name: each.get("ports", []) for name, each in composed(file)["services"].items()}
    assert {name for name, ports in published.items() if ports} == {"nginx"}
    assert published["nginx"] == ["8080:80", "127.0.0.1:8090:8090"]


def test_the_small_one_is_one_process_and_the_large_one_several_with_the_same_settings() -> None:
    """SQLite is for one process; webs and workers must agree on everything."""
    small = ours(composed(DOCKER / "compose.small.yaml"))
    assert [each["command"] for each in small.values()] == [["serve"]]
    large = ours(composed(DOCKER / "compose.large.yaml"))
    assert sorted(each["command"][0] for each in large.values()) == ["web", "web", "worker", "worker"]
    assert all("LABELGUARD_DATABASE_URL_FILE" in each["environment"] for each in large.values())
    assert len({json.dumps(each["environment"], sort_keys=True) for each in large.values()}) == 1


@pytest.mark.parametrize("size", ["small", "large"])
def test_nginx_takes_its_configuration_and_asks_services_that_exist(size: str, tmp_path: Path) -> None:
    """The upstreams are services of the compose file, on the ports that they listen on."""
    upstream = (DOCKER / f"upstream.{size}.conf").read_text("utf-8")
    asked = re.findall(r"server ([\w-]+):(\d+)", upstream)
    document = composed(DOCKER / f"compose.{size}.yaml")
    webs = {name for name, each in ours(document).items() if each["command"] != ["worker"]}
    assert {name for name, port in asked if port == "8090"} == webs
    assert [name for name, port in asked if port == "8080"] == ["studio"]
    lines = re.sub(r"server [\w-]+:", "server 127.0.0.1:", upstream) + (DOCKER / "nginx.conf").read_text("utf-8")
    lines = re.sub(r"listen \d+", lambda _: f"listen 127.0.0.1:{free_port()}", lines)
    file = configured(tmp_path, lines)
    done = subprocess.run(
        [nginx_binary(), "-t", "-p", str(tmp_path), "-c", str(file), "-e", str(tmp_path / "error.log")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
