"""Configuration: environment variables named ``LABELGUARD_...`` over one optional YAML file.

The file is named by ``LABELGUARD_CONFIG`` or is ``labelguard.yaml`` in the working directory. A secret may
also be given as a file: ``LABELGUARD_STUDIO_API_KEY_FILE`` names one that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class BadSettings(ValueError):
    """Configuration that cannot be used; the message has every mistake, one a line."""


class Settings(BaseSettings):
    """The effective configuration."""

    model_config = SettingsConfigDict(env_prefix="LABELGUARD_", extra="forbid", frozen=True)

    database_url: str = "sqlite:///labelguard.sqlite3"
    """Where the store is; SQLite for one machine."""
    studio_url: str = "http://localhost:8080"
    """Label Studio's address as labelguard reaches it."""
    studio_api_key: SecretStr = SecretStr("")
    """The token of labelguard's own Label Studio user."""
    public_url: str = "http://localhost:8090"
    """labelguard's address as Label Studio reaches it: where webhooks go."""
    host: str = "127.0.0.1"
    port: int = 8090
    api_token: SecretStr = SecretStr("")
    """The bearer token of ``/api/v1`` and the sign-in of the status page; empty closes both."""
    secret_key: SecretStr = SecretStr("")
    """Signs page sessions; made at random for each start when empty."""
    max_body_bytes: int = 16 * 1024 * 1024
    inline_deadline: float = 0.3
    """Seconds the receiver waits for the rules before it answers; the rest is done after."""
    reconcile_minutes: float = 5
    nightly_at: str = "03:00"
    """When the full audit and the sweeps run, UTC."""
    keep_rejected: int = 1000
    """How many refused deliveries are kept for the admin to see."""
    notify: dict[str, SecretStr] = {}
    """Names for alert targets: apprise URLs. ``LABELGUARD_NOTIFY`` takes JSON."""
    log_level: str = "INFO"


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    Raises:
        BadSettings: with every mistake, each naming the variable or key and the fix.
    """
    raise NotImplementedError


def shown(settings: Settings) -> dict[str, Any]:
    """The effective values for people to see: secrets and passwords inside addresses are hidden."""
    raise NotImplementedError
