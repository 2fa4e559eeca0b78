"""Calls through shared memory at 1,000 a second, of a model that does nothing: what the way costs over the bare ONNX Runtime
call, beside a bare futex ping-pong in the same run; with a worker that sleeps and with one that spins."""
import json
import shutil
import subprocess

import measure as m
import programs
from moai_launcher import Native, Worker, kit

BENCH = programs.BUILD / "tests" / "bench" / "bench_native"
ELEMENTS = 64


def field(number, payload):
    """A field of protocol buffers: an integer or bytes."""
    def varint(n):
        out = b""
        while n > 0x7f:
            out, n = out + bytes([n & 0x7f | 0x80]), n >> 7
        return out + bytes([n])
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def identity(path):
    """y = x, FP32 [1, 64], as ONNX."""
    def port(name):
        shape = b"".join(field(1, field(1, n)) for n in (1, ELEMENTS))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"identity") + field(11, port(b"x")) + field(12, port(b"y"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(field(1, 8) + field(8, field(2, 13)) + field(7, graph))
    return path


class Place:
    """Keys, a package of the model, a native socket; workers as wanted."""

    def __init__(self, d):
        self.dir = d
        self.model = identity(d / "model" / "model.onnx")
        kit("keys", "--dir", d)
        kit("rollback", "--out", d / "empty.rollback")
        for v in (1, 2):
            kit("package", "--dir", d, "--input", d / "model", "--out", d / f"{v}.tgsp", "--model", "identity",
                "--version", v, "--sequence", v)
        self.native = Native(d)

    def worker(self, version, spin_us, before=()):
        return Worker(self.dir, self.dir / f"{version}.tgsp", native=self.native, native_spin_us=spin_us, threads=1,
                      before=list(before)).serve()


def real_time(priority=10):
    """A thread that spins needs a processor of its own: where this user may, real-time priority gives it one, whatever else
    the machine does (as whoever runs a control loop would)."""
    chrt = shutil.which("chrt")
    if chrt and subprocess.run([chrt, "--fifo", str(priority), "true"], stderr=subprocess.DEVNULL).returncode == 0:
        return [chrt, "--fifo", str(priority)]
    return []


def one(place, spin_us, client_spin_us, rounds, before=()):
    w = place.worker(1, spin_us, before)
    try:
        return json.loads(m.run(*before, BENCH, place.model, place.native.path, rounds, client_spin_us).out)
    finally:
        w.stop()


def measure(results, d, args):
    place = Place(d)
    rounds = max(2, int(2 * args.seconds))
    own = real_time()
    sleeps = one(place, 0, 0, rounds, own)
    spins = one(place, 3000, 1000, rounds, own)
    how = "real-time priority" if own else "ordinary priority: on a busy machine a thread that spins loses its turn"
    for name, got in (("sleeping (futex)", sleeps), ("spinning", spins)):
        for p in ("p50", "p99"):  # the marks of spinning are on the difference: what the way adds to the call
            results.add(f"native call, worker {name}: {p}", got[f"native_{p}"], "us", got[f"ort_{p}"],
                        "bare ONNX Runtime call; the mark is on the difference" if got is spins else "bare ONNX Runtime call", how)
    results.add("native call, worker sleeping: added p50", sleeps["native_p50"] - sleeps["ort_p50"], "us", sleeps["ping_p50"],
                "bare futex ping-pong", how)
    results.add("native call, worker spinning: p99 over the bare median", spins["native_p99"] - spins["ort_p50"], "us",
                spins["ort_p99"] - spins["ort_p50"], "the bare call's own p99 over its median")
