"""Threat: a small input that costs hours of work or gigabytes of memory.

Aliases in YAML, entities in XML, patterns that try everything twice, compressed bodies, endless nesting. What may
be dangerous runs in a process of its own with a limit on memory and on time of the processor: a bomb would end it.
"""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import pkgutil
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import labelguard
import labelguard_connectors
import labelguard_rules
from labelguard.labelconfig import LabelConfig
from labelguard.yamlfile import LARGEST, read_yaml
from webservice import Service, service, submission

# What is reviewed here lies above the store; the fuzzers run on both.
pytestmark = pytest.mark.store("sqlite")

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for name in ("plugin", "rules", "connectors", "analytics", "templates") for path in (ROOT / name).rglob("*.py")
)
SECONDS = 60
MEMORY = 2 * 1024**3


def limited(code: str, *values: str) -> str:
    """What a program prints that may use so much time and memory and no more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    done = subprocess.run(
        [sys.executable, "-c", code, *values], capture_output=True, text=True, preexec_fn=limit, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] or f"ended with {done.returncode}"
    return done.stdout


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize("text", [LAUGHS, "a: &a {<<: *a}", "- &x [*x]", "&a [*a, *a]"])
def test_a_policy_has_no_aliases(web: Service, text: str) -> None:
    """The billion laughs of YAML are ten lines long."""
    answer = web.api("PUT", "/policies/3", data=text)
    assert answer.status_code == 400
    assert "Anchors and aliases" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary aGk=", "!x y"]
)
def test_a_policy_makes_no_objects(web: Service, tag: str) -> None:
    """Tags that would make anything but plain data are refused."""
    answer = web.api("PUT", "/policies/3", data=f"project: 3\nrules: []\nlanguage: {tag}\n")
    assert answer.status_code == 400


def test_hostile_yaml_ends_in_time() -> None:
    """Half of what is read at all, in the shapes that cost a parser most."""
    shapes = (
        "'[' * size, '{' * size, '- ' * (size // 2), '? ' * (size // 2), '[' + 'a,' * (size // 2 - 1) + ']',"
        "'[\\n' * 90 + 'a,\\n' * (size // 3 - 90), ' ' * size, '\"' + '\\\\\\\\' * (size // 2 - 1) + '\"', "
        "'a: |\\n' + ' \\n' * (size // 2 - 3), '!!a ' * (size // 4), '---\\n' * (size // 4), '#' * size"
    )
    code = (
        "import sys; from labelguard.yamlfile import read_yaml, LARGEST\n"
        f"size = LARGEST // 2\nfor text in ({shapes}):\n    read_yaml(text[:size], 'x')\nprint('done')"
    )
    assert limited(code).strip() == "done"
    assert read_yaml("a" * (LARGEST + 1), "x").problems


@pytest.mark.parametrize(
    "config",
    [
        '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">]><View>&y;</View>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><View><Choices name="&x;" toName="a"/></View>',
        '<!DOCTYPE a SYSTEM "http://169.254.169.254/a.dtd"><View/>',
        '<?xml version="1.0"?>\n<! DOCTYPE a [<!ENTITY x "y">]><View/>',
        '<!doctype a [<!entity x "y">]><View/>',
    ],
)
def test_a_label_configuration_has_no_entities(config: str) -> None:
    """Neither those that grow nor those that read files or ask addresses."""
    read = LabelConfig.parse(config)
    assert read.controls == ()
    assert "DOCTYPE" in read.problem or "not well-formed" in read.problem


def test_a_large_and_deep_label_configuration_ends_in_time() -> None:
    """A megabyte of tags inside tags, and of options inside options."""
    code = (
        "from labelguard.labelconfig import LabelConfig\n"
        "deep = '<View>' * 100_000 + '</View>' * 100_000\n"
        "LabelConfig.parse(deep)\n"
        "options = '<Choice value=\"aaaaaaaa\">' * 30_000 + '</Choice>' * 30_000\n"
        'LabelConfig.parse(f\'<View><Taxonomy name="t" toName="x">{options}</Taxonomy></View>\')\n'
        "LabelConfig.parse('<View ' + ' '.join(f'a{n}=\"1\"' for n in range(50_000)) + '/>')\n"
        "print('done')"
    )
    assert limited(code).strip() == "done"


def test_a_compressed_body_is_not_unpacked(web: Service) -> None:
    """A gigabyte of blanks fits a megabyte; Label Studio compresses nothing."""
    bomb = gzip.compress(b" " * 20_000_000)
    headers = {
        "X-Labelguard-Token": "the-token-of-project-3",
        "Content-Encoding": "gzip",
        "Content-Type": "application/json",
    }
    answer = web.client.post("/webhook/3", data=bomb, headers=headers)
    assert answer.status_code == 400
    assert "not" in answer.get_json()["error"]


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_has_an_end(web: Service, opening: str) -> None:
    """At every door that takes JSON."""
    deep = opening * 100_000
    assert web.deliver(deep).status_code == 400
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    assert web.client.post("/page/v1/session", data=deep, headers=headers).status_code == 400
    web.deliver(submission("spam", "important"))
    assert web.api("POST", "/findings/1/uphold", data=deep, headers=headers).status_code in (400, 401)


def test_a_body_beyond_the_limit_is_refused_at_every_door(tmp_path: Path) -> None:
    """Whoever sends it."""
    with service(tmp_path, max_body_bytes=2048) as web:
        large = b" " * 3000
        token = {"X-Labelguard-Token": "the-token-of-project-3"}
        as_json = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        assert web.client.post("/webhook/3", data=large, headers=token).status_code == 413
        assert web.client.post("/page/v1/session", data=large, headers=as_json).status_code == 413
        assert web.api("PUT", "/policies/3", data=large).status_code == 413
        assert web.client.post("/sign-in", data={"token": "x" * 3000}).status_code == 413


def test_a_body_costs_a_bounded_multiple_of_its_size() -> None:
    """The largest delivery, in shapes that take much room once they are parsed."""
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from labelguard.events import Event, BadDelivery\n"
        "from labelguard.judgments import judgments_of\n"
        "size = 2 * 1024 * 1024\n"
        'item = \'{"id":"a","from_name":"t","to_name":"x","type":"choices","value":{"choices":["a"]}}\'\n'
        'head = \'{"action":"ANNOTATION_CREATED","project":{"id":3},"annotation":{"id":1,"task":1,"result":\'\n'
        "lists = (['{}'] * (size // 3), [item] * (size // len(item)), ['[]'] * (size // 3))\n"
        "for fill in map(','.join, lists):\n"
        "    try:\n"
        "        event = Event.from_delivery({}, f'{head}[{fill}]}}}}'.encode())\n"
        "        judgments_of(event.annotations[0].result)\n"
        "    except BadDelivery: pass\n"
        # Not of getrusage(), which begins with what the process that started this one has.
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    assert int(limited(code)) // 1024 < 900


def test_no_pattern_is_made_of_what_somebody_sends() -> None:
    """Every regular expression is a constant of the program, or quotes what it is made of."""
    found: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if getattr(node.func.value, "id", "") == "re" and node.func.attr not in ("escape", "purge"):
                found += [f"{path.name}:{node.lineno}" for part in _parts(node.args[0]) if not _harmless(part)]
    assert found == []


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """All that an expression is made of, without what ``re.escape`` made harmless."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.escape":
        return
    yield node
    for part in ast.iter_child_nodes(node):
        yield from _parts(part)


def _harmless(part: ast.AST) -> bool:
    """Constants, joined constants, patterns of other patterns; ``names`` and ``numbered`` are made of escaped ones."""
    known = {"re", "key", "parameter", "_CONTROL", "names", "numbered"}
    return not isinstance(part, ast.Name) or part.id in known or part.id.isupper()


def patterns() -> dict[str, re.Pattern[str]]:
    """Every compiled pattern of every module, by where it is."""
    found: dict[str, re.Pattern[str]] = {}
    for package in (labelguard, labelguard_rules, labelguard_connectors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" in module.name or module.name.endswith("__main__"):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                for number, pattern in enumerate(_patterns_in(value)):
                    found[f"{module.name}.{name}[{number}]"] = pattern
    return found


def _patterns_in(value: Any) -> list[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        return [value] if isinstance(value.pattern, str) else []
    if isinstance(value, (tuple, list)):
        return [pattern for item in value for pattern in _patterns_in(item)]
    return []


PUMPS = (
    " ",
    "a",
    "A",
    "0",
    "-",
    "_",
    ".",
    "/",
    '"',
    "'",
    "<",
    ">",
    "=",
    ":",
    "@",
    "\n",
    "\x00",
    "token ",
    "cookie:",
    "eyJ",
    "-eyJ",
    "eyJaaaaaaaa.",
    "a://",
    "://a@",
    "a=",
    "<!--",
    "-->",
    "<?",
    "?>",
    "aA",
    "A0",
    "password=",
    "bearer  ",
    "[parameters: ",
    '<a b="',
    "</",
    "e+",
    "1e",
    "0.",
    "é",
    "\u2028",
)


def test_no_pattern_takes_for_ever() -> None:
    """Each is let loose on long repetitions of what it knows, with an end that makes it fail and try again."""
    known = sorted({(pattern.pattern, pattern.flags & ~re.UNICODE) for pattern in patterns().values()})
    assert len(known) > 10
    code = (
        "import json, re, sys\n"
        "known, pumps = json.loads(sys.argv[1]), json.loads(sys.argv[2])\n"
        "for source, flags in known:\n"
        "    pattern = re.compile(source, flags)\n"
        "    for pump in pumps:\n"
        "        for before in ('', '<', 'x '):\n"
        "            for after in ('\\x01', '/>', '!a'):\n"
        "                text = before + pump * (2500 // len(pump)) + after\n"
        "                pattern.search(text); pattern.match(text); pattern.sub('', text)\n"
        "print('done')"
    )
    assert limited(code, json.dumps(known), json.dumps(PUMPS)).strip() == "done"
