"""Configuration: environment variables named ``LABELGUARD_...`` over one optional YAML file.

The file is named by ``LABELGUARD_CONFIG`` or is ``labelguard.yaml`` in the working directory. A secret may
also be given as a file: ``LABELGUARD_STUDIO_API_KEY_FILE`` names one that holds it.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from labelguard.wording import instead, likely, quoted
from labelguard.yamlfile import read_yaml

PREFIX = "LABELGUARD_"
CONFIG = PREFIX + "CONFIG"
STUDIO_PYTHON = PREFIX + "STUDIO_PYTHON"
"""Where commands that start a Label Studio find its interpreter; not a setting of the service."""
DEFAULT_FILE = Path("labelguard.yaml")
HIDDEN = "(hidden)"

log = logging.getLogger(__name__)


class BadSettings(ValueError):
    """Configuration that cannot be used; the message has every mistake, one a line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def _address(value: str) -> str:
    if not re.match(r"https?://[^/\s]+", value):
        raise ValueError("must be an address such as http://localhost:8080")
    return value.rstrip("/")


def _database(value: str) -> str:
    if not re.match(r"[a-z0-9+]+://", value):
        raise ValueError("must be a database address such as sqlite:///labelguard.sqlite3")
    return value


def _time_of_day(value: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError("must be a time of day such as 03:00")
    return value


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> tuple[Network, ...]:
    """The addresses and networks of a setting, divided by spaces or commas.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ipaddress.ip_network(part) for part in text.replace(",", " ").split())


def _networks(value: str) -> str:
    try:
        networks(value)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.1.2.3 192.168.0.0/16") from None
    return value


Address = Annotated[str, AfterValidator(_address)]


class Settings(BaseModel):
    """The effective configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    database_url: Annotated[str, AfterValidator(_database)] = "sqlite:///labelguard.sqlite3"
    """Where the store is: a file of SQLite for one machine, or PostgreSQL for several processes and machines, such
    as `postgresql://labelguard:password@db.example/labelguard` (needs `pip install 'labelguard[postgresql]'`)."""
    studio_url: Address = "http://localhost:8080"
    """Label Studio's address as labelguard reaches it."""
    studio_api_key: SecretStr = SecretStr("")
    """The token of labelguard's own Label Studio user: a personal access token, or a legacy token."""
    public_url: Address = "http://localhost:8090"
    """labelguard's address as Label Studio reaches it: where webhooks go."""
    host: str = "127.0.0.1"
    """The network interface the service listens on; `0.0.0.0` for all."""
    port: int = Field(default=8090, ge=0, le=65535)
    """The port the service listens on; 0 takes a free one."""
    api_token: SecretStr = SecretStr("")
    """The bearer token of `/api/v1` and the sign-in of the status page; empty closes both."""
    secret_key: SecretStr = SecretStr("")
    """Signs page sessions; made at random for each start when empty. All `labelguard web` must have the same."""
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Bytes; a larger delivery is refused with 413."""
    inline_deadline: float = Field(default=0.3, ge=0, le=10)
    """Seconds the receiver waits for the rules before it answers; the rest is done after."""
    engine_process: bool = True
    """Whether deliveries are judged in a process beside the one that speaks HTTP: it takes the memory of a second
    process, and answers are faster by far under load."""
    reconcile_minutes: float = Field(default=5, gt=0)
    """Minutes between two looks at Label Studio for what the webhook missed."""
    nightly_at: Annotated[str, AfterValidator(_time_of_day)] = "03:00"
    """When the full audit and the sweeps run, UTC."""
    raw_days: int = Field(default=30, ge=1)
    """Days after which what was delivered is no longer kept as it came, nor the data of tasks that were deleted;
    annotations, judgments, findings and actions stay. See [operations](operations.md#how-long-things-are-kept)."""
    election_seconds: float = Field(default=10, gt=0, le=60)
    """Seconds between two attempts of a process to take the schedule over from one that is gone."""
    keep_rejected: int = Field(default=1000, ge=0)
    """How many refused deliveries are kept for the admin to see."""
    notify: dict[str, SecretStr] = Field(default_factory=dict)
    """Targets of alerts: names for apprise addresses (https://github.com/caronc/apprise/wiki). Besides JSON
    in `LABELGUARD_NOTIFY`, each target `name` can stand in its own variable `LABELGUARD_NOTIFY_<NAME>`."""
    allow_private_targets: Annotated[str, AfterValidator(_networks)] = ""
    """Private addresses that alerts may go to, such as `10.1.2.3 192.168.0.0/16`: a mail server of one's own, say.
    Others are refused, so that nobody can have labelguard knock on doors inside your network."""
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    """Addresses or networks of reverse proxies in front of labelguard: only their `X-Forwarded-For` and
    `X-Forwarded-Proto` are believed."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""


_SECRET = frozenset({"database_url", "studio_api_key", "api_token", "secret_key", "notify"})
"""Settings that a ``_FILE`` variable may give: the secrets, and the address that can hold a password."""


@dataclass(slots=True)
class _Gathered:
    """What was found so far: the values, where each came from, and the mistakes."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any, origin: str) -> None:
        self.values[name] = value
        self.origins[name] = origin


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration: defaults, over them the file, over it the environment.

    Variables that begin with ``LABELGUARD_`` and nearly name a setting are mistakes; others that begin so
    (a container platform invents some from a service's name) are logged and left alone. Empty variables
    count as not set.

    Raises:
        BadSettings: with every mistake, each naming the variable or key and the fix.
    """
    environ = os.environ if environ is None else environ
    gathered = _Gathered()
    _read_file(path, environ, gathered)
    _read_environ(environ, gathered)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(gathered.values)
    except ValidationError as error:
        gathered.problems.extend(_sentences(error, gathered.origins))
    if gathered.problems or settings is None:
        raise BadSettings(gathered.problems)
    return settings


def shown(settings: Settings) -> dict[str, Any]:
    """The effective values for people to see: secrets and passwords inside addresses are hidden."""
    values: dict[str, Any] = {}
    for name, value in settings:
        if isinstance(value, SecretStr):
            values[name] = _covered(value)
        elif isinstance(value, dict):
            values[name] = {target: _covered(secret) for target, secret in value.items()}
        elif isinstance(value, str):
            values[name] = without_passwords(value)
        else:
            values[name] = value
    return values


def without_passwords(address: str) -> str:
    """An address with the password before its host, and secrets among its parameters, hidden."""
    address = re.sub(r"(://[^/@\s:]*):[^/\s]*@", rf"\1:{HIDDEN}@", address)
    parameter = r"(?i)([?&](?:password|passwd|token|key|secret|sslpassword)=)[^&#\s]+"
    return re.sub(parameter, rf"\1{HIDDEN}", address)


def settings_markdown() -> str:
    """``docs/configuration.md``: every setting with its variable, type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "<!-- Generated by `labelguard config --write-docs`; do not edit. -->",
        "",
        "Settings come from environment variables and from one optional YAML file; a variable wins.",
        "The file is the one named by `LABELGUARD_CONFIG`, or `labelguard.yaml` in the working directory.",
        "In the file a setting has its plain name, such as `studio_url: http://localhost:8080`.",
        "",
        "Every mistake is reported at once, misspelt names with what was probably meant.",
        "An empty variable counts as not set.",
        "`labelguard config` shows the values in use, with secrets hidden.",
        "",
        "Where a setting may be a file, the variable with `_FILE` at its end (in the file: the key with",
        "`_file`) names a file that holds the value, as container secrets do.",
        "",
        "| setting | variable | type | default | may be a file |",
        "|---|---|---|---|---|",
    ]
    described: list[str] = []
    for name, about in Settings.model_fields.items():
        default = about.get_default(call_default_factory=True)
        text = "empty" if isinstance(default, SecretStr) or default in ("", {}) else f"`{default}`"
        may = "yes" if name in _SECRET else ""
        lines.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {_type_in_words(name)} | {text} | {may} |")
        described += [f"## `{name}`", "", " ".join((about.description or "").split()), ""]
    return "\n".join([*lines, "", *described]).rstrip() + "\n"


def _covered(secret: SecretStr) -> str:
    return HIDDEN if secret.get_secret_value() else ""


def _read_file(path: Path | None, environ: Mapping[str, str], gathered: _Gathered) -> None:
    named = path or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    file = named or DEFAULT_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            gathered.problems.append(f"The configuration file {file} does not exist.")
        return
    except (OSError, UnicodeDecodeError) as error:
        gathered.problems.append(f"The configuration file {file} cannot be read: {_reason(error)}.")
        return
    document = read_yaml(text, str(file))
    gathered.problems.extend(str(p) for p in document.in_order())
    if document.data is None:
        return
    if not isinstance(document.data, dict):
        gathered.problems.append(f"{file}: A configuration is a list of `name: value` lines.")
        return
    for key, value in document.data.items():
        where = f"{document.at((key,))}: `{key}`"
        if key in Settings.model_fields:
            gathered.put(key, value, where)
        elif key.endswith("_file") and key.removesuffix("_file") in _SECRET:
            _put_secret(key.removesuffix("_file"), file.parent / str(value), where, gathered)
        else:
            gathered.problems.append(f"{where} is not a setting; {instead(key, Settings.model_fields)}")


def _read_environ(environ: Mapping[str, str], gathered: _Gathered) -> None:
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in (CONFIG, STUDIO_PYTHON) or not environ[variable]:
            continue
        name = variable.removeprefix(PREFIX).lower()
        plain = name.removesuffix("_file")
        if name != plain and (plain in _SECRET or plain.startswith("notify_")):
            direct = variable.removesuffix("_FILE")
            if environ.get(direct):
                gathered.problems.append(f"{variable} and {direct} are both set; keep one.")
            else:
                _put_secret(plain, Path(environ[variable]), variable, gathered)
        elif name in Settings.model_fields or name.startswith("notify_"):
            _put(name, environ[variable], variable, gathered)
        else:
            _unknown(variable, name, gathered)


def _unknown(variable: str, name: str, gathered: _Gathered) -> None:
    known = [*Settings.model_fields, "config", *(f"{secret}_file" for secret in sorted(_SECRET))]
    meant = likely(name, known)
    if meant is None:
        log.warning("The variable %s is not a setting of labelguard and was left alone.", variable)
    else:
        gathered.problems.append(f"{variable} is not a setting; did you mean {PREFIX}{meant.upper()}?")


def _put_secret(name: str, file: Path, origin: str, gathered: _Gathered) -> None:
    try:
        _put(name, file.read_text(encoding="utf-8").strip(), origin, gathered)
    except (OSError, UnicodeDecodeError) as error:
        gathered.problems.append(f"{origin} names the file {file}, which cannot be read: {_reason(error)}.")


def _put(name: str, text: str, origin: str, gathered: _Gathered) -> None:
    if name.startswith("notify_"):
        targets = gathered.values.get("notify")
        merged = {**targets, name.removeprefix("notify_"): text} if isinstance(targets, dict) else None
        gathered.put("notify", merged or {name.removeprefix("notify_"): text}, origin)
    elif name == "notify":
        try:
            gathered.put(name, json.loads(text), origin)
        except ValueError:
            gathered.problems.append(f'{origin} must be JSON such as {{"lead": "mailto://..."}}.')
    else:
        gathered.put(name, text, origin)


def _sentences(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    for mistake in error.errors(include_url=False):
        name, *inner = (str(part) for part in mistake["loc"])
        what = " ".join([origins[name], *(f"target {target!r}" for target in inner)])
        limits = mistake.get("ctx", {})
        kind = mistake["type"]
        # A secret's value never stands in a message, however wrong it is.
        found = "" if name in _SECRET else f", not {quoted(mistake['input'])}"
        if kind == "value_error":
            yield f"{what} {limits['error']}{found}."
        elif kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
            word = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
            (bound,) = [f"{word[k]} {v:g}" for k, v in limits.items()]
            yield f"{what} must be {bound}{found}."
        elif kind == "literal_error":
            yield f"{what} is {quoted(mistake['input'])}; {instead(str(mistake['input']), _choices(name))}"
        else:
            yield f"{what} must be {_type_in_words(name) if not inner else 'an address as text'}{found}."


def _choices(name: str) -> tuple[str, ...]:
    return tuple(getattr(Settings.model_fields[name].annotation, "__args__", ()))


def _type_in_words(name: str) -> str:
    kind = Settings.model_fields[name].annotation
    if kind is int:
        return "a whole number"
    if kind is float:
        return "a number"
    if kind is bool:
        return "true or false"
    if kind in (str, SecretStr):
        return "text"
    if choices := _choices(name) if name == "log_level" else ():
        return "one of " + ", ".join(choices)
    return "names with an address each"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror or "unknown error").lower()
