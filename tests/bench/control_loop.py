#!/usr/bin/python3
"""A 1 kHz loop without and with TensorGuard in it, before, during and after a change of versions, as a picture.

  tests/bench/control_loop.py [--seconds S] [--out docs/img/control-loop.svg]

Each turn of the loop makes one call of a model that does nothing: by ONNX Runtime in the loop's own process, or by
libtensorguard to the worker. Turns are dots at the time they took; the swap is the time from the start of the new
worker to the end of the old one. Beside the picture goes a .json with the figures in it. The loop runs at real-time
priority where this user may, as control loops do; the workers at the priority at which the agent starts them. (A worker that
spins at real-time priority is stopped by the kernel for 50 ms in each second, sched_rt_runtime_us, and keeps the one that is
to take over from its processor.)
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "e2e")]

import part_native  # noqa: E402
import run as bench  # noqa: E402

LEFT, WIDTH, TOP, HEIGHT = 70, 760, 50, 300
LOW, HIGH = 0, 5  # powers of ten of microseconds
LINES = ((20, "20 µs"), (1000, "one period"))


def loop(place, where, seconds, spin_us):
    before = part_native.real_time(20)  # the loop goes before the workers
    return subprocess.Popen([*before, str(part_native.BENCH), str(place.model), where, str(seconds), str(spin_us), "loop"],
                            stdout=subprocess.PIPE, text=True)


def turns(child):
    """(when it began by the monotonic clock, turns)"""
    out, _ = child.communicate(timeout=120)
    if child.returncode:
        raise SystemExit(f"the loop ended with {child.returncode}")
    begin, *lines = out.splitlines()
    return float(begin), [tuple(map(float, line.split())) for line in lines]


def with_swap(place, seconds, spin_us):
    """(turns, start and end of the swap in the loop's time)"""
    old = place.worker(1, spin_us)
    child = loop(place, place.native.path, 600, 200 if spin_us else 0)
    time.sleep(seconds * 0.4)
    t0 = time.monotonic()
    new = place.worker(2, spin_us)
    old.tell("drain")
    old.wait()
    t1 = time.monotonic()
    time.sleep(max(seconds * 0.6 - (t1 - t0), seconds * 0.3))  # a swap that takes long leaves room for what comes after it
    child.terminate()
    begin, got = turns(child)
    new.stop()
    return got, (t0 - begin, t1 - begin)


def percentiles(points):
    v = sorted(took for _, took in points)
    return {"turns": len(v), "p50_us": v[len(v) // 2], "p99_us": v[len(v) * 99 // 100], "max_us": v[-1]} if v else None


def parts(points, swap):
    return {"before": percentiles([p for p in points if p[0] < swap[0]]),
            "during": percentiles([p for p in points if swap[0] <= p[0] <= swap[1]]),
            "after": percentiles([p for p in points if p[0] > swap[1]])}


def y_of(us):
    return TOP + HEIGHT * (1 - (math.log10(max(us, 1)) - LOW) / (HIGH - LOW))


def svg(series, swap, seconds):
    """series: (name, colour, points)"""
    def x_of(t):
        return LEFT + WIDTH * min(t / seconds, 1)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{TOP + HEIGHT + 50}" '
           'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>',
           f'<rect x="{x_of(swap[0]):.1f}" y="{TOP}" width="{x_of(swap[1]) - x_of(swap[0]):.1f}" height="{HEIGHT}" fill="#eee"/>',
           f'<text x="{x_of(swap[0]) + 4:.1f}" y="{TOP + 14}" fill="#555">a new version takes over</text>']
    for e in range(LOW, HIGH + 1):
        y = y_of(10**e)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{10**e:,} µs</text>')
    for us, what in LINES:
        y = y_of(us)
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#a33" stroke-dasharray="4 3"/>'
                   f'<text x="{LEFT + WIDTH}" y="{y - 4:.1f}" text-anchor="end" fill="#a33">{what}</text>')
    for k, (name, colour, points) in enumerate(series):
        # of many equal dots every third, but each that stands out
        high = sorted(p[1] for p in points)[len(points) * 98 // 100]
        kept = [p for i, p in enumerate(points) if i % 3 == 0 or p[1] > high]
        path = "".join(f"M{x_of(t):.1f} {y_of(us):.1f}h1" for t, us in kept)
        p = percentiles(points)
        out.append(f'<path d="{path}" stroke="{colour}" stroke-width="1.4"/>'
                   f'<text x="{LEFT + k * 390}" y="{20}" fill="{colour}">{name}</text>'
                   f'<text x="{LEFT + k * 390}" y="{36}" fill="#555">p50 {p["p50_us"]:.1f}, p99 {p["p99_us"]:.0f}, worst '
                   f'{p["max_us"]:,.0f} µs</text>')
    for s in range(int(seconds) + 1):
        out.append(f'<text x="{x_of(s):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle" fill="#555">{s} s</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle" fill="#555">'
               'time of each call in a loop of 1,000 turns a second</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("--seconds", type=float, default=6)
    p.add_argument("--spin", type=int, default=0, metavar="US", help="the worker spins so long (needs a processor of its own)")
    p.add_argument("--out", type=pathlib.Path, default=bench.programs.BUILD / "control-loop.svg")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="tg-loop-") as d:
        place = part_native.Place(pathlib.Path(d))
        _, bare = turns(loop(place, "-", args.seconds, 0))
        guarded, swap = with_swap(place, args.seconds, args.spin)
    name = "with TensorGuard (worker spins)" if args.spin else "with TensorGuard (worker sleeps between calls)"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(svg([("without: ONNX Runtime in the loop", "#c77d2e", bare), (name, "#2a7f62", guarded)], swap,
                            max(args.seconds, guarded[-1][0])))
    figures = {"machine": bench.machine(), "seconds": args.seconds, "spin_us": args.spin, "swap_s": swap,
               "without": percentiles(bare), "with": {"all": percentiles(guarded), **parts(guarded, swap)},
               "real_time": bool(part_native.real_time()), "turns_failed": 0}  # the loop ends at the first call that fails
    args.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
