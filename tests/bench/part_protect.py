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

import measure as m
import programs
import tg
import tg_agent

BENCH = programs.BUILD / "tests" / "bench"
MODELS = programs.ROOT / "tests" / "bench" / "make_model.py"
PAIRS = 5
STARTS = 5
SHAPES = {"resnet18": ("ResNet-18", 11), "vit-b16": ("ViT-B/16", 3)}  # name, runs of the model in one of the pairs


def model(d, kind, *more):
    path = d / f"{kind}.onnx"
    if not path.exists():
        subprocess.run(["/usr/bin/python3", MODELS, kind, path, *map(str, more)], check=True)
    return path


def secret_fd():
    """A file of memfd_secret (system call 447), or None."""
    fd = ctypes.CDLL(None).syscall(447, 0)
    return fd if fd >= 0 else None


def levels():
    """The levels that can be had here beside none."""
    if programs.protection() != "locked":
        return []
    fd = secret_fd()
    if fd is None:
        return ["locked"]
    os.close(fd)
    return ["locked", "secret"]


def paired(results, d, kind):
    """By turns, so that what the machine does meanwhile falls on both."""
    title, count = SHAPES[kind]
    path = model(d, kind)
    args = [path, 1, count, "input", "logits", 1, 3, 224, 224]
    for level in levels():
        ratios, ours, plain = [], [], []
        for _ in range(PAIRS):
            a = json.loads(m.run(BENCH / "bench_heap_plain", *args).out)
            b = json.loads(m.run(BENCH / "bench_heap", *args, "--protection", level).out)
            assert a["level"] == "plain" and b["level"] == level
            plain.append(a["p50_ms"])
            ours.append(b["p50_ms"])
            ratios.append(b["p50_ms"] / a["p50_ms"])
        middle = sorted(range(PAIRS), key=ratios.__getitem__)[PAIRS // 2]
        results.add(f"inference, protected heap ({level}), {title}", ours[middle], "ms", plain[middle],
                    "the same ONNX Runtime call with the C library's malloc, 1 thread; the median pair", mark=("ratio", "<=", 1.05))


def touch_secret(size):
    """Seconds until `size` bytes of memfd_secret are there, touched by every core at once: what no loader can be faster than."""
    cores = len(os.sched_getaffinity(0))
    step = -(-size // (mmap.PAGESIZE * cores)) * mmap.PAGESIZE
    fd = secret_fd()
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


def start(results, d, level, data):
    """A model of 100 MB whose package is on the device already."""
    world = tg_agent.World(d / level, tg.make_author(d / f"{level}-author"), poll=60)
    try:
        agent = world.agent()
        agent.protection = level
        agent.enrol()
        agent.start()
        world.ship(1, files={"model.onnx": data})
        agent.poke()
        agent.wait_serving(deadline=90)
        agent.stop()
        times, floor = [], []
        for _ in range(STARTS):
            if level == "secret":  # which knows no large pages
                floor.append(touch_secret(len(data)))
            times.append(ready(agent))
            agent.wait_serving(deadline=90)
            agent.stop()
        results.add(f"agent: start to ready, {len(data) / 1e6:.0f} MB model cached ({level})", statistics.median(times), "s",
                    statistics.median(floor) if floor else None,
                    "touching as much memfd_secret once, by all cores" if floor else None,
                    mark=("ours", "<=", {"locked": 0.5, "secret": 0.8}[level]))
    finally:
        world.stop()


def starts(results, d):
    data = model(d, "chain", "--width", 2560, "--layers", 4).read_bytes()
    for level in levels():
        (d / level).mkdir()
        start(results, d, level, data)


def measure(results, d, args):
    for kind in SHAPES:
        paired(results, d, kind)
    starts(results, d)


if __name__ == "__main__":
    sys.exit("run tests/bench/run.py")
