#!/usr/bin/python3
"""make bench: measure TensorGuard beside what one would use instead, in one run on one machine.

  tests/bench/run.py [--size MIB] [--rounds N] [--only PART]... [--without-age] [--quick] [--out FILE]

Parts: container crypto platform device native protect bake. Writes build/bench.json and build/bench.svg and prints a table. A ratio is
ours / alternative. Nothing here passes or fails by time; a part that cannot be measured makes the run fail, and so does a row of
the founding table, or a mark (marks.py), that nothing answers though this machine could.
"""
import argparse
import importlib
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "e2e")]

import marks as table_of_marks  # noqa: E402
import plot  # noqa: E402
import programs  # noqa: E402

PARTS = ("container", "crypto", "platform", "device", "native", "protect", "bake")  # part_<name>.py

# The benchmark table of the project's founding document (on an NVIDIA Jetson Orin Nano), which of our rows answers it, and the
# part that measures that.
SEED = [
    ("Agent Cold Start, time to ready", 1.2, "s", "agent: start to ready, model cached", "device"),
    ("TGSP Decryption, throughput", 210, "MB/s", "verify + open, 1 file", "container"),
    ("PQC Sig Verify, latency", 5.2, "ms", "hybrid verify", "crypto"),
    ("API Latency, P99", 45, "ms", "check-in p99, 8 devices at once", "platform"),
    ("Memory Footprint, idle", 64, "MB", "agent + worker: idle PSS", "device"),
]


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


class Results:
    """Rows in the order they were measured; marks: what was set out to be reached (marks.py), have: what the machine has."""

    def __init__(self, marks=(), have=None):
        self.rows, self.have = [], have or {}
        self.marks = {mark.row: mark for mark in marks}

    def add(self, name, ours, unit, alternative=None, instead=None, note=None):
        """ours and alternative in `unit`; instead: what the alternative is. The row gets the mark that is its own."""
        if self.find(name):
            raise ValueError(f"two rows '{name}'")
        row = {"name": name, "ours": ours, "unit": unit, "alternative": alternative, "instead": instead,
               "ratio": ours / alternative if alternative else None,
               "difference": ours - alternative if alternative is not None else None, "note": note, "mark": None}
        mark = self.marks.get(name)
        if mark and row[mark.what] is not None and not any(self.have[need] for need in mark.needs):
            row["mark"] = {"what": mark.what, "relation": mark.relation, "bound": mark.bound, "met": mark.holds(row[mark.what])}
        self.rows.append(row)
        print(f"  {name}: {figure(ours)} {unit}" +
              (f"  |  {instead}: {figure(alternative)} {unit}  |  ratio {row['ratio']:.2f}" if alternative else ""), flush=True)

    def find(self, name):
        return next((r for r in self.rows if r["name"] == name), None)


def figure(v):
    return "-" if v is None else f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}"


def marked(row):
    """'ratio >= 2.5: met'; a difference, which has no column, is said"""
    mark = row["mark"]
    if not mark:
        return ""
    said = f" ({figure(row['difference'])})" if mark["what"] == "difference" else ""
    return f"{mark['what']} {mark['relation']} {mark['bound']:g}: {'met' if mark['met'] else 'NOT met'}{said}"


def table(head, rows):
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    for r in [head, ["-" * w for w in widths], *rows]:
        print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())


def seed_rows(results):
    """The founding table beside ours, in its own units."""
    out = []
    for name, theirs, unit, ours_name, _ in SEED:
        row = results.find(ours_name)
        ours = row["ours"] if row else None
        if row and unit == "MB/s":
            ours = row["note"]["mb_per_s"]
        if row and unit == "ms" and row["unit"] == "us":
            ours = row["ours"] / 1000
        out.append({"name": name, "seed": theirs, "unit": unit, "ours": ours, "row": ours_name,
                    "ratio": ours / theirs if ours is not None else None})
    return out


def unanswered(results, parts):
    """Rows that a part which was run owes to the founding table, and that are not there."""
    return [f"no row '{row}' ({part})" for _, _, _, row, part in SEED if part in parts and results.find(row) is None]


def show(results, seed):
    print("\nOurs beside the alternative (ratio = ours / alternative)\n")
    table(["what", "ours", "alternative", "ratio", "unit", "alternative is", "mark"],
          [[r["name"], figure(r["ours"]), figure(r["alternative"]), f"{r['ratio']:.2f}" if r["ratio"] else "-", r["unit"],
            r["instead"] or "-", marked(r)] for r in results.rows])
    print("\nThe founding document's table (on a Jetson Orin Nano) beside ours (on this machine)\n")
    table(["what", "then", "ours", "ratio", "unit"],
          [[s["name"], figure(s["seed"]), figure(s["ours"]), f"{s['ratio']:.3f}" if s["ratio"] else "-", s["unit"]]
           for s in seed])


def show_marks(held):
    """How many are met, and what became of each that could not be told."""
    states = [mark["state"] for mark in held]
    print("\nMarks: " + ", ".join(f"{states.count(s)} {s}" for s in ("met", "NOT met", "not measured here", "left out", "unanswered")))
    for part in PARTS:
        if left := [mark for mark in held if mark["part"] == part and mark["state"] == "left out"]:
            print(f"  {part}: {len(left)} left out: {left[0]['why']}")
    for mark in held:
        if mark["state"] in ("not measured here", "unanswered"):
            print(f"  {mark['row']}, {mark['what']} {mark['relation']} {mark['bound']:g}: {mark['state']}: {mark['why']}")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("--size", type=int, default=1024, metavar="MIB", help="size of the large file (default 1024)")
    p.add_argument("--rounds", type=int, default=3, help="rounds of the large file; the median counts (default 3)")
    p.add_argument("--only", action="append", choices=PARTS, help="only this part (repeatable)")
    p.add_argument("--seconds", type=float, default=5, help="length of each load measurement (default 5)")
    p.add_argument("--without-age", action="store_true", help="leave out what is measured with age, where it is not installed")
    p.add_argument("--quick", action="store_true", help="everything once and small: the rows are there, their figures say nothing")
    p.add_argument("--out", type=pathlib.Path, default=programs.BUILD / "bench.json")
    args = p.parse_args()
    if args.quick:
        args.size, args.rounds, args.seconds = 8, 1, 0.2
    return args


def main():
    args = arguments()
    parts, failed = args.only or PARTS, []
    have, marks = table_of_marks.here(args), table_of_marks.every(args)
    results = Results(marks, have)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tg-bench-"))
    try:
        for name in parts:
            print(f"== {name}", flush=True)
            try:
                (folder / name).mkdir()
                importlib.import_module("part_" + name).measure(results, folder / name, args)
            except Exception:  # noqa: BLE001 - the other parts can still be measured
                traceback.print_exc()
                failed.append(name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    held = table_of_marks.held(marks, {r["name"]: r for r in results.rows}, parts, failed, have)
    failed += unanswered(results, [name for name in parts if name not in failed])
    failed += [f"no mark at '{k['row']}' ({k['part']}): {k['why']}" for k in held if k["state"] == "unanswered" and k["part"] not in failed]
    seed = seed_rows(results)
    show(results, seed)
    show_marks(held)
    document = {"machine": machine(), "quick": args.quick, "size_mib": args.size, "rounds": args.rounds, "rows": results.rows,
                "marks": held, "seed": seed, "failed": failed}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    args.out.with_suffix(".svg").write_text(plot.ratios(results.rows))
    print(f"\nbench: {args.out}, {args.out.with_suffix('.svg')}" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
