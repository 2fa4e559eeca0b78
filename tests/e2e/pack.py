"""What the tests of whole programs share: running them, models to pack, keys, forged packages."""
import base64
import functools
import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import zipfile

import programs

sys.path.insert(0, str(programs.ROOT / "tests" / "reader"))
import tgsp_reader  # noqa: E402

# docs/cli.md; tests/meta/test_exit.py holds the two and the program's own table together
EXIT = {"OK": 0, "USAGE": 2, "IO": 3, "NOTFOUND": 3, "EXISTS": 3, "CLOSED": 3, "TIMEOUT": 3, "FORMAT": 4, "AUTH": 5, "NOTFORKEY": 6,
        "EXPIRED": 7, "ROLLBACK": 7, "DENIED": 8, "STATE": 9, "AGAIN": 9, "LIMIT": 10, "UNSUPPORTED": 11, "NOMEM": 12, "INTERNAL": 70}
MAGIC = b"TGSP\x01\x00"


class Result:
    def __init__(self, argv, done):
        self.argv, self.rc = argv, done.returncode
        self.out, self.err = done.stdout, done.stderr

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"{' '.join(self.argv)}\n-> {self.rc}\n{self.out}\n{self.err}"


def run(*args, rc=0, cwd=None, env=None, timeout=60, **more):
    """tensorguard ARGS; the exit status must be rc (a number, a name of EXIT, or None for any)."""
    argv = [programs.path("tensorguard"), *map(str, args)]
    done = subprocess.run(argv, cwd=cwd, env=env, timeout=timeout, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True, errors="surrogateescape", check=False, **more)
    result = Result(argv, done)
    if rc is not None:
        assert result.rc == EXIT.get(rc, rc), repr(result)
    return result


def openssl(*args, **more):
    return subprocess.run([programs.openssl(), *map(str, args)], capture_output=True, stdin=subprocess.DEVNULL,
                          check=False, **more)


os.environ["OPENSSL"] = programs.openssl()  # for the independent reader


def reader(*args):
    """The independent reader of tests/reader."""
    argv = [sys.executable, str(programs.ROOT / "tests" / "reader" / "tgsp_reader.py"), *map(str, args)]
    return Result(argv, subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False))


class Author:
    """Someone with a signing and an encryption key pair in a folder."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        run("keygen", "--type", "signing", "--out", self.dir)
        run("keygen", "--type", "encryption", "--out", self.dir)
        self.sign, self.pub = self.dir / "signing.priv", self.dir / "signing.pub"
        self.key, self.key_pub = self.dir / "encryption.priv", self.dir / "encryption.pub"

    @functools.cached_property
    def key_id(self):
        return tgsp_reader.signing_key_id(tgsp_reader.read_signing_public(str(self.pub)).raw)

    def signature(self, message):
        """One entry's two halves, made by openssl."""
        ed, ml = tgsp_reader.pem_blocks(self.sign.read_bytes(), b"PRIVATE")
        ok, classic = tgsp_reader.openssl("pkeyutl", "-sign", "-inkey", "@k", "-rawin", "-in", "@m",
                                          "-out", "@out", k=ed, m=message)
        assert ok and len(classic) == 64
        ok, pqc = tgsp_reader.openssl("pkeyutl", "-sign", "-inkey", "@k", "-rawin", "-in", "@m", "-out", "@out",
                                      "-pkeyopt", "context-string:TGSP-1.0", k=ml, m=message)
        assert ok and len(pqc) == 3309
        return classic, pqc


def build(author, model, out, *args, **more):
    return run("build", "--input-dir", model, "--out", out, "--signing-key", author.sign, "--model-name", "m",
               "--json", *args, **more)


def tree(folder):
    """Relative path -> contents of every file beneath a folder."""
    folder = os.fsencode(folder)
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            found[os.path.relpath(path, folder)] = open(path, "rb").read()
    return found


def write(path, data=b"x"):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---- the smallest real example of each format ----

ONNX = bytes([0x08, 8, 0x12, 1, ord("t"), 0x42, 2, 0x10, 17, 0x3A, 3, 0x12, 1, ord("g")])
SAVED_MODEL = bytes([0x08, 1, 0x12, 2, 0x0A, 0])
TFLITE = struct.pack("<I", 28) + b"TFL3" + bytes(20) + struct.pack("<HH", 4, 4)


def safetensors():
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return struct.pack("<Q", len(header)) + header + bytes(8)


def pytorch(path):
    with zipfile.ZipFile(path, "w") as z:
        for name, data in ("data.pkl", b"\x80\x02}."), ("byteorder", b"little"), ("data/0", b"1234"), ("version", b"3\n"):
            z.writestr("m/" + name, data)


# ---- packages taken apart and put together ----

def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Parts:
    """A package as its sections, to be changed and written again."""
    NAMES = ("header", "manifest", "recipients", "payload", "signatures")

    def __init__(self, path):
        p = tgsp_reader.Package(str(path))
        self.raw = {name: p.raw(name) for name in self.NAMES}
        self.at = dict(p.sections)

    def json(self, name):
        return json.loads(self.raw[name])

    def set(self, name, value):
        self.raw[name] = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self

    def rehash(self):
        """Make the header tell the truth about manifest and recipients again."""
        header = self.json("header")
        for name in ("manifest", "recipients"):
            header[name + "_sha256"] = b64(hashlib.sha256(self.raw[name]).digest())
        return self.set("header", header)

    @property
    def h(self):
        return hashlib.sha256(MAGIC + struct.pack(">I", len(self.raw["header"])) + self.raw["header"]).digest()

    def sign(self, *authors):
        entries = []
        for a in authors:
            classic, pqc = a.signature(tgsp_reader.package_message(a.key_id, self.h))
            entries.append({"key_id": b64(a.key_id), "sig_classic": b64(classic), "sig_pqc": b64(pqc)})
        return self.set("signatures", {"signatures": entries})

    def bytes(self):
        out = MAGIC
        for name in self.NAMES:
            out += struct.pack(">Q" if name == "payload" else ">I", len(self.raw[name])) + self.raw[name]
        return out

    def write(self, path):
        return write(path, self.bytes())

    def borders(self):
        """Offsets where a section's length or its bytes begin or end."""
        at = {0, 6}
        for name in self.NAMES:
            off, n = self.at[name]
            at |= {off - (8 if name == "payload" else 4), off, off + n}
        return sorted(at)
