"""The command line. Every command imports what it needs when it runs, so that ``--help`` answers at once.

Exit codes: 0 done; 1 it could not be done, for a reason said in a sentence; 2 bad usage, policy or
configuration; 3 a mistake in labelguard itself; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from labelguard.cli import about, actions, data, findings, gold, policy, project, run
from labelguard.cli.output import Failed, say

DONE, FAILED, BAD_USAGE, OUR_BUG, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="labelguard",
    help="Real-time guardrails, in-tool annotator feedback and drift sweeps for Label Studio.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _prepare() -> None:
    from labelguard.logs import configure

    # Warnings are for the person at the terminal; `serve` logs as it is configured to.
    configure("WARNING", json=False)


for _area in (run, project, data):
    _area.add_to(app)
for _name, _group in (
    ("policy", policy.app),
    ("gold", gold.app),
    ("findings", findings.app),
    ("actions", actions.app),
):
    app.add_typer(_group, name=_name)
about.add_to(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong has been said on stderr."""
    # typer carries its own copy of click from 0.26 on; only its public names are the same everywhere.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        code = app(list(arguments), prog_name="labelguard", standalone_mode=False)
    except usage_error as error:
        error.show()
        return BAD_USAGE
    except typer.Abort as abort:
        return _aborted(abort)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) went away; whatever is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001 - the last resort: every way out has a sentence
        return _said(error)
    return code if isinstance(code, int) else DONE


def _aborted(abort: BaseException) -> int:
    if isinstance(abort.__cause__, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(abort.__cause__, EOFError):
        say("There is nobody here to answer; repeat the command with --yes.")
    else:
        say("Nothing was changed.")
    return FAILED


def _said(error: Exception) -> int:
    from labelguard.connectors import ConnectorError
    from labelguard.goldfile import BadGold
    from labelguard.outbox import Refused
    from labelguard.policy import BadPolicy
    from labelguard.registry import BrokenRegistry
    from labelguard.settings import BadSettings
    from labelguard.store.core import StoreError

    if isinstance(error, (BadPolicy, BadSettings, BadGold, BrokenRegistry)):
        say(str(error))
        return BAD_USAGE
    if isinstance(error, (Failed, ConnectorError, Refused, StoreError)):
        say(str(error))
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        say(f"{error.filename} cannot be used: {(error.strerror or 'unknown error').lower()}.")
        return FAILED
    with tempfile.NamedTemporaryFile(
        "w", prefix="labelguard-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:  # readable by its owner alone, because messages of other libraries may hold anything
        log.write("".join(traceback.format_exception(error)))
    say(f"This is a mistake in labelguard ({type(error).__name__}). What happened is written in {log.name}.")
    return OUR_BUG
