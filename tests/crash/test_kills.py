"""labelguard's processes get SIGKILL, Label Studio misbehaves; nothing is lost and nothing happens twice."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from chaosfleet import Reaper
from chaosworld import world

log = logging.getLogger("crash")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("enterprise", [False, True], ids=["community", "enterprise"])
def test_killed_at_random_moments_on_sqlite(tmp_path: Path, enterprise: bool) -> None:
    """Every 2xx has its findings once, every action its effect once, every test its memory."""
    with world(tmp_path, f"sqlite:///{tmp_path / 'store.sqlite3'}", seed=7, enterprise=enterprise) as made:
        (port,) = made.load.ports
        made.fleet.add("serve", "serve", port=port, LABELGUARD_PORT=str(port))
        made.fleet.ready("serve")
        made.studio.plan.armed = True
        reaper = Reaper(made.fleet, 7, ["serve"], lambda: made.load.answers, every=(5, 60))
        reaper.start()
        made.load.work(1000)
        reaper.stop()
        made.settle(120)
        made.fleet.stop()
        problems, figures = made.proved()
    log.info("%s", figures)
    assert problems == []
