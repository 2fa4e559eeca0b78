"""What demo.py stands on: the screen, processes that end with it, .npy files, a prediction client, a search.

Python's standard library only.
"""
import ast
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse


def protection_here():
    """What to ask of the workers' memory: "locked", unless a tight limit for this user leaves no room for it."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    may_lock = int(re.search(r"CapEff:\s*([0-9a-f]+)", pathlib.Path("/proc/self/status").read_text())[1], 16) >> 14 & 1
    return "locked" if may_lock or hard == resource.RLIM_INFINITY or hard >= 1 << 30 else "any"


class Stop(Exception):
    """Something without which the story cannot go on failed."""


# ---- the screen ----

class Screen:
    """Steps and checks as they happen; colours and the moving line only on a terminal."""
    SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

    def __init__(self):
        self.tty = sys.stdout.isatty()
        self.passed = self.failed = 0
        self.rows = []
        self.doing = None
        self.lock = threading.Lock()

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.tty else text

    def line(self, text=""):
        with self.lock:
            if self.tty and self.doing:
                print("\r\033[K", end="")
            print(text, flush=True)

    @contextlib.contextmanager
    def step(self, name):
        """One part of the story: its time goes into the closing table."""
        before, start = (self.passed, self.failed), time.monotonic()
        number = len(self.rows) + 1
        self.line("\n" + self.paint("1", f"{number}. {name}"))
        done = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(done, start), daemon=True)
        self.doing = name
        if self.tty:
            spinner.start()
        try:
            yield
        finally:
            done.set()
            if self.tty:
                spinner.join()
                print("\r\033[K", end="", flush=True)
            self.doing = None
            self.rows.append((name, self.passed - before[0], self.failed - before[1], time.monotonic() - start))

    def _spin(self, done, start):
        i = 0
        while not done.wait(0.1):
            if time.monotonic() - start > 0.4:
                with self.lock:
                    print(f"\r\033[K   {self.SPIN[i % len(self.SPIN)]} {time.monotonic() - start:4.1f} s", end="", flush=True)
            i += 1

    def check(self, what, ok, why=""):
        """One thing that must be so. Returns ok."""
        if ok:
            self.passed += 1
            self.line(f"   {self.paint('32', '✓')} {what}")
        else:
            self.failed += 1
            self.line(f"   {self.paint('31;1', '✗ ' + what)}" + (f"\n     {why}" if why else ""))
        return ok

    def need(self, what, ok, why=""):
        if not self.check(what, ok, why):
            raise Stop(what)

    def say(self, text):
        self.line(f"     {self.paint('2', text)}")

    def table(self):
        width = max(len(r[0]) for r in self.rows)
        self.line("\n" + self.paint("1", f"{'what happened':<{width + 4}}{'checks':>7}{'seconds':>10}"))
        for i, (name, good, bad, took) in enumerate(self.rows, 1):
            mark = f"{good}" if bad == 0 else self.paint("31;1", f"{good}/{good + bad}")
            self.line(f"{i:>2}. {name:<{width}}{mark:>7}{took:>10.2f}")
        self.line(f"{'':4}{'all together':<{width}}{self.passed + self.failed:>7}{sum(r[3] for r in self.rows):>10.2f}")


# ---- programs ----

class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as KeyboardInterrupt, but never between a process's birth and its being known: one
    that nobody knows would outlive the demo."""

    def __init__(self):
        self.held, self.pending = False, False
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, self._came)

    def _came(self, *_):
        self.pending = True
        if not self.held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def hold(self):
        self.held = True
        try:
            yield
        finally:
            self.held = False
        if self.pending:
            raise KeyboardInterrupt


class Programs:
    """The built programs, and every process that was started, to be ended whatever happens."""
    FOLDER = {"tensorguard": "cli", "tensorguard-platform": "platform", "tensorguard-agent": "agent",
              "tensorguard-moai": "moai"}

    def __init__(self, build, config):
        self.build, self.config = pathlib.Path(build).resolve(), config
        self.running = []
        self.interrupts = Interrupts()

    def path(self, name):
        return str(self.build / "src" / self.FOLDER[name] / name)

    def missing(self):
        return [name for name in self.FOLDER if not os.access(self.path(name), os.X_OK)]

    def _begin(self, name, args, **where):
        with self.interrupts.hold():
            p = subprocess.Popen([self.path(name), *map(str, args)], stdin=subprocess.DEVNULL, **where)
            self.running.append(p)
        return p

    def run(self, name, *args, ok=True):
        """Run to the end. ok=True: it must succeed; None: either."""
        p = self._begin(name, args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = p.communicate(timeout=120)
        self.running.remove(p)
        if ok and p.returncode != 0:
            raise Stop(f"{name} {args[0]}: exit {p.returncode}: {err.strip() or out.strip()}")
        return subprocess.CompletedProcess(p.args, p.returncode, out, err)

    def cli(self, *args, ok=True):
        return self.run("tensorguard", *args, ok=ok)

    def json(self, *args):
        return json.loads(self.cli(*args, "--json").stdout)

    def platform_json(self, *args):
        return self.json(*args, "--config", self.config)

    def start(self, name, log, *args):
        with open(log, "ab") as f:
            p = self._begin(name, args, stdout=f, stderr=f)
        p.log = log
        return p

    def end(self, p, patience=15):
        """SIGTERM, and SIGKILL for one that does not listen. Returns the exit status."""
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(patience)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if p in self.running:
            self.running.remove(p)
        return p.returncode

    def end_all(self):
        for p in reversed(self.running[:]):
            with contextlib.suppress(Exception):
                self.end(p, 5)


def wait_for(what, condition, seconds=30, every=0.02):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Stop(f"waited {seconds} s for {what}")
        time.sleep(every)


def tls_version(url, ca, old=False):
    """What a listener speaks with a client that checks its certificate; None: it would not. old: TLS 1.2 at most."""
    where = urllib.parse.urlsplit(url)
    context = ssl.create_default_context(cafile=str(ca))
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection((where.hostname, where.port), timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname=where.hostname) as tls:
            return tls.version()
    except OSError:
        return None


# ---- .npy ----

class Array:
    """A little-endian float32 or int64 array of one or two effective dimensions: rows of `width` values."""

    def __init__(self, raw):
        if raw[:6] != b"\x93NUMPY" or raw[6] not in (1, 2):
            raise Stop("not a .npy file")
        at, size = (8, 2) if raw[6] == 1 else (8, 4)
        n = int.from_bytes(raw[at:at + size], "little")
        header = ast.literal_eval(raw[at + size:at + size + n].decode("latin-1"))
        self.kind, self.shape = header["descr"], header["shape"]
        self.data = raw[at + size + n:]
        code, item = {"<f4": ("f", 4), "<i8": ("q", 8)}[self.kind]
        self.values = struct.unpack(f"<{len(self.data) // item}{code}", self.data)
        self.rows_n = self.shape[0]
        self.width = len(self.values) // self.rows_n

    def row(self, i):
        return self.values[i * self.width:(i + 1) * self.width]


def load(path):
    return Array(pathlib.Path(path).read_bytes())


def furthest(a, b):
    """The largest difference between two arrays of one shape."""
    if len(a.values) != len(b.values):
        return float("inf")
    return max(abs(x - y) for x, y in zip(a.values, b.values))


def score(logits, labels):
    right = sum(max(range(logits.width), key=logits.row(i).__getitem__) == labels.values[i] for i in range(labels.rows_n))
    return right / labels.rows_n


# ---- predictions over the Open Inference Protocol ----

class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def infer(path, model, values, shape):
    """One request on a connection of its own, in binary. Returns (version, logits)."""
    data = struct.pack(f"<{len(values)}f", *values)
    head = json.dumps({"inputs": [{"name": "input", "datatype": "FP32", "shape": shape,
                                   "parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}).encode()
    c = UnixConnection(path)
    try:
        c.request("POST", f"/v2/models/{model}/infer", body=head + data,
                  headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"})
        r = c.getresponse()
        body = r.read()
        if r.status != 200:
            raise OSError(f"HTTP {r.status}: {body[:200]!r}")
        n = int(r.headers["Inference-Header-Content-Length"])
        answer = json.loads(body[:n])
        return answer.get("model_version"), struct.unpack(f"<{(len(body) - n) // 4}f", body[n:])
    finally:
        c.close()


class Hammer(threading.Thread):
    """A client that never rests: every answer must be right for the version that gave it."""

    def __init__(self, path, model, images, right):
        super().__init__(daemon=True)
        self.path, self.model, self.images, self.right = path, model, images, right
        self.stopped = threading.Event()
        self.counts, self.failures, self.slowest = {}, [], 0.0
        self.start()

    def run(self):
        i = 0
        while not self.stopped.is_set():
            i = (i + 1) % self.images.rows_n
            begun = time.monotonic()
            try:
                version, logits = infer(self.path, self.model, self.images.row(i), [1, *self.images.shape[1:]])
                wanted = self.right[version].row(i)
                if max(abs(a - b) for a, b in zip(logits, wanted)) > 1e-4 or len(logits) != len(wanted):
                    self.failures.append(f"version {version}, image {i}: wrong logits")
                self.counts[version] = self.counts.get(version, 0) + 1
            except (OSError, http.client.HTTPException, KeyError, ValueError) as e:
                self.failures.append(f"{type(e).__name__}: {e}")
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def finish(self):
        self.stopped.set()
        self.join(30)
        return self


# ---- the search ----

def needles(path, n=24, size=48):
    """Pieces from all over a file that are not mostly zeros: any one of them gives the plaintext away."""
    data = pathlib.Path(path).read_bytes()
    found, step = [], max(1, (len(data) - size) // n)
    for at in range(0, len(data) - size, step):
        piece = data[at:at + size]
        if len(set(piece)) > size // 2:
            found.append(piece)
    return found


def _touched_since(folders, since):
    """(path, size) of regular files whose contents or name changed since then; find is much faster than os.walk."""
    seen = set()
    for folder in folders:
        done = subprocess.run(["find", os.fspath(folder), "-xdev", "-type", "f", "-newerct", f"@{since:.3f}", "-print0"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        for path in filter(None, done.stdout.split(b"\0")):
            with contextlib.suppress(OSError):
                st = os.lstat(path)
                if (st.st_dev, st.st_ino) not in seen:
                    seen.add((st.st_dev, st.st_ino))
                    yield os.fsdecode(path), st.st_size


def _holds(path, pieces):
    keep = max(map(len, pieces)) - 1
    with open(path, "rb") as f:
        tail = b""
        while block := f.read(4 << 20):
            window = tail + block
            if any(p in window for p in pieces):
                return True
            tail = window[-keep:]
    return False


def search(folders, pieces, since=0.0, seconds=None):
    """Files beneath folders, changed since then, that hold any of the pieces, smallest files first. Returns (hits,
    files, bytes) of what was read; a search that is not through after `seconds` stops the demo."""
    hits, files, total, begun = [], 0, 0, time.monotonic()
    for path, size in sorted(_touched_since(folders, since), key=lambda found: found[1]):
        if seconds and time.monotonic() - begun > seconds:
            raise Stop(f"too much was written on this machine meanwhile to search it all; {path} was next")
        try:
            if _holds(path, pieces):
                hits.append(path)
        except OSError:
            continue  # gone, or another user's
        files, total = files + 1, total + size
    return hits, files, total


def places_to_search(demo):
    """The demo's own folder, temporary folders, memory file systems, the home folder."""
    tmp = [os.environ["TMPDIR"]] if os.environ.get("TMPDIR") else ["/tmp", "/var/tmp"]
    wanted = [demo, *tmp, "/dev/shm", os.environ.get("XDG_RUNTIME_DIR"), os.path.expanduser("~")]
    out = []
    for w in wanted:
        if w and os.path.isdir(w):
            real = os.path.realpath(w)
            if real != "/" and real not in out:
                out.append(real)
    return out
