"""labelguard's processes get SIGKILL, Label Studio misbehaves; nothing is lost and nothing happens twice.

``CRASH_ROUNDS=10`` repeats each test with other seeds, for a longer run; ``CRASH_DELIVERIES`` is how many each has.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from chaosfleet import Reaper
from chaosworld import World, start, world
from databases import SQLITE, database_url

log = logging.getLogger("crash")

pytestmark = [pytest.mark.crash, pytest.mark.slow]

DELIVERIES = int(os.environ.get("CRASH_DELIVERIES", "2600"))
"""In each of the four runs, so that the suite has more than ten thousand."""

ROUNDS = range(int(os.environ.get("CRASH_ROUNDS", "1")))


def proved(made: World) -> None:
    """Stop everything; what must hold, holds."""
    made.fleet.stop()
    problems, figures = made.proved()
    log.info("%s", figures)
    assert problems == []


@pytest.mark.parametrize("seed", ROUNDS)
@pytest.mark.parametrize("enterprise", [False, True], ids=["community", "enterprise"])
def test_killed_at_random_moments(tmp_path: Path, store_on: str, enterprise: bool, seed: int) -> None:
    """Every 2xx has its findings once, every action its effect once, every sequential test its memory.

    Label Studio fails before and after it did what it was asked for, answers too late, asks to wait, and drops
    connections; and whoever asked is killed between the effect and its recording.
    """
    webs = 1 if store_on == SQLITE else 2
    with world(tmp_path, database_url(tmp_path), seed=seed, enterprise=enterprise, webs=webs) as made:
        names = start(made, store_on)
        made.studio.plan.armed = True
        reaper = Reaper(made.fleet, seed, names, made.done, every=(5, 120))
        reaper.start()
        made.load.work(DELIVERIES)
        made.work_off(20)
        reaper.stop()
        made.settle(300)
        tally = made.fleet.tally()
        assert tally["random"] >= min(20, DELIVERIES // 100)
        assert tally["engine"] >= 2
        assert tally["between call and recording"] >= 2
        proved(made)


@pytest.mark.parametrize("seed", ROUNDS)
def test_killed_between_commit_and_answer(tmp_path: Path, store_on: str, seed: int) -> None:
    """What was kept and not answered is sent again, and is the same delivery."""
    with world(tmp_path, database_url(tmp_path), seed=seed, enterprise=False) as made:
        receiver = start(made, store_on)[0]
        struck = 0
        for delivery in made.load.pieces(40):
            if delivery.what != "ANNOTATIONS_DELETED" and made.strike(delivery, receiver):
                struck += 1
                made.fleet.ready(receiver)
                assert made.load.send(delivery)
                assert delivery.receipts[-1]["duplicate"]
            else:
                assert made.load.send(delivery)
        assert struck >= 10
        made.settle(300)
        proved(made)
