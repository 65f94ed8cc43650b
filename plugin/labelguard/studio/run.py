"""``labelguard studio``: Label Studio in the foreground, with the page script in its pages."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from labelguard.settings import Settings
from labelguard.studio.launch import StudioNotStarted, studio_command


def run(settings: Settings, python: Path, port: int, arguments: Sequence[str]) -> int:
    """Run Label Studio until it ends or is told to, and return its exit status.

    ``python`` is the interpreter of Label Studio's own environment; ``arguments`` are added to
    ``label-studio start``. Requests under ``/labelguard/`` go to ``settings.public_url``, labelguard's
    address as Label Studio reaches it.

    Raises:
        StudioNotStarted: there is no such interpreter, or Label Studio is not installed in it.
    """
    if not python.is_file():
        raise StudioNotStarted(
            f"There is no Python at {python}. Install Label Studio in an environment of its own "
            "(python -m venv .venv-studio; .venv-studio/bin/pip install label-studio) and name its Python."
        )
    installed = subprocess.run(
        [str(python), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('label_studio') is None)"],
        check=False,
    )
    if installed.returncode != 0:
        raise StudioNotStarted(f"Label Studio is not installed for {python}: run {python} -m pip install label-studio.")
    process = subprocess.Popen(
        studio_command(python, port, arguments),
        env=studio_environment(settings, os.environ),
        start_new_session=True,
    )

    def pass_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Stopped as it was told to.
    return 0 if -status in before else status


def studio_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for Label Studio: ours without labelguard's own configuration, which holds secrets."""
    kept = {name: value for name, value in environ.items() if not name.startswith("LABELGUARD_")}
    return {**kept, "LABELGUARD_UPSTREAM": settings.public_url}
