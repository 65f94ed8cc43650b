"""The doctor: what is wrong with an installation, and the fix, for an admin who has just begun."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise
from statistics import median
from typing import cast
from urllib.parse import urlsplit

import requests
import sqlalchemy as sa

from labelguard import distrust
from labelguard.connectors import ConnectorError, Server, Studio
from labelguard.engine import Clock
from labelguard.settings import Settings
from labelguard.store import Store, records
from labelguard.store.core import StoreError
from labelguard.store.records import Row
from labelguard.store.schema import annotations as annotation_table, inbox
from labelguard.webhooks import standing, webhook_url

CLOCK_SKEW = timedelta(seconds=60)
"""More than this between Label Studio's clock and ours makes times in findings hard to follow."""

SLOW = timedelta(seconds=2)
"""A delivery that comes later than this after its annotation was saved did not come inside the save."""

RECENT = 200
"""How many of the newest deliveries say how Label Studio delivers."""

_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool | None
    """True: all is well. False: something must be done. None: cannot be told, or worth knowing."""
    message: str
    """What was seen, as a sentence."""
    fix: str = ""
    """What to do about it, as a sentence; empty where nothing must be done."""


def diagnose(
    settings: Settings,
    store: Store | None = None,
    studio: Studio | None = None,
    project: int | None = None,
    *,
    clock: Clock,
    events: Sequence[str] | None = None,
) -> list[Check]:
    """Look at everything that must work; with ``project`` (or else for every connected one) its webhook too.

    Nothing is changed anywhere, apart from a store that is not there yet, which is made. ``store`` and
    ``studio`` are opened from the settings where they are not given; that they cannot be is a finding and no
    exception.
    """
    checks: list[Check] = []
    with _opened(settings, store, checks, clock) as usable:
        connector = studio or _connector(settings, checks)
        server = _server(connector, checks) if connector is not None else None
        checks.append(_clock(settings, clock))
        checks.append(_service(settings))
        checks.append(_ssrf(settings))
        if usable is not None and connector is not None and server is not None:
            with usable.read() as conn:
                known = {row["id"]: row for row in records.list_projects(conn, connected=True)}
            if events is None:
                from labelguard.manifest import events_for

                events = events_for(server)
            for each in sorted(known) if project is None else [project]:
                checks += _project(usable, connector, server, settings, each, known.get(each), events)
            if project is None and not known:
                checks.append(
                    Check("projects", None, "No project is connected yet.", "Run `labelguard connect --project ID`.")
                )
    return checks


@contextmanager
def _opened(settings: Settings, store: Store | None, checks: list[Check], clock: Clock) -> Iterator[Store | None]:
    """The store, once it was opened (which brings its schema up to date) and written to."""
    mine = store is None
    try:
        store = store or Store.open(settings.database_url)
        store.write(lambda conn: records.set_cursor(conn, "doctor", "was here", clock()))
    except (StoreError, sa.exc.SQLAlchemyError, OSError) as error:
        why = str(error) if isinstance(error, StoreError) else "The store cannot be written to."
        checks.append(Check("store", False, why, "Check LABELGUARD_DATABASE_URL and who owns that file."))
        yield None
        return
    try:
        checks.append(Check("store", True, "The store can be written to and its schema is current."))
        yield store
    finally:
        if mine:
            store.close()


def _connector(settings: Settings, checks: list[Check]) -> Studio | None:
    key = settings.studio_api_key.get_secret_value()
    if not key:
        checks.append(
            Check(
                "token",
                False,
                "labelguard has no token for Label Studio.",
                "Create a user of its own for it, and set LABELGUARD_STUDIO_API_KEY to that user's access token.",
            )
        )
        return None
    from labelguard.registry import load_connectors

    make = load_connectors().get("studio")
    if make is None:
        checks.append(Check("token", False, "The connector “studio” is not installed.", "Install labelguard again."))
        return None
    return cast("Studio", make(settings.studio_url, key))


def _server(studio: Studio, checks: list[Check]) -> Server | None:
    try:
        server = studio.server()
    except ConnectorError as error:
        checks.append(Check("token", False, str(error), "labelguard can do nothing until Label Studio answers."))
        return None
    who = server.user.email or server.user.name or str(server.user.id)
    checks.append(Check("token", True, f"Label Studio takes labelguard's token; it acts as {who}."))
    more = [name for name in ("comments", "assignments", "pauses", "reviews") if getattr(server, name)]
    offers = f"with {', '.join(more)}" if more else "where prompts are shown by the page script"
    checks.append(Check("edition", True, f"This is Label Studio {server.edition} {server.version}, {offers}."))
    return server


def _clock(settings: Settings, clock: Clock) -> Check:
    try:
        asked = clock()
        answer = requests.get(f"{settings.studio_url.rstrip('/')}/health", timeout=_TIMEOUT, allow_redirects=False)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (requests.RequestException, KeyError, ValueError):
        return Check("clock", None, "Label Studio did not tell its time.")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    ours = asked + (clock() - asked) / 2
    skew = theirs - ours
    # The header has whole seconds.
    seconds = round(skew.total_seconds())
    if abs(skew) > CLOCK_SKEW:
        return Check(
            "clock",
            False,
            f"Label Studio's clock is {abs(seconds)} seconds {'ahead of' if seconds > 0 else 'behind'} this machine's.",
            "Set both by NTP. labelguard goes by Label Studio's clock for the age of annotations, and by its own for "
            "when it received and did something.",
        )
    return Check("clock", True, "Label Studio's clock and this machine's agree.")


def _service(settings: Settings) -> Check:
    """Whether labelguard answers at its public address; seen from here, which is all that can be tried."""
    url = settings.public_url.rstrip("/")
    try:
        answer = requests.get(f"{url}/healthz", timeout=_TIMEOUT, allow_redirects=False)
        up = answer.status_code == 200
        why = f"answered HTTP {answer.status_code}"
    except requests.RequestException:
        up, why = False, "did not answer"
    if up:
        return Check("address", True, f"labelguard answers at {url}, asked from this machine.")
    return Check(
        "address",
        False,
        f"{url}/healthz {why}, asked from this machine.",
        "Start `labelguard serve`, and set LABELGUARD_PUBLIC_URL to where Label Studio reaches it.",
    )


def _ssrf(settings: Settings) -> Check:
    """Whether Label Studio's protection would refuse our address; only a real `connect` can tell that it does."""
    host = urlsplit(settings.public_url).hostname or ""
    try:
        found = {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, ValueError):
        return Check(
            "webhook address",
            None,
            f"The host name {host!r} in LABELGUARD_PUBLIC_URL is not known on this machine.",
            "Make sure that Label Studio's machine knows it.",
        )
    reserved = sorted(str(address) for address in found if not address.is_global)
    if reserved:
        return Check(
            "webhook address",
            None,
            f"{' or '.join(dict.fromkeys([host, *reserved]))} is a private or reserved address, which Label Studio "
            "refuses by default.",
            "If `labelguard connect` says so, start Label Studio with SSRF_PROTECTION_ENABLED=false or "
            "USE_DEFAULT_BANNED_SUBNETS=false.",
        )
    return Check("webhook address", True, f"{host} is a public address, which Label Studio accepts.")


def _project(
    store: Store,
    studio: Studio,
    server: Server,
    settings: Settings,
    project: int,
    row: Row | None,
    events: Sequence[str],
) -> list[Check]:
    where = f"project {project}"
    if row is None:
        connect = f"Run `labelguard connect --project {project}`."
        return [Check(f"{where}: webhook", False, f"Project {project} is not connected.", connect)]
    return [
        _webhook(studio, settings, project, row, events),
        _deliveries(store, project, row),
        _delivery_mode(store, project),
        _confirmed(store, project),
        _history(store, project),
        _own_user(store, server, project),
        _alone(store, server, project),
        *_permissions(studio, server, project),
    ]


def _permissions(studio: Studio, server: Server, project: int) -> list[Check]:
    """What labelguard's user may not do of what an Enterprise offers, as far as reading can tell."""
    if server.edition == "Community":
        return []
    name = f"project {project}: permissions"
    try:
        refused = studio.refusals(project)
    except ConnectorError as error:
        return [Check(name, None, str(error))]
    if not refused:
        return [Check(name, True, "labelguard's user may use everything that this Label Studio offers.")]
    return [
        Check(
            name,
            False,
            " ".join(refused.values()),
            "Give labelguard's user that role in the project, or leave the actions that need it out of the policy.",
        )
    ]


def _webhook(studio: Studio, settings: Settings, project: int, row: Row, events: Sequence[str]) -> Check:
    name = f"project {project}: webhook"
    url = webhook_url(settings.public_url, project)
    try:
        found = standing(studio.webhooks(project), url=url, actions=events, known=row["webhook_id"])
    except ConnectorError as error:
        return Check(name, False, str(error), "Check that labelguard's user may see the project.")
    if found.problems:
        return Check(
            name,
            False,
            " ".join(found.problems),
            f"Run `labelguard connect --project {project}`; `labelguard serve` also repairs it by itself.",
        )
    return Check(name, True, f"The webhook is there, active, and sends to {url}.")


def _deliveries(store: Store, project: int, row: Row) -> Check:
    name = f"project {project}: deliveries"
    with store.read() as conn:
        # Connected by Label Studio's clock, received by ours.
        since = row["connected_at"] - records.clock_skew(conn)
        query = sa.select(sa.func.max(inbox.c.received_at)).where(
            inbox.c.project == project, inbox.c.origin == "webhook", inbox.c.received_at >= since
        )
        newest: datetime | None = conn.scalar(query)
    if newest is None:
        return Check(
            name,
            None,
            "No delivery has come in since the project was connected.",
            "Submit an annotation. If nothing comes, Label Studio cannot reach LABELGUARD_PUBLIC_URL or its "
            "protection drops the delivery silently (SSRF_PROTECTION_ENABLED).",
        )
    return Check(name, True, f"Deliveries reach labelguard; the newest came at {newest:%Y-%m-%d %H:%M:%S} UTC.")


def _delivery_mode(store: Store, project: int) -> Check:
    """Whether deliveries come inside the annotator's save or from a queue (Redis); nothing in the API says so.

    Without Redis they come within the save, so in its order and at once; a queue shows as lateness or as
    changed order. Quick and orderly deliveries may still come from a fast queue.
    """
    name = f"project {project}: delivery"
    query = (
        sa.select(inbox.c.received_at, inbox.c.body)
        .where(
            inbox.c.project == project,
            inbox.c.origin == "webhook",
            inbox.c.action.in_(("ANNOTATION_CREATED", "ANNOTATION_UPDATED")),
        )
        .order_by(inbox.c.id.desc())
        .limit(RECENT)
    )
    with store.read() as conn:
        rows = conn.execute(query).all()
        skew = records.clock_skew(conn)
    saved = [(received + skew, _saved_at(body)) for received, body in rows]
    pairs = [(received, at) for received, at in reversed(saved) if at is not None]
    note = (
        "Label Studio gives up on a delivery after WEBHOOK_TIMEOUT (1 second in 1.23) and does not repeat it; "
        "reconciliation finds what was lost."
    )
    if not pairs:
        return Check(name, None, f"How Label Studio delivers cannot be told before deliveries came. {note}")
    late = median((received - at).total_seconds() for received, at in pairs)
    disordered = any(after[1] < before[1] for before, after in pairwise(pairs))
    last = f"last {len(pairs)} deliveries" if len(pairs) > 1 else "one delivery so far"
    seen = f"Over the {last} the median delay after saving was {late:.2f} seconds"
    if late > SLOW.total_seconds() or disordered:
        return Check(
            name,
            None,
            f"{seen}{', and their order was not kept' if disordered else ''}: Label Studio probably delivers from "
            f"a queue (Redis). {note}",
            "Prompts may come a moment after the page has its answer; nothing must be done.",
        )
    return Check(name, True, f"{seen}, in order: they come while the annotator's save is answered. {note}")


def _saved_at(body: object) -> datetime | None:
    value = body.get("annotation") if isinstance(body, dict) else None
    text = value.get("updated_at") if isinstance(value, dict) else None
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _confirmed(store: Store, project: int) -> Check:
    """Whether Label Studio confirms what deliveries say."""
    name = f"project {project}: confirmed"
    with store.read() as conn:
        doubts = records.list_doubts(conn, project)
    wrong, worth_knowing = distrust.sentence(doubts), distrust.remarks(doubts)
    if wrong:
        return Check(name, False, wrong, distrust.advice(project))
    if worth_knowing:
        return Check(name, None, worth_knowing)
    return Check(name, True, "Label Studio confirms what deliveries say.")


def _history(store: Store, project: int) -> Check:
    """What cannot be known of the past."""
    name = f"project {project}: history"
    with store.read() as conn:
        unknown = records.unknown_counts(conn, project)
    gaps, unjudged, refuted = unknown["gaps"], unknown["unjudged"], unknown["refuted"]
    said = [
        f"{_counted(gaps)} found by looking, and others before {_them(gaps)} may be missing." if gaps else "",
        f"{_counted(unjudged)} replaced while the policy could not be used, and stay{'s' * (unjudged == 1)} unjudged."
        if unjudged
        else "",
        f"{_counted(refuted)} told of by deliveries alone; Label Studio does not have {_them(refuted)}, so "
        f"nothing counts {_them(refuted)}."
        if refuted
        else "",
    ]
    if any(said):
        return Check(name, None, " ".join(filter(None, said)))
    return Check(name, True, "Every version came by a delivery.")


def _counted(versions: int) -> str:
    return "1 version was" if versions == 1 else f"{versions} versions were"


def _them(versions: int) -> str:
    return "it" if versions == 1 else "them"


def _own_user(store: Store, server: Server, project: int) -> Check:
    name = f"project {project}: own user"
    mine = sa.select(sa.func.count()).where(
        annotation_table.c.project == project,
        annotation_table.c.completed_by == server.user.id,
        annotation_table.c.deleted_at.is_(None),
        annotation_table.c.ground_truth.is_(False),
    )
    with store.read() as conn:
        count = conn.scalar(mine) or 0
    if count:
        who = server.user.email or str(server.user.id)
        return Check(
            name,
            False,
            f"The user labelguard acts as ({who}) made {count} annotations in this project; they are never judged.",
            "Create a Label Studio user for labelguard alone and set LABELGUARD_STUDIO_API_KEY to its token.",
        )
    return Check(name, True, "Nobody annotates as labelguard's user.")


def _alone(store: Store, server: Server, project: int) -> Check:
    """Whether there is anybody to give a second opinion: such a task waits for ever otherwise."""
    name = f"project {project}: annotators"
    authors = (
        sa.select(annotation_table.c.completed_by)
        .where(annotation_table.c.project == project, annotation_table.c.deleted_at.is_(None))
        .distinct()
    )
    with store.read() as conn:
        working = {author for author in conn.scalars(authors) if author not in {None, server.user.id}}
    if len(working) == 1:
        return Check(
            name,
            None,
            "Only one person has annotated in this project.",
            "`second-opinion` and `replace` wait until a second annotator works in it.",
        )
    if not working:
        return Check(name, None, "Nobody has annotated in this project yet.")
    return Check(name, True, f"{len(working)} people have annotated in this project.")
