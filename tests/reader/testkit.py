#!/usr/bin/python3
"""The test kit of tests/vectors/testkit (its README says what a vector file holds): reading and writing vector
files, and what the independent reader makes of one.

    testkit.py unpack [FILE]...    with their parts uncompressed, to standard output, one after the other
    testkit.py run [FILE]...       what the independent reader says, one line each; default: the whole kit
"""
import hashlib
import os
import pathlib
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tgsp_policy as policy  # noqa: E402
import tgsp_reader as r  # noqa: E402

MAGIC = "tgsp-testkit 1"
FOLDER = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "testkit"


class Vector:
    def __init__(self, header, parts):
        self.header, self.parts = header, parts  # [(name, value)], {name: bytes}

    def all(self, name):
        return [v for n, v in self.header if n == name]

    def one(self, name, default=None):
        found = self.all(name)
        assert len(found) < 2, name
        return found[0] if found else default

    def number(self, name):
        text = self.one(name)
        return None if text is None else int(text)


def load(path):
    raw = pathlib.Path(path).read_bytes()
    head, _, body = raw.partition(b"\n\n")
    lines = head.decode().split("\n")
    assert lines[0] == MAGIC, path
    v = Vector([tuple(line.split(": ", 1)) for line in lines[1:]], {})
    assert v.one("compressed") == "zlib", path
    body = zlib.decompress(body)
    for part in v.all("part"):
        name, size = part.split(" ")
        v.parts[name], body = body[:int(size)], body[int(size):]
    assert not body, path
    return v


def dump(v):
    """The file's bytes. The body is one zlib stream (RFC 1950) of the parts, one after the other."""
    lines = [MAGIC, *(f"{n}: {value}" for n, value in v.header), "compressed: zlib",
             *(f"part: {name} {len(data)}" for name, data in v.parts.items())]
    return "\n".join(lines).encode() + b"\n\n" + zlib.compress(b"".join(v.parts.values()), 9)


def trust_of(v):
    if "trust-store" in v.parts:
        store = policy.TrustStore(v.parts["trust-store"])
        if "next-trust-store" in v.parts:
            following = policy.TrustStore(v.parts["next-trust-store"])
            store.may_become(following)
            store = following
        return store
    trust = r.Trust(int(v.one("threshold", "1")))
    for line in v.all("trust"):
        name, roles = line.split(" ")
        trust.add(r.read_signing_public(FOLDER / "keys" / f"{name}.pub"), roles.split(","))
    return trust


def chunks_released(p):
    """What a reader of single chunks may give out: each that passes by itself, in order."""
    out = hashlib.sha256()
    for i in range(p.chunks):
        try:
            out.update(p.chunk(i))
        except r.Refused:
            pass
    return out.hexdigest()


def run_file(v, path):
    """(class, SHA-256 of what was released, of what single chunks release or None, the error's words)."""
    nothing, chunks = hashlib.sha256().hexdigest(), None
    now = v.number("now")
    try:
        trust = trust_of(v)
        p = r.Package(path)
        p.verify(trust)
        fleet, allowed = v.one("fleet"), False
        if "deployment" in v.parts:
            d = policy.Deployment(v.parts["deployment"])
            d.check(trust, now, fleet, v.one("device"), p.h)
            allowed = d.allow_rollback
        p.admit(now, fleet, v.one("agent"))
        if "rollback-record" in v.parts:
            record = policy.Record(v.parts["rollback-record"])
            record.decide(p, trust.resets.get(p.manifest["model"]["name"], 0), allowed)
        p.unwrap(r.KemPrivateKey(FOLDER / "keys" / f"{v.one('key')}.priv"), v.parts.get("grant"), trust, now)
        chunks = chunks_released(p) if v.one("chunks-released") else None
        return "OK", hashlib.sha256(p.plaintext()).hexdigest(), chunks, ""
    except r.Refused as e:
        return e.code, nothing, chunks, str(e)


def run(v):
    with tempfile.NamedTemporaryFile(suffix=".tgsp") as f:
        f.write(v.parts["package"])
        f.flush()
        return run_file(v, f.name)


def unpacked(path):
    """A vector for readers without zlib: `vector: NAME` first, then the header lines and the plain parts."""
    v = load(path)
    lines = [f"vector: {pathlib.Path(path).stem}", *(f"{n}: {value}" for n, value in v.header if n != "compressed")]
    return "\n".join(lines).encode() + b"\n\n" + b"".join(v.parts.values())


def main():
    command, *paths = sys.argv[1:]
    for path in paths or sorted(FOLDER.glob("*.vec")):
        if command == "unpack":
            sys.stdout.buffer.write(unpacked(path))
        else:
            print(pathlib.Path(path).stem, *run(load(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
