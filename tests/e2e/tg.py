"""What the end-to-end tests share: running the platform, speaking to it, running commands, certificates.

Nothing here uses a fixed port: the platform binds port 0 and says in run/endpoints.json where it listens.
"""
import base64
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

import programs

DEADLINE = 30  # seconds that anything here may take before a test fails


def wait_for(what, condition, deadline=DEADLINE, every=0.05):
    """Call condition() until it is true (and return that), or fail saying `what`."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline} s for {what}"
        time.sleep(every)


def run(*argv, ok=True, env=None, **kw):
    """Run a program; returns the CompletedProcess. ok=True: must exit 0; False: must not; None: either."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=kw.pop("timeout", 120),
                          env={**os.environ, **(env or {})}, **kw)
    if ok is not None:
        assert (done.returncode == 0) == ok, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def cli(*argv, **kw):
    """Run `tensorguard …`."""
    return run(programs.path("tensorguard"), *argv, **kw)


def cli_json(*argv, **kw):
    return json.loads(cli(*argv, "--json", **kw).stdout)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def slug(self):
        """The kind of a refusal: the last part of the problem's type."""
        return self.json["type"].rsplit(":", 1)[1]

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Client:
    """One kept-alive connection, TLS 1.3, optional bearer token and client certificate."""

    def __init__(self, url, ca, token=None, cert=None, key=None, timeout=DEADLINE):
        u = urllib.parse.urlsplit(url)
        self.host, self.port, self.token, self.timeout = u.hostname, u.port, token, timeout
        self.context = ssl.create_default_context(cafile=str(ca))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        if cert:
            self.context.load_cert_chain(str(cert), str(key))
        self.connection = None

    def connect(self):
        self.close()
        self.connection = http.client.HTTPSConnection(self.host, self.port, context=self.context,
                                                      timeout=self.timeout)
        self.connection.connect()
        return self.connection

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def call(self, method, path, body=None, headers=None, expect=None):
        """body: bytes, or something for JSON. expect: the status that must come back."""
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if self.connection is None or self.connection.sock is None:
            self.connect()
        self.connection.request(method, path, body=body, headers=headers)
        raw = self.connection.getresponse()
        answer = Answer(raw.status, raw.headers, raw.read())
        if expect is not None:
            assert answer.status == expect, f"{method} {path}: {answer}"
        return answer

    def get(self, path, expect=200, **kw):
        return self.call("GET", path, expect=expect, **kw)

    def post(self, path, body=None, expect=201, **kw):
        return self.call("POST", path, body=b"" if body is None else body, expect=expect, **kw)

    def put(self, path, body, expect=200, **kw):
        return self.call("PUT", path, body=body, expect=expect, **kw)

    def delete(self, path, expect=204, **kw):
        return self.call("DELETE", path, expect=expect, **kw)


def lists(client, path):
    """All items of a list, over its pages."""
    items, after = [], ""
    while True:
        page = client.get(f"{path}?limit=1000{after}").json
        items += page["items"]
        if "next" not in page:
            return items
        after = f"&after={page['next']}"


def digest_header(data):
    """RFC 9530 Content-Digest."""
    return {"Content-Digest": "sha-256=:" + base64.b64encode(hashlib.sha256(data).digest()).decode() + ":"}


class Platform:
    """A tensorguard-platform process on a data folder. Restart it as often as you like."""

    def __init__(self, folder, *options, poll=1, rate_limit=0, preexec=None):
        self.dir = pathlib.Path(folder)
        self.options = ["--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0", "--poll", str(poll),
                        "--rate-limit", str(rate_limit), *map(str, options)]
        self.preexec = preexec
        self.process = None
        self.token = None
        self.log = self.dir.parent / (self.dir.name + ".log")

    def start(self, *more, stdout=None):
        """stdout: a descriptor; else the log gets it, too."""
        endpoints = self.dir / "run" / "endpoints.json"
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([programs.path("tensorguard-platform"), "--data-dir", str(self.dir),
                                             *self.options, *more], stdout=log if stdout is None else stdout, stderr=log,
                                            preexec_fn=self.preexec)

        def ready():
            assert self.process.poll() is None, f"the platform exited {self.process.returncode}: {self.log_text()}"
            try:
                found = json.loads(endpoints.read_text())
            except (OSError, ValueError):
                return None
            return found if found["pid"] == self.process.pid else None

        self.endpoints = wait_for("the platform's endpoints.json", ready)
        self.ca = self.dir / "ca.pem"
        return self

    def log_text(self):
        return self.log.read_text()

    @property
    def api_url(self):
        return self.endpoints["api_url"]

    @property
    def device_url(self):
        return self.endpoints["device_url"]

    def admin(self):
        """A client with an administrator's lasting token (made at the first call)."""
        if self.token is None:
            once = (self.dir / "admin.token").read_text().strip()
            self.token = self.client().post("/api/v1/login", {"token": once, "name": "tests"}).json["token"]
        return self.client(self.token)

    def client(self, token=None):
        return Client(self.api_url, self.ca, token=token)

    def role(self, role, name=None):
        """A client with a fresh token of this role."""
        made = self.admin().post("/api/v1/tokens", {"name": name or f"a-{role}", "role": role}).json
        return self.client(made["token"])

    def device_client(self, cert=None, key=None, **kw):
        return Client(self.device_url, self.ca, cert=cert, key=key, **kw)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit status."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode if self.process else None


class Device:
    """A device made of openssl and Python: for tests of the platform without the agent."""

    def __init__(self, folder, platform, fleet, name="device"):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.platform, self.fleet, self.name = platform, fleet, name
        self.key, self.cert = self.dir / "device.key", self.dir / "device.crt"
        self.seq = {}

    def make_keys(self):
        cli("keygen", "--type", "encryption", "--out", self.dir)
        self.csr = make_csr(self.key, "anything")
        self.kem_public_key = kem_public_raw(self.dir / "encryption.pub")
        self.kem_key_id = hashlib.sha256(b"TGSP-1.0 kem key" + self.kem_public_key).hexdigest()[:32]

    def enrol_body(self, token):
        return {"token": token, "fleet": self.fleet, "name": self.name, "csr": self.csr,
                "kem_public_key": b64url(self.kem_public_key), "agent_version": "0.1.0", "separation": False}

    def enrol(self, token=None):
        if token is None:
            made = self.platform.admin().post("/api/v1/enrolment-tokens", {"fleet": self.fleet})
            token = made.json["token"]
        self.make_keys()
        self.enrolled = self.platform.device_client().post("/device/v1/enrol", self.enrol_body(token)).json
        self.id = self.enrolled["device_id"]
        self.cert.write_text(self.enrolled["certificate"])
        return self

    def client(self):
        return self.platform.device_client(self.cert, self.key)

    def checkin(self, client=None, expect=200, **more):
        body = {"agent_version": "0.1.0", "separation": False, **more}
        return (client or self.client()).post("/device/v1/checkin", body, expect=expect)

    def report(self, deployment, state, expect=200, seq=None, client=None, **more):
        if seq is None:
            seq = self.seq[deployment] = self.seq.get(deployment, 0) + 1
        return (client or self.client()).post(f"/device/v1/updates/{deployment}/reports",
                                              {"seq": seq, "state": state, **more}, expect=expect)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem_blocks(text):
    return ["-----BEGIN" + b for b in text.split("-----BEGIN")[1:]]


def spki_raw(block, n):
    """The last n bytes of a SubjectPublicKeyInfo are the raw key for the algorithms used here."""
    return base64.b64decode("".join(block.strip().splitlines()[1:-1]))[-n:]


def kem_public_raw(path):
    classic, pqc = pem_blocks(pathlib.Path(path).read_text())
    return spki_raw(classic, 32) + spki_raw(pqc, 1184)


def make_csr(key_path, cn):
    """A P-256 key (kept if it exists) and a certification request for it."""
    openssl = programs.openssl()
    if not pathlib.Path(key_path).exists():
        run(openssl, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key_path)
    return run(openssl, "req", "-new", "-key", key_path, "-subj", f"/CN={cn}", "-config", "/dev/null").stdout


def make_author(folder):
    """signing.priv/.pub and encryption.priv/.pub of an author."""
    cli("keygen", "--type", "signing", "--out", folder)
    cli("keygen", "--type", "encryption", "--out", folder)
    return pathlib.Path(folder)


def make_package(folder, author, name="net", files=None, recipients=(), **options):
    """Build a package from {path: bytes}; returns its path. options: model_version="2", sequence=5, not_after=…"""
    source = pathlib.Path(tempfile.mkdtemp(dir=folder))
    for path, data in (files or {"model.bin": os.urandom(200_000)}).items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    out = source.with_suffix(".tgsp")
    argv = ["build", "--input-dir", source, "--out", out, "--signing-key", author / "signing.priv",
            "--model-name", name]
    for r in recipients:
        argv += ["--recipient", r]
    for key, value in options.items():
        argv += ["--" + key.replace("_", "-"), str(value)]
    cli(*argv)
    return out


def h_of(path):
    """H of a package file: SHA-256(magic, header length, header)."""
    data = pathlib.Path(path).read_bytes()
    n = int.from_bytes(data[6:10], "big")
    return hashlib.sha256(data[:10 + n]).hexdigest()


def upload(client, path, part_size=65536, order=None, expect=201):
    """Upload a file in parts and complete it; returns the completing answer."""
    data = pathlib.Path(path).read_bytes()
    made = client.post("/api/v1/uploads", {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
                                           "part_size": part_size}).json
    for n in order or range(made["parts"]):
        part = data[n * part_size:(n + 1) * part_size]
        client.put(f"/api/v1/uploads/{made['id']}/parts/{n}", part, headers=digest_header(part))
    return client.post(f"/api/v1/uploads/{made['id']}/complete", expect=expect)


def free_socket(url):
    """A plain TCP connection to a listener."""
    u = urllib.parse.urlsplit(url)
    return socket.create_connection((u.hostname, u.port), timeout=DEADLINE)
