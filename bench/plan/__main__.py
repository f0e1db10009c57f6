"""`make bench-plan`: the plan beside public measurements, and what a plan costs.

The first table has a row per measurement or verdict of bench/plan/rows.py, then median and worst error per kind. What a plan costs
is given against the import of pydantic, with how it grows with the number of services.

Every figure of the first kind is the median over fresh interpreters, measured inside them, in processor time (wall time beside it),
so that neither the start of Python nor a busy machine counts. The last line is JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench.plan.rows import evaluate, rows, summary
from mistral_on_l4.config.settings import Settings, settings_from
from mistral_on_l4.planner import plan_stack
from mistral_on_l4.planner.backwards import Goal, search
from mistral_on_l4.planner.catalogue import load_catalogue
from mistral_on_l4.planner.suggest import catalogue_sources
from tests.support.configuration import only_pools, only_services

ROOT = Path(__file__).parents[2]
RUNS = 15
COUNTS = (125, 250, 500, 1000)

CLOCK = "import json, sys, time\ndef clock(): return time.process_time(), time.perf_counter()\n"
IMPORT = CLOCK + (
    "a = clock()\nimport pydantic\nb = clock()\n"
    "from pydantic import BaseModel\nc = clock()\n"
    "print(json.dumps({'import_pydantic': [b[i] - a[i] for i in (0, 1)], 'with_basemodel': [c[i] - a[i] for i in (0, 1)]}))\n"
)
PLAN = CLOCK + (
    "from mistral_on_l4.config.settings import load_stack_file\n"
    "settings = load_stack_file('dev')\n"
    "a = clock()\nfrom mistral_on_l4.planner import plan_stack\nb = clock()\n"
    "plan_stack(settings, stack='dev')\nc = clock()\n"
    "plan_stack(settings, stack='dev')\nd = clock()\n"
    "assert 'pulumi' not in sys.modules\n"
    "pairs = {'import_planner': (a, b), 'first_plan': (b, c), 'next_plan': (c, d)}\n"
    "print(json.dumps({name: [end[i] - start[i] for i in (0, 1)] for name, (start, end) in pairs.items()}))\n"
)


def main() -> int:
    held, kinds = print_rows()
    measured: dict[str, list[list[float]]] = {}
    for run in range(RUNS + 1):
        for program in (IMPORT, PLAN):
            done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
            if run:  # the first reads files that the others find in memory
                for name, pair in json.loads(done.stdout).items():
                    measured.setdefault(name, []).append(pair)
    cpu = {name: 1e3 * median(pair[0] for pair in pairs) for name, pairs in measured.items()}
    wall = {name: 1e3 * median(pair[1] for pair in pairs) for name, pairs in measured.items()}
    print(f"{'':<46}{'processor ms':>14}{'wall ms':>10}")
    words = {
        "import_pydantic": "import pydantic",
        "with_basemodel": "import pydantic, and its BaseModel",
        "first_plan": "first plan of a process (reads the catalogue)",
        "next_plan": "every further plan of the dev stack",
        "import_planner": "import of the planner, settings imported before",
    }
    for name, text in words.items():
        print(f"{text:<46}{cpu[name]:>14.1f}{wall[name]:>10.1f}")
    seconds = {count: thousand(count) for count in COUNTS}
    print(f"\n{'services':<46}{'seconds':>14}{'ms each':>10}")
    for count, took in seconds.items():
        print(f"{count:<46}{took:>14.3f}{took / count * 1e3:>10.2f}")
    searched = search_seconds()
    print(f"\n{'search of the whole catalogue for a goal':<46}{searched:>14.3f}")
    growth = (seconds[1000] / 1000) / (seconds[250] / 250)
    result: dict[str, Any] = {
        "import_pydantic_ms": round(cpu["import_pydantic"], 2),
        "first_plan_ms": round(cpu["first_plan"], 2),
        "next_plan_ms": round(cpu["next_plan"], 2),
        "import_planner_ms": round(cpu["import_planner"], 2),
        "plan_over_import": round(cpu["first_plan"] / cpu["import_pydantic"], 3),
        "seconds_for_1000": round(seconds[1000], 3),
        "search_seconds": round(searched, 3),
        "cost_per_service_1000_over_250": round(growth, 3),
        "rows": sum(count for _, count, _, _ in kinds),
        "errors": {kind: {"rows": count, "median": round(mid, 4), "worst": round(worst, 4)} for kind, count, mid, worst in kinds},
        "ok": held and cpu["first_plan"] < cpu["import_pydantic"] and growth < 1.5,
    }
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def print_rows() -> tuple[bool, list[tuple[str, int, float, float]]]:
    """Prints every row, then median and worst error by kind -> (whether all rows hold, the latter)."""
    catalogue = load_catalogue()
    results = [evaluate(row, catalogue) for row in rows()]
    print(f"{'':<11}{'':<52}{'measured':>14}{'planned':>14}{'error':>9}")
    for result in results:
        row = result.row
        if isinstance(result.planned, str):
            print(f"{row.kind:<11}{row.label:<52}{'as it should' if result.holds else 'WRONG':>14}  {result.planned[:60]}")
        else:
            print(f"{row.kind:<11}{row.label:<52}{row.measured:>14,.2f}{result.planned:>14,.2f}{result.error:>9.1%}")
    kinds = list(summary(results))
    print(f"\n{'kind':<11}{'rows':>6}{'median error':>15}{'worst':>9}")
    for kind, count, middle, worst in kinds:
        print(f"{kind:<11}{count:>6}{middle:>15.1%}{worst:>9.1%}")
    print()
    return all(result.holds for result in results), kinds


def search_seconds() -> float:
    """Processor seconds of the fastest of three searches for the cheapest way to serve ten users."""
    catalogue = load_catalogue()
    sources = catalogue_sources("mistral-small-24b-instruct-2501", catalogue)
    times = []
    for _ in range(3):
        start = time.process_time()
        search(Goal(users=10, tpot_ms=60, ttft_ms=1500), sources, catalogue)
        times.append(time.process_time() - start)
    return min(times)


def thousand(count: int) -> float:
    """Processor seconds of the fastest of three plans of `count` services that do not fit, each with all its remedies."""
    settings = _stack(count)
    times = []
    for _ in range(3):
        start = time.process_time()
        plan_stack(settings, stack="bench")
        times.append(time.process_time() - start)
    return min(times)


def _stack(count: int) -> Settings:
    services = only_services(
        *({"name": f"s{i}", "variant": "fp8", "prefix": f"s{i}/", "pool": f"p{i // 64}"} for i in range(count))
    )
    pools = only_pools(*({"name": f"p{i}", "instanceType": "g6.2xlarge", "count": 64} for i in range(-(-count // 64))))
    return settings_from({"platform": "eks", "services": services, "pools": {"groups": pools}}, "bench")


if __name__ == "__main__":
    sys.exit(main())
