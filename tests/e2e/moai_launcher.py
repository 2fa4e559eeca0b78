"""Starts a real tensorguard-moai worker the way an agent does: with descriptors, never paths."""
import ast
import hashlib
import http.client
import json
import os
import resource
import select
import socket
import struct
import subprocess

import programs
import tg

KIT = str(programs.BUILD / "tests" / "unit" / "moai" / "moai_kit")
EXAMPLE = programs.ROOT / "examples" / "perception-net"
MODEL = "perception-net"


def kit(*args):
    """Run the kit; every argument becomes text."""
    subprocess.run([KIT, *map(str, args)], check=True, timeout=120)


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Listener:
    """What the agent makes and keeps: a Unix socket, and where asked loopback TCP with a token."""

    def __init__(self, folder, tcp=False):
        self.path = str(folder / "predict.sock")
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(self.path)
        self.unix.listen(128)
        self.sockets = [self.unix]
        self.token = None
        if tcp:
            self.tcp = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.port = self.tcp.getsockname()[1]
            self.token = "a-token-of-the-test"
            self.sockets.append(self.tcp)

    def close(self):
        for s in self.sockets:
            s.close()


class Native:
    """The native socket, as the agent makes and keeps it."""

    def __init__(self, folder):
        self.path = str(folder / "native.sock")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(self.path)
        self.socket.listen(128)
        self.socket.setblocking(False)

    def close(self):
        self.socket.close()


class Worker:
    def __init__(self, kit_dir, package, listener=None, **how):
        """how: grant, deployment, trust, key, rollback (paths); fleet, device_id, threads, user, protection (options);
        before (list of words put before the command), memlock (bytes), preexec, token_text."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = {
            "package": package,
            "trust": how.get("trust", kit_dir / "store.tgtrust"),
            "key": how.get("key", kit_dir / "device.priv"),
            "rollback": how.get("rollback", kit_dir / "empty.rollback"),
            "grant": how.get("grant"),
            "deployment": how.get("deployment"),
            "bake-in": how.get("bake_in"),
        }
        fds, argv = [theirs.fileno()], ["--control-fd", str(theirs.fileno())]
        opened = []
        for name, path in files.items():
            if path is None:
                continue
            fd = os.open(path, os.O_RDONLY)
            opened.append(fd)
            argv += [f"--{name}-fd", str(fd)]
        if "native" in how:  # a Native
            fds.append(how["native"].socket.fileno())
            argv += ["--native-fd", str(how["native"].socket.fileno())]
        if "bake_out" in how:
            fd = os.open(how["bake_out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            opened.append(fd)
            argv += ["--bake-out-fd", str(fd)]
        for s in listener.sockets if listener else []:
            fds.append(s.fileno())
            argv += ["--listen-fd", str(s.fileno())]
        if not listener:
            self.own = socket.socket(socket.AF_UNIX)
            self.own.bind(f"\0moai-test-{os.getpid()}-{id(self)}")
            self.own.listen(1)
            fds.append(self.own.fileno())
            argv += ["--listen-fd", str(self.own.fileno())]
        token = how.get("token_text")
        if token is None and listener and listener.token and not how.get("no_token"):
            token = hashlib.sha256(listener.token.encode()).hexdigest()
        if token is not None:
            fd = os.memfd_create("token")
            os.write(fd, token.encode())
            opened.append(fd)
            argv += ["--token-fd", str(fd)]
        for uid in how.get("takers", []):
            argv += ["--handover-uid", str(uid)]
        argv += ["--fleet", how.get("fleet", "F"), "--device-id", how.get("device_id", "D")]
        how.setdefault("protection", programs.protection())
        for option in ("threads", "user", "protection", "native_spin_us", "memory_max"):
            if option in how:
                argv += [f"--{option.replace('_', '-')}", str(how[option])]

        def limits():
            if "memlock" in how:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (how["memlock"], how["memlock"]))
            if "preexec" in how:
                how["preexec"]()

        self.log_path = kit_dir / f"worker-{id(self)}.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*how.get("before", []), programs.path("tensorguard-moai"), "worker", *argv],
                pass_fds=fds + opened, stderr=log, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                preexec_fn=limits, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
        theirs.close()
        for fd in opened:
            os.close(fd)
        self.listener = listener
        self.messages = []

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text()

    def receive(self, timeout=60):
        """The next message; None when the channel closed."""
        ready, _, _ = select.select([self.control], [], [], timeout)
        assert ready, f"no message within {timeout} s; log:\n{self.log()}"
        try:
            data = self.control.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            return None
        self.messages.append(json.loads(data))
        return self.messages[-1]

    def outcome(self, timeout=60):
        """Read until healthy, failed or the end; returns that message."""
        while True:
            message = self.receive(timeout)
            if message is None or message["event"] in ("healthy", "failed"):
                return message

    def healthy(self, timeout=60):
        message = self.outcome(timeout)
        assert message and message["event"] == "healthy", f"{message}\n{self.log()}"
        return message

    def failed(self):
        """(code, reason, exit status) of a worker that must refuse."""
        message = self.outcome()
        assert message and message["event"] == "failed", f"{message}\n{self.log()}"
        return message["code"], message["reason"], self.wait()

    def tell(self, command):
        self.control.send(json.dumps({"command": command}).encode())

    def serve(self, timeout=60):
        """timeout: of each message until it is healthy, in seconds."""
        self.healthy(timeout)
        self.tell("serve")
        assert self.receive() == {"event": "serving"}
        return self

    def settled(self):
        """What only loading needed has been given back."""
        tg.wait_for("moai.settled", lambda: "moai.settled" in self.log())
        return self

    def wait(self, timeout=60):
        return self.process.wait(timeout)

    def stop(self):
        self.control.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, headers, body)"""
        c = connection or Unix(self.listener.path)
        c.request(method, path, body=body, headers=headers or {})
        r = c.getresponse()
        answer = r.status, dict(r.getheaders()), r.read()
        if connection is None:
            c.close()
        return answer

    def metrics(self):
        """What /metrics counts, by name."""
        text = self.ask("GET", "/metrics")[2].decode()
        return {line.split("{")[0]: int(line.split()[-1]) for line in text.splitlines() if not line.startswith("#")}

    def infer(self, body, headers=None, model=MODEL, connection=None):
        if isinstance(body, dict):
            body = json.dumps(body)
        return self.ask("POST", f"/v2/models/{model}/infer", body, headers, connection)


# ---- arrays without NumPy: (dtype code, shape, flat list) ----

CODES = {"<f4": "f", "<f8": "d", "<i8": "q", "<i4": "i", "|u1": "B", "|b1": "?"}


def npy_load(path):
    data = open(path, "rb").read()
    assert data[:6] == b"\x93NUMPY" and data[6] == 1
    (n,) = struct.unpack("<H", data[8:10])
    head = ast.literal_eval(data[10:10 + n].decode())
    code = CODES[head["descr"]]
    body = data[10 + n:]
    return head["descr"], head["shape"], list(struct.unpack(f"<{len(body) // struct.calcsize(code)}{code}", body))


def npy_save(path, descr, shape, values):
    head = str({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
        f.write(struct.pack(f"<{len(values)}{CODES[descr]}", *values))


def heldout():
    """Held-out images and PyTorch's logits for them, of model_v1: (images, logits), each a list of lists."""
    _, shape, flat = npy_load(EXAMPLE / "heldout" / "images.npy")
    size = len(flat) // shape[0]
    images = [flat[i * size:(i + 1) * size] for i in range(shape[0])]
    _, lshape, lflat = npy_load(EXAMPLE / "heldout" / "logits_v1.npy")
    logits = [lflat[i * lshape[1]:(i + 1) * lshape[1]] for i in range(lshape[0])]
    return list(shape[1:]), images, logits


def json_request(shape, images, **extra):
    return {"inputs": [{"name": "input", "shape": [len(images), *shape], "datatype": "FP32",
                        "data": [v for image in images for v in image]}], **extra}


def binary_request(shape, images, **extra):
    """(body, headers)"""
    raw = b"".join(struct.pack(f"<{len(image)}f", *image) for image in images)
    head = json.dumps({"inputs": [{"name": "input", "shape": [len(images), *shape], "datatype": "FP32",
                                   "parameters": {"binary_data_size": len(raw)}}], **extra}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


def close_to(got, want, tolerance=1e-4):
    return len(got) == len(want) and all(abs(a - b) <= tolerance + tolerance * abs(b) for a, b in zip(got, want))
