"""Hostile input, made of real deliveries: a seeded generator of broken JSON, bytes and texts.

It knows the structure of what it changes, so that most of what it makes gets past the first check and into
the code behind it. Everything comes from the generator it is given: the same seed makes the same input.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from random import Random
from typing import Any

FOLDER = Path(__file__).parents[1] / "plugin"
DELIVERIES = [path.read_text("utf-8") for path in sorted((FOLDER / "deliveries").glob("*.json"))]
LISTING = (FOLDER / "listings" / "tasks.json").read_text("utf-8")

TEXTS = (
    "",
    "\x00",
    "a\x00b",
    "\ud800",
    "\udfff\ud800",
    "\ufeff",
    "\u202etxt.exe",
    "\u2028\u2029\x85",
    "\r\nSet-Cookie: a=b",
    '\n{"level": "info", "event": "forged"}',
    "\x1b[2J\x1b]0;title\x07",
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "{{7*7}}{% raw %}${7*7}#{7*7}",
    "%s%s%n%(x)s{0}{self}",
    "'; drop table inbox; --",
    "../../../../etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "&billion;",
    "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
    "null",
    "NaN",
    "1e999",
    "0x10",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ́́́́́",
    "ﷺ" * 40,
    "token",
    "password",
    " / ",
    "eyJ" + "a" * 40 + ".b.c",
    "=cmd|'/C calc'!A0",
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    -(2**31) - 1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
    10**400,
    0.1,
    -0.0,
    1e308,
    5e-324,
    1.0,
    float("nan"),
    float("inf"),
    float("-inf"),
)
TIMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00",
    "9999-12-31T23:59:59Z",
    "1970-01-01",
    "2026-11-23T20:38:01.144404",
    "2026-11-23T20:38:01.144404+23:59",
    "2026-02-30T00:00:00Z",
    "2026-11-23T24:00:00Z",
    "2026-W48-1",
    "20261123T203801Z",
    "2026-11-23 20:38:01",
    "2026-11-23T20:38:60Z",
    "+12026-01-01T00:00:00Z",
    "23/11/2026",
    "1764000000",
)
KEYS = (
    "id",
    "task",
    "project",
    "result",
    "value",
    "type",
    "from_name",
    "to_name",
    "choices",
    "labels",
    "completed_by",
    "updated_by",
    "created_at",
    "updated_at",
    "was_cancelled",
    "ground_truth",
    "lead_time",
    "data",
    "meta",
    "action",
    "annotations",
    "annotation",
    "tasks",
    "headers",
    "token",
    "prediction",
    "parent_prediction",
    "item_index",
    "rating",
    "taxonomy",
    "ranker",
    "user_id",
    "label_config",
    "title",
    "expert_instruction",
    "maximum_annotations",
    "overlap",
)
KINDS = (
    "choices",
    "taxonomy",
    "rating",
    "number",
    "datetime",
    "textarea",
    "pairwise",
    "ranker",
    "relation",
    "labels",
    "rectanglelabels",
    "polygonlabels",
    "brushlabels",
    "videorectangle",
    "raw",
    "chat",
    "custominterface",
    "",
)
CONFIGS = (
    "<View/>",
    "<View",
    "<View><Choices name='topics' toName='text'>"
    + "<Choice value='a'>" * 150
    + "</Choice>" * 150
    + "</Choices></View>",
    '<View><Choices name="" toName=""/><Labels name="\u202e" toName="text"><Label value="x"/></Labels></View>',
    "<!DOCTYPE a [<!ENTITY b 'ccc'>]><View>&b;</View>",
    '<?xml version="1.0" encoding="utf-16"?><View/>',
    "<View xmlns:x='u'><x:Choices name='topics' toName='text'/></View>",
    "<View>\x01</View>",
    "<a>" * 5000 + "</a>" * 5000,
    '<View><Rating name="confidence" toName="text" maxRating="1e9"/><Number name="count" toName="text"/></View>',
)


class Mutator:
    """Makes hostile values out of one generator."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def text(self) -> str:
        """A hostile text, seldom a very long one."""
        random = self.random
        chance = random.random()
        if chance < 0.7:
            return random.choice(TEXTS)
        if chance < 0.97:
            return "".join(chr(random.choice((random.randrange(128), random.randrange(0x11000)))) for _ in range(6))
        return random.choice(("a", "é", "\x00", " ", "eyJ-", "token ")) * random.choice((300, 5000, 40_000))

    def scalar(self) -> Any:
        """Anything JSON knows but lists and objects."""
        random = self.random
        chance = random.random()
        if chance < 0.15:
            return random.choice((None, True, False))
        if chance < 0.45:
            return random.choice(NUMBERS)
        if chance < 0.6:
            return random.choice(TIMES)
        if chance < 0.7:
            return random.randrange(1, 50)
        return self.text()

    def value(self, depth: int = 0) -> Any:
        """Any JSON value."""
        random = self.random
        chance = random.random()
        if chance < 0.75 or depth > 3:
            return self.scalar()
        if chance < 0.85:
            return [self.value(depth + 1) for _ in range(random.choice((0, 1, 1, 2, 3)))]
        if chance < 0.97:
            return {self.key(): self.value(depth + 1) for _ in range(random.choice((0, 1, 1, 2, 3)))}
        if chance < 0.985:
            return nested(random.choice((30, 190, 205, 400)), as_list=random.random() < 0.5)
        item = self.scalar()
        return [item] * (random.choice((100, 2000)) if len(str(item)[:100]) < 100 else 3)

    def key(self) -> str:
        """A key that means something, or not."""
        return self.random.choice(KEYS) if self.random.random() < 0.8 else self.text()

    def delivery(self, project: int) -> Any:
        """A captured delivery about a project, with a few things changed."""
        random = self.random
        body = json.loads(random.choice(DELIVERIES))
        if random.random() < 0.9:
            self._renew(body, project)
        for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
            self.change(body)
        return body

    def change(self, body: Any) -> None:
        """Change one thing anywhere in a value."""
        random = self.random
        place = body
        # Labels and data are what most code looks at, and what nothing refuses.
        if random.random() < 0.6:
            for name in ("annotation", "result"):
                inner = place.get(name) if isinstance(place, dict) else None
                place = inner if isinstance(inner, (dict, list)) and inner else place
                if isinstance(place, list) and name == "annotation" and place:
                    place = place[0]
        key: Any
        while True:
            if isinstance(place, dict) and place:
                key = random.choice(list(place))
            elif isinstance(place, list) and place:
                key = random.randrange(len(place))
            else:
                return
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or random.random() < 0.3:
                break
            place = inner
        self._change(place, key)

    def _change(self, place: Any, key: Any) -> None:
        random = self.random
        chance = random.random()
        if chance < 0.12:
            del place[key]
        elif chance < 0.2 and isinstance(place, list):
            place.extend([place[key]] * random.choice((1, 2, 10)))
        elif chance < 0.3 and isinstance(place, dict):
            place[self.key()] = place[key]
        elif chance < 0.4:
            place[key] = [place[key]]
        elif chance < 0.45:
            place[key] = {self.key(): place[key]}
        elif key == "type" and chance < 0.8:
            place[key] = random.choice(KINDS)
        elif key == "label_config" and chance < 0.9:
            place[key] = random.choice(CONFIGS)
        elif key in ("created_at", "updated_at") and chance < 0.8:
            place[key] = random.choice(TIMES)
        else:
            place[key] = self.value()

    def _renew(self, body: Any, project: int) -> None:
        """Make it news: other ids, other times, people and labels, the right project."""
        random = self.random
        moment = f"2026-11-23T{random.randrange(24):02}:{random.randrange(60):02}:{random.randrange(60):02}.5Z"
        task = random.randrange(1, 40)
        for name in ("annotation", "annotations", "task", "tasks"):
            found = body.get(name)
            for item in found if isinstance(found, list) else [found]:
                if not isinstance(item, dict):
                    continue
                own = name.startswith("task")
                item["id"] = task if own else random.randrange(1, 200)
                if "task" in item:
                    item["task"] = task
                if "project" in item:
                    item["project"] = project
                if "updated_at" in item:
                    item["updated_at"] = moment
                for person in ("completed_by", "updated_by"):
                    if person in item:
                        item[person] = random.randrange(1, 8)
                for made in item.get("annotations") or [] if own else []:
                    made["task"] = task
        if isinstance(body.get("project"), dict):
            body["project"]["id"] = project

    def body(self, value: Any) -> bytes:
        """A value as the bytes of a request, seldom what it should be."""
        random = self.random
        chance = random.random()
        text = json.dumps(value, ensure_ascii=random.random() < 0.5)
        if chance < 0.85:
            return text.encode("utf-8", "surrogatepass")
        if chance < 0.87:
            return text.encode("utf-16", "surrogatepass")
        if chance < 0.88:
            return text.encode("utf-8-sig", "surrogatepass")
        if chance < 0.89:
            return zlib.compress(text.encode("utf-8", "surrogatepass"), wbits=31)
        if chance < 0.90:
            # The same key twice: which of the two is believed must not matter.
            return b'{"action": "ANNOTATION_CREATED", ' + text.encode("utf-8", "surrogatepass")[1:]
        if chance < 0.91:
            return (b"[" * 100_000) if random.random() < 0.5 else b'{"a":' * 50_000
        if chance < 0.915:
            return b'{"action": "X", "n": ' + b"9" * 5000 + b"}"
        raw = bytearray(text.encode("utf-8", "surrogatepass"))
        if chance < 0.96 and raw:
            raw[random.randrange(len(raw))] ^= random.randrange(1, 256)
            return bytes(raw)
        if chance < 0.99:
            return bytes(raw[: random.randrange(len(raw) + 1)])
        return random.randbytes(random.choice((0, 1, 10, 3000)))


def nested(depth: int, *, as_list: bool) -> Any:
    """A value inside that many lists or objects."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value
