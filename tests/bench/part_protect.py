"""What protected memory costs: the heap inside ONNX Runtime, and the way from an agent's start to an answer with a 100 MB model."""
import ctypes
import http.client
import json
import mmap
import os
import statistics
import subprocess
import sys
import threading
import time

import marks
import measure as m
import programs
import tg
import tg_agent

BENCH = programs.BUILD / "tests" / "bench"
MODELS = programs.ROOT / "tests" / "bench" / "make_model.py"
PAIRS = 5
STARTS = 5
RUNS = {"resnet18": 11, "vit-b16": 3}  # of the model, in one of the pairs
CHAIN = ("input", "logits", 1)  # and its width


def model(d, kind, *more):
    path = d / f"{kind}.onnx"
    if not path.exists():
        subprocess.run(["/usr/bin/python3", MODELS, kind, path, *map(str, more)], check=True)
    return path


def paired(results, d, kind, args):
    """By turns, so that what the machine does meanwhile falls on both."""
    pairs, count = (1, 1) if args.quick else (PAIRS, RUNS[kind])
    words = [model(d, kind, *["--small"] * args.quick), 1, count, "input", "logits", 1, 3, 224, 224]
    for level in marks.levels():
        ratios, ours, plain = [], [], []
        for _ in range(pairs):
            a = json.loads(m.run(BENCH / "bench_heap_plain", *words).out)
            b = json.loads(m.run(BENCH / "bench_heap", *words, "--protection", level).out)
            assert a["level"] == "plain" and b["level"] == level
            plain.append(a["p50_ms"])
            ours.append(b["p50_ms"])
            ratios.append(b["p50_ms"] / a["p50_ms"])
        middle = sorted(range(pairs), key=ratios.__getitem__)[pairs // 2]
        results.add(f"inference, protected heap ({level}), {marks.SHAPES[kind]}", ours[middle], "ms", plain[middle],
                    "the same ONNX Runtime call with the C library's malloc, 1 thread; the median pair")


def touch_secret(size):
    """Seconds until `size` bytes of memfd_secret are there, touched by every core at once: what no loader can be faster than."""
    cores = marks.CORES
    step = -(-size // (mmap.PAGESIZE * cores)) * mmap.PAGESIZE
    fd = marks.secret_fd()
    os.ftruncate(fd, step * cores)
    with mmap.mmap(fd, step * cores) as memory:
        first = ctypes.c_char.from_buffer(memory)
        parts = [threading.Thread(target=ctypes.memset, args=(ctypes.addressof(first) + i * step, 1, step)) for i in range(cores)]
        begin = time.monotonic()
        for t in parts:
            t.start()
        for t in parts:
            t.join()
        took = time.monotonic() - begin
        del first  # or the map could not be closed
    os.close(fd)
    return took


def ready(agent):
    """Seconds from exec until the prediction socket says that it is ready."""
    begin = time.monotonic()
    agent.start()
    while True:
        try:
            c = tg_agent.UnixConnection(agent.socket)
            c.request("GET", "/v2/health/ready")
            if c.getresponse().status == 200:
                return time.monotonic() - begin
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() - begin > 60:
            raise TimeoutError(agent.log_text()[-2000:])
        time.sleep(0.002)


def start(results, world, level, path, args):
    """A model of 100 MB whose package is on the device already; by turns with a process that opens the plain file."""
    width, _, size = marks.chain(args)
    bytes_n, cores = path.stat().st_size, marks.CORES
    agent = world.agent(level)
    agent.protection = level
    agent.enrol()
    agent.start()
    agent.wait_serving(deadline=300)
    agent.stop()
    times, plain, floor = [], [], []
    for _ in range(1 if args.quick else STARTS):
        if level == "secret":  # which knows no large pages
            floor.append(touch_secret(bytes_n))
        plain.append(m.run(BENCH / "bench_heap_plain", path, cores, 1, *CHAIN, width).wall)
        times.append(ready(agent))
        agent.wait_serving(deadline=300)
        agent.stop()
    name, took = f"agent: start to ready, {size} model cached ({level})", statistics.median(times)
    results.add(name, took, "s", statistics.median(plain), "a bare process opens the plain file with ONNX Runtime, and answers")
    if floor:
        results.add(f"{name} / memory", took, "s", statistics.median(floor), "touching as much memfd_secret once, by all cores")


def starts(results, d, args):
    """A device for each level, of one fleet: what is deployed to it, they all have."""
    width, layers, _ = marks.chain(args)
    path = model(d, "chain", "--width", width, "--layers", layers)
    levels = marks.levels()
    if not levels:
        return
    world = tg_agent.World(d, tg.make_author(d / "author"), poll=60)
    try:
        world.ship(1, files={"model.onnx": path.read_bytes()})
        for level in levels:
            start(results, world, level, path, args)
    finally:
        world.stop()


def measure(results, d, args):
    for kind in marks.SHAPES:
        paired(results, d, kind, args)
    starts(results, d, args)


if __name__ == "__main__":
    sys.exit("run tests/bench/run.py")
