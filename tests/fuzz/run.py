"""The long run: ``make fuzz``. Prints what came of it; ends with 1 where anything was wrong."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from databases import postgres
from fuzzing import Case, fuzz, world

MEMORY_GROWTH = 64 * 1024 * 1024
ONE_REQUEST = 64 * 1024 * 1024
LOG_PER_CASE = 600
LONGEST_LINE = 20_000


def main() -> int:
    """Run the cases in several processes, or what one of them was told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many requests in all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed makes the same requests")
    parser.add_argument("--minutes", type=float, default=0, help="end after so long, with fewer requests; 0 for never")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL of its own instead of SQLite")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where offending requests are written")
    parser.add_argument("--replay", type=Path, help="send the request of such a file again")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.replay is not None:
        return _replay(asked)
    if asked.worker is not None:
        return _work(asked)
    return _lead(asked)


def _database(asked: argparse.Namespace, folder: str) -> str:
    return postgres().create("fuzz") if asked.postgresql else f"sqlite:///{folder}/labelguard.sqlite3"


def _work(asked: argparse.Namespace) -> int:
    # A request that hangs is as bad as one that crashes: the process ends, and says where it hung.
    with (
        tempfile.TemporaryDirectory(dir=_fast_folder()) as folder,
        world(_database(asked, folder), at_once=True) as made,
    ):

        def progress(done: int) -> None:
            faulthandler.dump_traceback_later(120, exit=True)
            if done % 25_000 == 0:
                sys.stderr.write(f"process {asked.worker}: {done:,} requests\n")

        progress(0)
        numbers = range(asked.worker, asked.cases, asked.processes)
        totals = fuzz(made, asked.seed, numbers, seconds=asked.minutes * 60, progress=progress)
        faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({**vars(totals), "growth": totals.growth}))
    return 0


def _fast_folder() -> str | None:
    """Memory instead of a disk, where there is such a folder."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of its own inside


def _lead(asked: argparse.Namespace) -> int:
    sys.stdout.write(f"{asked.cases:,} requests, seed {asked.seed}, {asked.processes} processes\n")
    sys.stdout.flush()
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *_passed_on(asked), "--worker", str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(asked.processes)
    ]
    results: list[dict[str, Any]] = []
    crashed = 0
    for process in running:
        output, _ = process.communicate()
        if process.returncode == 0:
            results.append(json.loads(output))
        else:
            crashed += 1
            sys.stdout.write(f"A process ended with {process.returncode}; its last words are above.\n")
    wrong = crashed + _report(asked, results, time.monotonic() - began)
    return 1 if wrong else 0


def _passed_on(asked: argparse.Namespace) -> list[str]:
    return [
        *("--cases", str(asked.cases), "--seed", str(asked.seed), "--processes", str(asked.processes)),
        *("--minutes", str(asked.minutes)),
        *(("--postgresql",) if asked.postgresql else ()),
    ]


def _report(asked: argparse.Namespace, results: list[dict[str, Any]], seconds: float) -> int:
    say = sys.stdout.write
    cases = sum(result["cases"] for result in results)
    statuses: Counter[str] = Counter()
    deliveries: Counter[str] = Counter()
    for result in results:
        statuses.update(result["statuses"])
        deliveries.update(result["deliveries"])
    say(f"{cases:,} requests in {seconds:,.0f} s: {cases / max(seconds, 0.001):,.0f} a second\n\n")
    routes = sorted({key.rpartition(" ")[0] for key in statuses})
    for route in routes:
        counts = {key.rpartition(" ")[2]: count for key, count in statuses.items() if key.rpartition(" ")[0] == route}
        say(f"  {route:<28}" + "  ".join(f"{status}: {count:,}" for status, count in sorted(counts.items())) + "\n")
    say("\ndeliveries: " + ", ".join(f"{count:,} {state}" for state, count in sorted(deliveries.items())))
    say(f"; {sum(result['findings'] for result in results):,} findings\n")
    wrong = 0
    for number, result in enumerate(results):
        per_case = result["log_bytes"] / max(1, result["cases"])
        say(
            f"process {number}: memory {result['memory_warm'] / 2**20:.0f} MiB after the warm-up, "
            f"{result['memory_end'] / 2**20:.0f} MiB at the end ({result['growth'] / 2**20:+.1f}), "
            f"{result['memory_peak'] / 2**20:.0f} MiB at most; {per_case:.0f} bytes of log for each request, "
            f"longest line {result['longest_line']:,}; request {result['slowest_of']} took {result['slowest']:.2f} s, "
            f"request {result['largest_jump_of']} {result['largest_jump'] / 2**20:.0f} MiB\n"
        )
        wrong += result["growth"] > MEMORY_GROWTH
        wrong += result["largest_jump"] > ONE_REQUEST
        wrong += per_case > LOG_PER_CASE
        wrong += result["longest_line"] > LONGEST_LINE
    problems = [problem for result in results for problem in result["problems"]]
    for problem in problems:
        asked.out.mkdir(parents=True, exist_ok=True)
        path = asked.out / f"{problem.get('seed', 'run')}-{problem.get('number', 'x')}.json"
        path.write_text(json.dumps(problem, indent=1), "utf-8")
        say(f"\n{path}: {problem['wrong'][-1500:]}\n")
    five_hundreds = sum(count for key, count in statuses.items() if key.endswith((" 500", " 502", " 504")))
    bad = sum(result["wrong"] for result in results)
    say(f"\n{five_hundreds} answers of 500, 502 or 504; {bad} bad answers; {wrong} limits exceeded\n")
    return wrong + len(problems) + five_hundreds


def _replay(asked: argparse.Namespace) -> int:
    found = json.loads(asked.replay.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder, world(_database(asked, folder)) as made:
        for each in found["before"]:
            made.run(Case.load(each))
        status, wrong = made.run(Case.load(found["case"]))
    sys.stdout.write(f"{status}: {wrong or 'nothing is wrong'}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
