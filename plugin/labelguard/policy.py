"""Policies: what a project's admin writes, read with every mistake reported at once.

A policy is YAML (see docs/policy.md). Stored policies are immutable: applying a changed file makes a new
version, and every finding names the version it was made under.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from labelguard.optiontypes import BadOption, convert, option_schema, option_types
from labelguard.registry import broken_bundles, load_rules
from labelguard.rules import Guardrail, Sweep
from labelguard.wording import instead, likely, quoted
from labelguard.yamlfile import Document, Path, Problem, read_yaml, write_yaml, written

Mode = Literal["observe", "recommend", "enforce"]
ActionKind = Literal["prompt", "rework", "replace", "second-opinion", "escalate", "pause", "notify"]

ACTIONS: tuple[str, ...] = get_args(ActionKind)
TARGETED = ("notify", "escalate")
"""Actions that need somebody named: ``{notify: lead}``."""


def _text(value: Any) -> Any:
    # A user id or a label that is a number is text here, however it was written.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _source(value: str) -> str:
    if not re.fullmatch(r"data\.\S+", value):
        raise ValueError("must be data. and a key of the tasks' data, such as data.channel")
    return value


def _language(value: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z]+)?", value):
        raise ValueError("must be a language code such as en")
    return value


def _scale(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("must be the lowest and the highest confidence, such as [1, 5]")
    return value


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]
RuleClass = type[Guardrail] | type[Sweep]
_MODEL = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ActionSpec(BaseModel):
    """One action of a rule: written as ``prompt`` or with a target as ``{notify: lead}``."""

    model_config = _MODEL

    kind: ActionKind
    target: Text | None = None
    """Whom (notify, escalate): a name of ``people`` or a cohort, or else an alert target of LABELGUARD_NOTIFY."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, dict) and len(value) == 1 and "kind" not in value:
            ((kind, target),) = value.items()
            return {"kind": kind, "target": target}
        return value

    def short(self) -> str | dict[str, str]:
        """The action as a person writes it."""
        return self.kind if self.target is None else {self.kind: self.target}


class RuleSpec(BaseModel):
    """One rule of a policy."""

    model_config = _MODEL

    rule: Text
    """The rule's name, as `labelguard rules` lists it."""
    control: Text | None = None
    """The control tag to look at; without it, every suitable one."""
    mode: Mode = "observe"
    """`observe` records only, `recommend` lets a person confirm each action, `enforce` acts."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The rule's own options."""
    block: bool = False
    """Stop the save in the page while the rule speaks; only rules that need no history can."""
    actions: tuple[ActionSpec, ...] = ()
    """What to do, in order."""
    severity: Literal["info", "warning", "error"] | None = None
    """Instead of the severity that the rule gives its findings."""
    reveal: bool = False
    """Allow actions that would tell the annotator a secret, such as which task is gold."""

    @model_validator(mode="before")
    @classmethod
    def _one_control(cls, value: Any) -> Any:
        # The control may be written beside the options or among them; what disagrees is left for the check.
        options = value.get("options") if isinstance(value, dict) else None
        if not isinstance(options, dict) or "control" not in options:
            return value
        control = options["control"]
        if value.get("control") not in (None, control):
            return value
        return {**value, "control": control, "options": {k: v for k, v in options.items() if k != "control"}}


class Confidence(BaseModel):
    """Which control carries the annotator's own confidence, and its scale."""

    model_config = _MODEL

    control: Text
    """The control tag's name."""
    scale: Annotated[tuple[float, float], AfterValidator(_scale)] = (1, 5)
    """The lowest and the highest confidence."""


class Limits(BaseModel):
    """What labelguard may do at most."""

    model_config = _MODEL

    reworks_per_task: int = Field(default=2, ge=0)
    """How often one task goes back to one annotator."""
    max_action_age: float = Field(default=86_400, gt=0)
    """Seconds; what is older gives findings, never actions."""
    prompts_per_hour: int = Field(default=12, ge=0)
    """Prompts an annotator sees in an hour at most; further ones wait."""
    max_overlap: int = Field(default=5, ge=1)
    """A task's overlap is never raised above this by a second opinion."""


class Policy(BaseModel):
    """A project's rules with their modes, options and actions."""

    model_config = _MODEL

    project: int = Field(ge=1)
    """The Label Studio project's id."""
    source: Annotated[str, AfterValidator(_source)] | None = None
    """``data.<key>``: slices everything by that key of the task's data."""
    cohorts: dict[str, list[Text]] = Field(default_factory=dict)
    """Groups of annotators, by email or user id as text."""
    people: dict[str, list[Text]] = Field(default_factory=dict)
    """Names for ``notify`` and ``escalate``: each a list of names of ``LABELGUARD_NOTIFY_<NAME>`` targets,
    emails or user ids. Addresses with secrets live in the configuration, never in a policy."""
    confidence: Confidence | None = None
    """Where annotators say how sure they are."""
    high_risk_labels: tuple[Text, ...] = ()
    """Labels where a mistake is costly."""
    language: Annotated[str, AfterValidator(_language)] = "en"
    """The language of annotators' messages."""
    limits: Limits = Limits()
    """What labelguard may do at most."""
    task_note: Text | None = None
    """A key of ``task.data`` that labelguard may write an annotator's message to; off by default."""
    rules: tuple[RuleSpec, ...] = ()
    """The rules, in the order in which they run."""


class BadPolicy(ValueError):
    """A policy with mistakes; ``problems`` has all of them, ``str()`` one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


@dataclass(frozen=True, slots=True)
class ActiveRule:
    """A rule of a policy, built: what the engine runs."""

    key: str
    """Stable while name, control and options stay the same; rule memory hangs on it."""
    spec: RuleSpec
    rule: Guardrail | Sweep

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.spec.rule


def load_policy(text: str, where: str = "policy") -> Policy:
    """Read a policy from YAML.

    Checks structure, rule names, options (types, ranges, misspelt names), actions that the rule would
    reveal secrets by, ``block`` on rules that cannot, unknown people and repeated keys.

    Raises:
        BadPolicy: with every mistake, each with line, key, value and the likely fix.
    """
    document = read_yaml(text, where)
    if document.problems and document.data is None:
        raise BadPolicy(document.in_order())
    if not isinstance(document.data, dict):
        document.add((), "A policy is a list of `key: value` lines and begins with `project:`.")
        raise BadPolicy(document.in_order())
    policy = _structure(document)
    _build(document.data, document)
    if document.problems or policy is None:
        raise BadPolicy(document.in_order())
    return policy


def build_rules(policy: Policy) -> tuple[ActiveRule, ...]:
    """The policy's rules as objects, in policy order.

    Raises:
        BadPolicy: an option that the rule does not have or cannot take.
    """
    document = Document("policy")
    built = _build(policy.model_dump(mode="json"), document)
    if document.problems:
        raise BadPolicy(document.problems)
    pairs = zip(policy.rules, built, strict=True)
    return tuple(ActiveRule(_key(rule, given), spec, rule) for spec, (rule, given) in pairs)


def policy_schema() -> Mapping[str, Any]:
    """The JSON Schema of policies, with each rule's own options: for editors and docs."""
    schema = Policy.model_json_schema()
    definitions = schema["$defs"]
    definitions["ActionSpec"] = {
        "title": "Action",
        "description": "An action by its name, or with whom it is for: {notify: lead}.",
        "anyOf": [
            {"enum": [kind for kind in ACTIONS if kind not in TARGETED]},
            *(
                {
                    "type": "object",
                    "properties": {kind: {"type": ["string", "integer"]}},
                    "required": [kind],
                    "additionalProperties": False,
                }
                for kind in TARGETED
            ),
        ],
    }
    base = definitions.pop("RuleSpec")
    variants = []
    for name, rule in sorted(load_rules().items()):
        variants.append({"$ref": f"#/$defs/rule:{name}"})
        definitions[f"rule:{name}"] = {
            **base,
            "title": name,
            "description": first_line(rule),
            "properties": {
                **base["properties"],
                "rule": {"const": name},
                "options": {
                    "type": "object",
                    "properties": {option: option_schema(rule, option) for option in option_types(rule)},
                    "additionalProperties": False,
                },
            },
        }
    schema["properties"]["rules"]["items"] = {"oneOf": variants}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "labelguard policy"}


def policy_yaml(policy: Policy) -> str:
    """The policy as YAML that :func:`load_policy` reads back to an equal policy."""
    data = policy.model_dump(mode="json", exclude_defaults=True)
    if "rules" in data:
        data["rules"] = [
            {**plain, **({"actions": [action.short() for action in spec.actions]} if spec.actions else {})}
            for plain, spec in zip(data["rules"], policy.rules, strict=True)
        ]
    return write_yaml(data)


def first_line(rule: type) -> str:
    """What a rule is, in the first line of its docstring."""
    return (rule.__doc__ or "").strip().split("\n", 1)[0]


# Structure: what pydantic says, in sentences


def _structure(document: Document) -> Policy | None:
    try:
        return Policy.model_validate(document.data)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            path, message = _sentence(mistake, document.data)
            document.add(path, message)
        return None


_ONE_ACTION = "one action, such as prompt or {notify: lead}"
_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "`key: value` lines",
    "model": "`key: value` lines",
    "missing": "there",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def _sentence(mistake: Any, data: Any) -> tuple[Path, str]:
    path: Path = tuple(mistake["loc"])
    if "actions" in path and path[-1] == "kind":
        path = path[:-1]
    subject = _subject(path, data)
    found = mistake["input"]
    context = mistake.get("ctx", {})
    kind = mistake["type"]
    if kind == "extra_forbidden":
        owner = _model_at(path[:-1])
        if owner is ActionSpec:
            return path[:-1], f"{_subject(path[:-1], data)} must be {_ONE_ACTION}."
        return path, f"{subject} is not a key that exists; {instead(str(path[-1]), owner.model_fields)}"
    if mistake["loc"][-1:] == ("kind",):
        if kind == "literal_error":
            return path, f"{subject} is {quoted(found)}, which is no action; {instead(str(found), ACTIONS)}"
        return path, f"{subject} must be {_ONE_ACTION}."
    if kind == "missing":
        if path == ("project",):
            return path, "A policy needs `project`, the id of the Label Studio project it is for."
        return path, f"{subject} is missing."
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", str(context["expected"]))
        return path, f"{subject} is {quoted(found)}; {instead(str(found), choices)}"
    if kind == "value_error":
        return path, f"{subject} {context['error']}, not {quoted(found)}."
    bounds = [f"{words} {context[key]:g}" for key, words in _BOUNDS.items() if key in context]
    if bounds:
        return path, f"{subject} must be {bounds[0]}, not {quoted(found)}."
    if kind == "string_too_short":
        return path, f"{subject} is empty."
    if kind in {"too_short", "too_long"}:
        return path, f"{subject} must have {context.get('min_length', context.get('max_length'))} values."
    expected = _EXPECTED.get(kind.split("_")[0], "something else")
    hint = " Put it in quotes." if expected == "text" and isinstance(found, (bool, float)) else ""
    return path, f"{subject} must be {expected}, not {quoted(found)}.{hint}"


def _model_at(path: Path) -> type[BaseModel]:
    if path[:1] == ("rules",):
        return ActionSpec if "actions" in path else RuleSpec
    models: dict[Any, type[BaseModel]] = {"confidence": Confidence, "limits": Limits}
    return models.get(path[0], Policy) if path else Policy


def _subject(path: Path, data: Any) -> str:
    """``\\`mode\\` of rule gold-check`` or ``\\`limits.max_overlap\\```."""
    if len(path) > 2 and path[0] == "rules" and isinstance(path[1], int):
        try:
            name = data["rules"][path[1]]["rule"]
        except (KeyError, TypeError, IndexError):
            name = None
        if isinstance(name, str):
            return f"`{written(path[2:])}` of rule {name}"
    return f"`{written(path)}`" if path else "The policy"


# Rules: what only the installed rules can say


def _build(data: Mapping[str, Any], document: Document) -> list[tuple[Guardrail | Sweep, dict[str, Any]]]:
    """Build what can be built of the raw policy, noting every mistake on the way."""
    built: list[tuple[Guardrail | Sweep, dict[str, Any]]] = []
    keys: dict[str, int] = {}
    known_people = _names(data.get("people")) | _names(data.get("cohorts"))
    raw_rules = data.get("rules")
    for i, raw in enumerate(raw_rules if isinstance(raw_rules, list) else ()):
        path: Path = ("rules", i)
        if not isinstance(raw, dict) or not isinstance(raw.get("rule"), str):
            continue  # the structure's own check has said so
        for message_path, message in _target_mistakes(raw, path, data, known_people):
            document.add(message_path, message)
        rule_class = load_rules().get(raw["rule"])
        if rule_class is None:
            document.add((*path, "rule"), _no_such_rule(raw["rule"]))
            continue
        for message_path, message in _permission_mistakes(raw, path, rule_class):
            document.add(message_path, message)
        made = _rule(raw, path, rule_class, data, document)
        if made is None:
            continue
        built.append(made)
        key = _key(*made)
        if key in keys:
            document.add(
                path,
                f"`rules[{i}]` is the same as `rules[{keys[key]}]`: rule {raw['rule']} with the same control "
                "and options; keep one of them.",
            )
        keys.setdefault(key, i)
    return built


def _rule(
    raw: Mapping[str, Any], path: Path, rule_class: RuleClass, data: Any, document: Document
) -> tuple[Guardrail | Sweep, dict[str, Any]] | None:
    before = len(document.problems)
    raw_options = raw.get("options")
    options = dict(raw_options) if isinstance(raw_options, dict) else {}
    control = raw.get("control")
    if control is not None:
        if options.get("control") not in (None, control):
            document.add(
                (*path, "options", "control"),
                f"`options.control` of rule {raw['rule']} is {quoted(options['control'])}, and `control` is "
                f"{quoted(control)}; keep one of them.",
            )
        options["control"] = control
    given: dict[str, Any] = {}
    types = option_types(rule_class)
    for name, value in options.items():
        here = (*path, "control") if name == "control" and control is not None else (*path, "options", name)
        if name not in types:
            subject = _subject(here, data)
            document.add(here, f"{subject} is not an option of the rule; {instead(name, types)}")
            continue
        try:
            given[name] = convert(types[name], value)
        except BadOption as error:
            where = (*here, *error.path)
            subject, found = _subject(where, data), quoted(error.found)
            document.add(where, f"{subject} must be {error.expected}, not {found}.{error.hint}")
    if len(document.problems) > before:
        return None
    try:
        rule = rule_class(**given)
    except (TypeError, ValueError) as error:
        document.add((*path, "options"), f"`options` of rule {raw['rule']}: {error}")
        return None
    # A default written out is the same rule, with the same memory.
    plain = rule_class() if _all_optional(rule_class) else None
    return rule, {k: v for k, v in given.items() if plain is None or getattr(plain, k) != v}


def _target_mistakes(raw: Mapping[str, Any], path: Path, data: Any, known: set[str]) -> Iterator[tuple[Path, str]]:
    for j, action in enumerate(_raw_actions(raw)):
        if action is None:
            continue
        here = (*path, "actions", j)
        subject = _subject(here, data)
        if action.kind in TARGETED and action.target is None:
            yield here, f"{subject} does not say whom; write {{{action.kind}: <a name of people>}}."
        elif action.kind not in TARGETED and action.target is not None:
            yield here, f"{subject} needs nobody named; write {action.kind} alone."
        elif action.target is not None and action.target not in known and likely(action.target, known):
            # A name far from all of them is that of an alert target, which only the configuration knows.
            guess = instead(action.target, known)
            yield here, f"{subject} is for {action.target!r}, whom `people` and `cohorts` do not name; {guess}"


def _permission_mistakes(raw: Mapping[str, Any], path: Path, rule_class: RuleClass) -> Iterator[tuple[Path, str]]:
    name = raw["rule"]
    if raw.get("block") is True and not rule_class.stateless:
        message = (
            f"`block` of rule {name} is not possible: the rule needs more than the unsaved submission "
            "(history, or gold), so it cannot speak before the save."
        )
        yield (*path, "block"), message
    for j, action in enumerate(_raw_actions(raw)):
        if action is not None and action.kind in rule_class.reveals and raw.get("reveal") is not True:
            message = (
                f"`actions[{j}]` of rule {name} is {action.kind}, which would tell the annotator a secret "
                "(such as that the task is gold); leave it out, or allow it with `reveal: true`."
            )
            yield (*path, "actions", j), message


def _raw_actions(raw: Mapping[str, Any]) -> list[ActionSpec | None]:
    actions = raw.get("actions")
    return [_action(action) for action in actions] if isinstance(actions, list) else []


def _action(raw: Any) -> ActionSpec | None:
    try:
        return ActionSpec.model_validate(raw)
    except ValidationError:
        return None  # the structure's own check has said so


def _names(raw: Any) -> set[str]:
    return {str(name) for name in raw} if isinstance(raw, dict) else set()


def _no_such_rule(name: str) -> str:
    message = f"There is no rule {quoted(name)}; {instead(name, load_rules())}"
    broken = broken_bundles()
    if broken:
        message += " Not all installed bundles could be used: " + "; ".join(str(b) for b in broken) + "."
    return message


def _all_optional(rule_class: type) -> bool:
    return all(
        f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        for f in dataclasses.fields(rule_class)
        if f.init
    )


def _key(rule: Guardrail | Sweep, given: Mapping[str, Any]) -> str:
    """Such as ``single-label-overuse:sentiment:1a2b3c4d``; the last part stands for the options given."""
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=_sortable).encode()).hexdigest()[:8]
    return f"{rule.name}:{rule.control or '*'}:{digest}"


def _sortable(value: Any) -> Any:
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else repr(value)
