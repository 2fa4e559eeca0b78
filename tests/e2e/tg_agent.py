"""What the agent's end-to-end tests share: a platform with a fleet, agents as real processes, predictions, and a
TCP proxy that cuts connections. The model is the demo's; its logits are checked against PyTorch's."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import numpy

import programs
import tg

EXAMPLE = programs.ROOT / "examples" / "perception-net"
IMAGES = numpy.load(EXAMPLE / "heldout" / "images.npy")[:8]
LOGITS = {v: numpy.load(EXAMPLE / "heldout" / f"logits_v{v}.npy")[:8] for v in (1, 2)}


class World:
    """A platform, one fleet, a registered author, and whatever devices a test enrols."""

    def __init__(self, folder, author, poll=1, options=()):
        self.dir = pathlib.Path(folder)
        self.author = author
        self.platform = tg.Platform(self.dir / "platform", *options, poll=poll).start()
        self.agents = []
        self.setup()

    def setup(self):
        self.api = self.platform.admin()
        about = self.api.get("/api/v1/platform").json
        self.platform_pub = self.dir / "platform.pub"
        self.vault_pub = self.dir / "vault.pub"
        self.platform_pub.write_text(about["platform_public_key"])
        self.vault_pub.write_text(about["vault_public_key"])
        self.api.post("/api/v1/fleets", {"name": "robots"})
        self.publisher(self.author)

    def publisher(self, author):
        self.api.post("/api/v1/publishers", {"name": "author-" + os.urandom(4).hex(),
                                             "public_key": (author / "signing.pub").read_text()})

    def token(self, fleet="robots"):
        made = self.api.post("/api/v1/enrolment-tokens", {"fleet": fleet}).json
        path = pathlib.Path(tempfile.mkstemp(dir=self.dir, prefix="token-")[1])
        path.write_text(made["token"] + "\n")
        return path

    def files(self, model=1):
        base = EXAMPLE / f"model_v{model}"
        return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()}

    def build(self, model=1, author=None, files=None, **options):
        """A package of the demo's model (or other files) for the vault; its path."""
        options.setdefault("model_version", str(model))
        options.setdefault("sequence", time.time_ns() // 1000)  # two in one second are told apart
        return tg.make_package(self.dir, author or self.author, "perception-net", files or self.files(model),
                               [self.vault_pub], **options)

    def publish(self, path):
        tg.upload(self.api, path)
        return tg.h_of(path)

    def deploy(self, h, device=None, **more):
        where = {"device": device} if device else {"fleet": "robots"}
        made = self.api.post("/api/v1/deployments", {"package": h, **where, **more}).json["id"]
        for a in self.agents:
            a.poke()
        return made

    def ship(self, model=1, device=None, allow_rollback=False, **options):
        """Build, publish, deploy: (H, deployment id)."""
        h = self.publish(self.build(model, **options))
        return h, self.deploy(h, device, allow_rollback=allow_rollback)

    def update(self, deployment, device):
        for u in self.api.get(f"/api/v1/deployments/{deployment}").json.get("updates", []):
            if u["device"] == device:
                return u
        return {"state": None}

    def wait_update(self, deployment, device, *states, deadline=tg.DEADLINE):
        def there():
            u = self.update(deployment, device)
            return u if u["state"] in states else None
        try:
            return tg.wait_for(f"update {states}", there, deadline)
        except AssertionError as e:
            logs = "\n".join(a.log_text()[-3000:] for a in self.agents)
            raise AssertionError(f"{e}; it is {self.update(deployment, device)}\n{logs}") from None

    def cli(self, *argv, **kw):
        """`tensorguard …` as an operator who is logged in."""
        config = self.dir / ("cli-" + self.platform.api_url.rsplit(":", 1)[1])
        if not config.exists():
            token = self.dir / "cli.token"
            token.write_text(self.platform.token)
            tg.cli("login", "--server", self.platform.api_url, "--token-file", token, "--ca", self.platform.ca,
                   "--config", config)
        return tg.cli(*argv, "--config", config, **kw)

    def agent(self, name="device", **options):
        a = Agent(self, self.dir / name, **options)
        self.agents.append(a)
        return a

    def stop(self):
        for a in self.agents:
            a.end()
        self.platform.stop()


class Agent:
    """One state folder and the tensorguard-agent that works on it."""

    def __init__(self, world, folder, server=None):
        self.world, self.dir = world, pathlib.Path(folder)
        self.state = self.dir / "state"
        self.dir.mkdir(parents=True)
        self.socket = self.dir / "p.sock"
        self.server = server
        self.worker = programs.path("tensorguard-moai")
        self.process = None
        self.log = self.dir / "agent.log"
        self.protection = programs.protection()

    def enrol_argv(self, token, *more):
        return [programs.path("tensorguard-agent"), "enroll", "--server", self.server or self.world.platform.device_url,
                "--token-file", token, "--ca", self.world.platform.ca, "--fleet", "robots",
                "--platform-key", self.world.platform_pub, "--trust", self.world.author / "signing.pub",
                "--state-dir", self.state, "--worker", self.worker, "--name", self.dir.name,
                "--predict-socket", self.socket, "--check-in-interval", "1",
                "--protection", self.protection, *more]

    def enrol(self, *more, token=None, ok=True):
        done = tg.run(*self.enrol_argv(token or self.world.token(), "--json", *more), ok=ok)
        if done.returncode == 0:
            self.id = json.loads(done.stdout)["device_id"]
        return done if ok is not True else self

    def stand_in(self, script, **values):
        """Another program in the worker's place: Python, with {real}, the worker, and these filled in as literals."""
        path = self.dir / "worker"
        values = {"real": programs.path("tensorguard-moai"), **values}
        path.write_text(f"#!{sys.executable}\n" + script.format(**{k: repr(str(v)) for k, v in values.items()}))
        path.chmod(0o755)
        self.worker = path
        return self

    def run_first(self, *options):
        """Enrol, start, and run version 1."""
        self.enrol(*options)
        _, one = self.world.ship(1)
        self.start()
        self.world.wait_update(one, self.id, "running")
        return self

    def argv(self, *more):
        return [programs.path("tensorguard-agent"), "run", "--state-dir", str(self.state), *map(str, more)]

    def start(self, *more, **kw):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.argv(*more), stdout=log, stderr=log, **kw)
        return self

    def once(self, *more, ok=True):
        return tg.run(*self.argv("--once", *more), ok=ok)

    def log_text(self):
        return self.log.read_text() if self.log.exists() else ""

    def status(self):
        return json.loads(tg.run(programs.path("tensorguard-agent"), "status", "--state-dir", self.state, "--json").stdout)

    def wait_status(self, what, condition, deadline=tg.DEADLINE):
        def there():
            try:
                s = json.loads((self.state / "status.json").read_text())
            except (OSError, ValueError):
                return None
            return s if self.process.poll() is None and s["pid"] == self.process.pid and condition(s) else None
        try:
            return tg.wait_for(what, there, deadline, every=0.02)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.log_text()[-4000:]}") from None

    def wait_serving(self, version=None, deadline=tg.DEADLINE):
        return self.wait_status(f"serving {version}", lambda s: s["serving"]["state"] == "serving" and
                                version in (None, s["serving"]["version"]), deadline)

    def wait_exit(self, deadline=tg.DEADLINE):
        return self.process.wait(deadline)

    def poke(self):
        """Check in now, if it runs (before it has set itself up SIGHUP would end it)."""
        try:
            ready = json.loads((self.state / "status.json").read_text())["pid"] == self.process.pid
        except (OSError, ValueError, AttributeError):
            return
        if ready and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(tg.DEADLINE)

    def end(self):
        if self.process and self.process.poll() is None:
            self.kill()

    def journal(self):
        path = self.state / "journal.json"
        return json.loads(path.read_text()) if path.exists() else None

    def infer(self, connection=None):
        """The logits for the first held-out images, or an exception."""
        own = connection or UnixConnection(self.socket)
        try:
            return infer(own)
        finally:
            if connection is None:
                own.close()

    def serves(self, model):
        """Is it this version of the model that answers, to PyTorch's figures?"""
        return numpy.allclose(self.infer(), LOGITS[model], rtol=0, atol=1e-4)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=tg.DEADLINE):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def infer(connection, headers=None, model="perception-net"):
    body = {"inputs": [{"name": "input", "datatype": "FP32", "shape": list(IMAGES.shape),
                        "data": [float(x) for x in IMAGES.ravel()]}]}
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body),
                       {"Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, f"{answer.status} {text[:500]}"
    out = json.loads(text)["outputs"][0]
    return numpy.array(out["data"], dtype=numpy.float32).reshape(out["shape"])


class Proxy:
    """A TCP proxy in front of a URL. cut_after: each connection is cut after that many bytes from the server
    (None: never); down: connections are refused (accepted and closed); rate: bytes a second from the server, in
    all (None: as they come)."""

    def __init__(self, url):
        u = urllib.parse.urlsplit(url)
        self.target = (u.hostname, u.port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{u.scheme}://127.0.0.1:{self.listener.getsockname()[1]}"
        self.cut_after, self.down, self.cuts, self.bytes, self.rate = None, False, 0, 0, None
        self.live = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            self.live |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source, sink, counted):
        moved = 0
        try:
            while True:
                data = source.recv(16384)
                if not data:
                    break
                if counted:
                    moved += len(data)
                    self.bytes += len(data)
                    if self.rate:
                        time.sleep(len(data) / self.rate)
                    if self.cut_after is not None and moved > self.cut_after:
                        sink.sendall(data[:len(data) // 2])
                        self.cuts += 1
                        break
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
            self.live.discard(s)

    def drop(self):
        """Refuse from now on, and break what is open."""
        self.down = True
        for s in list(self.live):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.drop()
        self.listener.close()


class Load:
    """Predictions in a row on one thread until stopped; every failure is kept."""

    def __init__(self, agent):
        self.agent, self.good, self.failed, self.versions = agent, 0, [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        connection = None
        while not self.stopping.is_set():
            try:
                if connection is None:
                    connection = UnixConnection(self.agent.socket)
                got = self.agent.infer(connection)
                version = next((v for v in LOGITS if numpy.allclose(got, LOGITS[v], rtol=0, atol=1e-4)), None)
                assert version, "an answer that is neither version's"
                if not self.versions or self.versions[-1] != version:
                    self.versions.append(version)
                self.good += 1
                if connection.sock is None:  # Connection: close, answered in full
                    connection = None
            except Exception as e:  # noqa: BLE001 - whatever it is, it is a failed request
                self.failed.append(repr(e))
                connection = None
            time.sleep(0.002)

    def stop(self):
        self.stopping.set()
        self.thread.join(tg.DEADLINE)


def worker_pids(agent_pid):
    """The children of an agent that are workers."""
    found = []
    for p in pathlib.Path("/proc").iterdir():
        if p.name.isdigit():
            try:
                fields = (p / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == agent_pid and fields[0] != "Z":
                    found.append(int(p.name))
            except OSError:
                pass
    return sorted(found)


def fetched(part):
    """Bytes of a download that are there and recorded as such: what a kill cannot take away."""
    try:
        return sum(s["end"] - s["off"] for s in json.loads(pathlib.Path(f"{part}.tag").read_text())["have"])
    except OSError:
        return 0


def copy_tree(source, target):
    shutil.copytree(source, target, symlinks=True, ignore=lambda d, names: [n for n in names if n.endswith(".sock")])
