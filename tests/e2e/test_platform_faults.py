"""Faults: kill -9 under load, a full disk, slow and half-closed connections, oversized bodies, SIGTERM in the middle."""
import hashlib
import json
import os
import random
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import programs
import tg


def raw_tls(platform, url=None):
    context = ssl.create_default_context(cafile=str(platform.ca))
    return context.wrap_socket(tg.free_socket(url or platform.api_url), server_hostname="127.0.0.1")


def half_close(sock):
    """End our side of the connection below TLS, and go on reading. (SSLSocket.shutdown would forget about TLS.)"""
    with socket.socket(fileno=os.dup(sock.fileno())) as same:
        same.shutdown(socket.SHUT_WR)


def read_all(sock):
    data = b""
    try:
        while True:
            more = sock.recv(65536)
            if not more:
                return data
            data += more
    except (ConnectionError, ssl.SSLError, TimeoutError):
        return data


# ---- kill -9 ----

class Load(threading.Thread):
    """Makes fleets, tokens and uploads as fast as it can; remembers what was acknowledged."""

    def __init__(self, platform, number, data):
        super().__init__()
        self.platform, self.number, self.data = platform, number, data
        self.fleets, self.tokens, self.parts, self.upload = [], [], [], None
        self.stopped = threading.Event()
        self.failure = None

    def run(self):
        client = self.platform.client(self.platform.token)
        i = 0
        while not self.stopped.is_set():
            try:
                name = f"f{self.number}-{random.getrandbits(60):x}"
                if client.call("POST", "/api/v1/fleets", {"name": name}).status == 201:
                    self.fleets.append(name)
                answer = client.call("POST", "/api/v1/enrolment-tokens", {"fleet": name})
                if answer.status == 201:
                    self.tokens.append(answer.json["id"])
                if self.upload is None:
                    body = {"size": len(self.data), "sha256": hashlib.sha256(self.data).hexdigest(), "part_size": 65536}
                    answer = client.call("POST", "/api/v1/uploads", body)
                    if answer.status == 201:
                        self.upload = answer.json["id"]
                elif i < len(self.data) // 65536:
                    part = self.data[i * 65536:(i + 1) * 65536]
                    answer = client.call("PUT", f"/api/v1/uploads/{self.upload}/parts/{i}", part,
                                         headers=tg.digest_header(part))
                    if answer.status == 200:
                        self.parts.append(i)
                        i += 1
            except (OSError, ssl.SSLError, tg.http.client.HTTPException):
                client.close()  # killed: nothing of this answer counts
                if self.stopped.wait(0.02):
                    return
            except Exception as e:  # noqa: BLE001  the test must see it
                self.failure = e
                return


def test_kill_9_loses_nothing_acknowledged(tmp_path):
    platform = tg.Platform(tmp_path / "p").start()
    platform.admin()
    data = os.urandom(65536 * 40)
    fleets, tokens, uploads = [], [], []
    rng = random.Random(int(os.environ.get("TG_SEED", "1")))
    for _ in range(8):
        loads = [Load(platform, n, data) for n in range(3)]
        for load in loads:
            load.start()
        time.sleep(rng.uniform(0.05, 0.6))
        platform.kill()
        for load in loads:
            load.stopped.set()
            load.join()
            assert load.failure is None, load.failure
            fleets += load.fleets
            tokens += load.tokens
            if load.upload:
                uploads.append(load)
        platform.start()
        admin = platform.admin()
        assert set(fleets) <= {f["name"] for f in tg.lists(admin, "/api/v1/fleets")}
        assert set(tokens) <= {t["id"] for t in tg.lists(admin, "/api/v1/enrolment-tokens")}
        check = admin.get("/api/v1/audit/verify").json
        assert check["ok"], check
        audited = {r["target"] for r in tg.lists(admin, "/api/v1/audit")}
        assert {f"fleet:{name}" for name in fleets} <= audited
    assert len(fleets) > 20
    # What the platform says it has of each upload is there byte for byte.
    for load in uploads:
        state = admin.get(f"/api/v1/uploads/{load.upload}").json
        gone = {n for r in state["missing"] for n in range(r["first"], r["last"] + 1)}
        assert not gone & set(load.parts)
        on_disk = (platform.dir / "uploads" / f"{load.upload}.part").read_bytes()
        for n in set(range(40)) - gone:
            assert on_disk[n * 65536:(n + 1) * 65536] == data[n * 65536:(n + 1) * 65536], n
        admin.delete(f"/api/v1/uploads/{load.upload}")
    assert platform.stop() == 0


def test_kill_9_while_completing(tmp_path, author):
    """Killed at any moment of `complete`, the package is either not there (and completing again works) or whole."""
    platform = tg.Platform(tmp_path / "p").start()
    admin = platform.admin()
    admin.post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()})
    rng = random.Random(2)
    for i in range(6):
        package = tg.make_package(tmp_path, author, files={"model.bin": os.urandom(3_000_000)})
        data = package.read_bytes()
        up = admin.post("/api/v1/uploads", {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                                            "part_size": 1 << 20}).json
        for n in range(up["parts"]):
            part = data[n << 20:(n + 1) << 20]
            admin.put(f"/api/v1/uploads/{up['id']}/parts/{n}", part, headers=tg.digest_header(part))
        thread = threading.Thread(target=lambda: quiet(lambda: platform.client(platform.token).post(
            f"/api/v1/uploads/{up['id']}/complete", expect=None)))
        thread.start()
        time.sleep(rng.uniform(0, 0.05))
        platform.kill()
        thread.join()
        platform.start()
        admin = platform.admin()
        made = admin.post(f"/api/v1/uploads/{up['id']}/complete", expect=None)
        assert made.status in (200, 201), made
        assert admin.get(f"/api/v1/blobs/{made.json['blob_sha256']}").body == data
        assert admin.get("/api/v1/audit/verify").json["ok"]
    files = [f for f in (platform.dir / "blobs").rglob("*") if f.is_file()]
    assert len(files) == 6 and not list((platform.dir / "uploads").iterdir())
    platform.stop()


def quiet(fn):
    try:
        fn()
    except (OSError, ssl.SSLError, tg.http.client.HTTPException):
        pass


@pytest.mark.parametrize("after", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6])
def test_kill_9_at_the_first_start(tmp_path, after):
    """A first start that is cut off leaves nothing that a second start can't finish."""
    log = open(tmp_path / "log", "w")
    p = subprocess.Popen([programs.path("tensorguard-platform"), "--data-dir", str(tmp_path / "p"), "--listen", "127.0.0.1:0",
                          "--device-listen", "127.0.0.1:0"], stdout=log, stderr=log)
    time.sleep(after)
    p.kill()
    p.wait()
    (tmp_path / "p").mkdir(exist_ok=True)
    platform = tg.Platform(tmp_path / "p").start()
    if not (platform.dir / "admin.token").exists():
        pytest.fail("no administrator token")
    assert platform.admin().get("/api/v1/audit/verify").json["ok"]
    platform.stop()


# ---- stopping ----

def test_sigterm_finishes_what_is_in_flight(tmp_path, author):
    platform = tg.Platform(tmp_path / "p").start()
    admin = platform.admin()
    data = os.urandom(8 << 20)
    up = admin.post("/api/v1/uploads", {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                                        "part_size": 8 << 20}).json
    sock = raw_tls(platform)
    head = (f"PUT /api/v1/uploads/{up['id']}/parts/0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {admin.token}\r\n"
            f"Content-Digest: {tg.digest_header(data)['Content-Digest']}\r\nContent-Length: {len(data)}\r\n\r\n")
    sock.sendall(head.encode() + data[:1 << 20])
    time.sleep(0.2)
    platform.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert platform.process.poll() is None, "it waits for what is in flight"
    sock.sendall(data[1 << 20:])
    answer = read_all(sock)
    assert b" 200 " in answer.split(b"\r\n")[0] or b" 503 " in answer.split(b"\r\n")[0], answer
    assert b"close" in answer.lower()
    assert platform.process.wait(30) == 0
    platform.start()
    left = platform.admin().get(f"/api/v1/uploads/{up['id']}").json["received"]
    assert left == (1 if b" 200 " in answer.split(b"\r\n")[0] else 0)
    assert platform.stop() == 0


def test_sigterm_with_idle_connections(platform):
    clients = [platform.client(platform.admin().token) for _ in range(5)]
    for c in clients:
        c.get("/api/v1/fleets")
    start = time.monotonic()
    assert platform.stop() == 0
    assert time.monotonic() - start < 8


# ---- the network ----

def test_oversized_bodies(platform):
    for url, path, limit in ((platform.api_url, "/api/v1/fleets", 65536), (platform.device_url, "/device/v1/enrol", 65536),
                             (platform.api_url, "/api/v1/nowhere", 65536)):
        sock = raw_tls(platform, url)
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {limit + 1}\r\n\r\n".encode())
        answer = read_all(sock)  # before a byte of the body was sent
        assert b" 413 " in answer.split(b"\r\n")[0], answer
        assert b"problem+json" in answer
    sock = raw_tls(platform)
    sock.sendall(b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n")
    assert read_all(sock).split(b" ")[1][:1] == b"4"
    sock = raw_tls(platform)
    sock.sendall(b"GET /api/v1/fleets HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000 + b"\r\n\r\n")
    assert read_all(sock).split(b" ")[1][:1] == b"4"


def test_half_closed_and_broken_off(platform):
    """A client that goes away in the middle of whatever it was saying leaves the platform as it was."""
    admin = platform.admin()
    before = admin.get("/api/v1/audit/verify").json["entries"]
    for piece in (b"", b"POST /api/v1/fle", b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\n",
                  b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"name\":"):
        sock = raw_tls(platform)
        sock.sendall(piece)
        sock.unwrap() if not piece else sock.shutdown(socket.SHUT_WR)
        sock.close()
        plain = tg.free_socket(platform.api_url)  # no TLS at all
        plain.sendall(piece)
        plain.shutdown(socket.SHUT_WR)
        read_all(plain)
        plain.close()
    assert admin.get("/api/v1/audit/verify").json["entries"] == before
    admin.get("/healthz")


@pytest.mark.parametrize("piece", [
    b"", b"GET /api/v1/fle", b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\n",
    b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"name\":", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
])
def test_half_closed_connections_end(shared_platform, piece):
    """A client that only listens from now on has nothing more to say: what is not whole is not waited for, what is may
    be answered or not (docs/api.md), and either way the platform closes its side, while it serves others."""
    half = raw_tls(shared_platform)
    half.sendall(piece)
    half_close(half)
    admin = shared_platform.admin()
    for _ in range(10):
        admin.get("/api/v1/fleets")
    half.settimeout(tg.DEADLINE)
    answer = read_all(half)  # it ends by the platform's doing: half is still open here
    assert not answer or (b"healthz" in piece and b" 200 " in answer.split(b"\r\n")[0]), answer
    half.close()
    admin.get("/api/v1/fleets")


class Slow(threading.Thread):
    """Says a first piece, then a byte twice a second until the platform has had enough; keeps what it is told."""

    def __init__(self, sock, piece):
        super().__init__()
        self.sock, self.piece, self.told, self.closed = sock, piece, b"", False

    def run(self):
        self.sock.sendall(self.piece)
        end = time.monotonic() + 60
        while not self.closed and time.monotonic() < end:
            self.sock.settimeout(0.5)
            try:
                more = self.sock.recv(65536)
                self.told, self.closed = self.told + more, not more
                if self.piece and not self.closed:
                    self.sock.sendall(b"a")
            except TimeoutError:
                pass
            except OSError:
                self.closed = True


def test_slow_connections_are_dropped(platform):
    """A byte now and then: neither a head nor a body may take for ever; who began one is told (408), and nobody else waits."""
    begun = [Slow(raw_tls(platform), b"GET /api/v1/fleets HT"), Slow(raw_tls(platform, platform.device_url), b"GET /heal"),
             Slow(raw_tls(platform), b"POST /api/v1/fleets HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{"),
             Slow(raw_tls(platform), b"PUT /api/v1/uploads/%s/parts/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n" %
                  (b"ab" * 16))]
    silent = Slow(tg.free_socket(platform.api_url), b"")  # never says a word, not even TLS
    before = platform.admin().get("/api/v1/audit/verify").json["entries"]
    for s in (*begun, silent):
        s.start()
    admin = platform.admin()
    while any(s.is_alive() for s in (*begun, silent)):
        admin.get("/api/v1/fleets")
        time.sleep(0.05)
    for s in begun:
        head, body = s.told.split(b"\r\n\r\n")
        assert s.closed and head.startswith(b"HTTP/1.1 408 ") and b"application/problem+json" in head, s.told
        problem = json.loads(body)
        assert problem["status"] == 408 and problem["code"] == "TIMEOUT" and "too slowly" in problem["detail"], problem
        assert problem["type"] == "about:blank"
    assert silent.closed and silent.told == b""
    assert admin.get("/api/v1/audit/verify").json["entries"] == before


# ---- the disk ----

def limit_file_size(n):
    def apply():
        resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
    return apply


def test_disk_full(tmp_path):
    """A limit on file sizes stands in for a full disk: refused with 507, nothing half-written, and it goes on afterwards."""
    tg.Platform(tmp_path / "p").start().stop()
    platform = tg.Platform(tmp_path / "p", preexec=limit_file_size(400_000)).start()
    admin = platform.admin()
    answer = admin.post("/api/v1/uploads", {"size": 500_000, "sha256": "ab" * 32, "part_size": 65536}, expect=507)
    assert answer.slug == "storage-full" and answer.json["code"] == "IO"
    assert not list((platform.dir / "uploads").iterdir())
    made, full = [], None
    for i in range(400):
        answer = admin.call("POST", "/api/v1/fleets", {"name": f"f{i}", "description": "x" * 1000})
        if answer.status == 507:
            full = answer
            break
        assert answer.status == 201, answer
        made.append(f"f{i}")
    assert full is not None and full.slug == "storage-full"
    assert {f["name"] for f in tg.lists(admin, "/api/v1/fleets")} == set(made)
    platform.stop()
    roomy = tg.Platform(tmp_path / "p")
    roomy.token = platform.token
    roomy.start()
    admin = roomy.admin()
    assert {f["name"] for f in tg.lists(admin, "/api/v1/fleets")} == set(made)
    admin.post("/api/v1/fleets", {"name": "after"})
    assert admin.get("/api/v1/audit/verify").json["ok"]
    assert roomy.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
def test_disk_full_on_a_small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if tg.run("mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk, ok=None).returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        platform = tg.Platform(disk / "p")
        platform.log = tmp_path / "log"
        platform.start()
        admin = platform.admin()
        assert admin.post("/api/v1/uploads", {"size": 64 << 20, "sha256": "ab" * 32, "part_size": 8 << 20},
                          expect=507).slug == "storage-full"
        up = admin.post("/api/v1/uploads", {"size": 3 << 20, "sha256": "ab" * 32, "part_size": 1 << 20}).json
        admin.post("/api/v1/uploads", {"size": 6 << 20, "sha256": "ab" * 32, "part_size": 1 << 20}, expect=507)
        part = os.urandom(1 << 20)
        admin.put(f"/api/v1/uploads/{up['id']}/parts/0", part, headers=tg.digest_header(part))
        assert admin.get("/api/v1/audit/verify").json["ok"]
        assert platform.stop() == 0
    finally:
        tg.run("umount", disk)


# ---- memory ----

def test_memory_does_not_grow_with_the_package(platform, author, tmp_path):
    """96 MiB up, checked and down again: the resident set stays far below it."""
    admin = platform.admin()
    admin.post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()})
    package = tg.make_package(tmp_path, author, files={"model.bin": os.urandom(96 << 20)})

    def peak():
        status = open(f"/proc/{platform.process.pid}/status").read()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10

    before = peak()
    made = tg.upload(admin, package, part_size=4 << 20).json
    blob = admin.get(f"/api/v1/blobs/{made['blob_sha256']}").body
    assert hashlib.sha256(blob).hexdigest() == made["blob_sha256"]
    if not programs.sanitized():
        assert peak() - before < 64 << 20, (before, peak())
