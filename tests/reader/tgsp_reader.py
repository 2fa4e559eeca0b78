#!/usr/bin/python3
"""An independent reader of TGSP 1.0, written from docs/spec/tgsp-1.0.md alone.

It shares no code with the C library: Python's standard library, the ciphers beside it, and the
`openssl` command (3.5 or newer; $OPENSSL names another one) for X25519, ML-KEM-768, Ed25519 and
ML-DSA-65. It exists so that the specification, and not one program, says what a package is.

    tgsp_reader.py verify F.tgsp --trust PUB... [--threshold N] [--now T]
    tgsp_reader.py open F.tgsp --key K --trust PUB... --out-dir DIR [--grant G.tgrant] [--now T]

Exit status as in docs/cli.md: 4 malformed, 5 not authentic, 6 not for this key, 7 expired,
8 not allowed, 11 not supported.
"""
import argparse
import base64
import datetime
import functools
import hashlib
import hmac
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ciphers  # noqa: E402

EXIT = {"IO": 3, "FORMAT": 4, "AUTH": 5, "NOTFORKEY": 6, "EXPIRED": 7, "ROLLBACK": 7, "DENIED": 8,
        "UNSUPPORTED": 11}
MAGIC = b"TGSP\x01\x00"
LIMITS = {"header": 64 << 10, "manifest": 32 << 20, "recipients": 8 << 20,
          "payload": 2**42 + 2**22, "signatures": 256 << 10}
PIECE = 32 << 10


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def need(condition, code, text):
    if not condition:
        raise Refused(code, text)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf(ikm, salt, info, n=32):
    """RFC 5869 with SHA-256."""
    prk = hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()
    out, t, i = b"", b"", 1
    while len(out) < n:
        t = hmac.new(prk, t + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + t, i + 1
    return out[:n]


# ---- the constructions of the specification; tests/vectors checks both readers with them ----

def chunk_digest(stored):
    ct, tag = stored[:-16], stored[-16:]
    pieces = [hashlib.sha256(ct[i:i + PIECE]).digest() for i in range(0, len(ct), PIECE)]
    return sha256(b"TGSP-1.0 chunk", *pieces, tag)


def payload_key(file_key, salt, package_id, aead):
    return hkdf(file_key, salt, b"TGSP-1.0 payload" + package_id + aead.encode())


def key_commitment(file_key, salt, package_id, manifest_sha256, recipients_sha256):
    key = hkdf(file_key, salt, b"TGSP-1.0 commitment")
    return hmac.new(key, package_id + manifest_sha256 + recipients_sha256, hashlib.sha256).digest()


def recipient_kek(ss_x, ss_m, package_id, epk, ct, public_key):
    return hkdf(sha256(ss_x, ss_m), b"",
                b"TGSP-1.0 recipient" + package_id + epk + ct + public_key)


def grant_kek(ss_x, ss_m, h, epk, ct, public_key):
    return hkdf(sha256(ss_x, ss_m), b"", b"TGSP-1.0 grant recipient" + h + epk + ct + public_key)


def kem_key_id(public_key):
    return sha256(b"TGSP-1.0 kem key", public_key)[:16]


def signing_key_id(public_key):
    return sha256(b"TGSP-1.0 signing key", public_key)[:16]


def package_message(key_id, h):
    return b"TGSP-1.0 package signature\0" + key_id + h


def grant_message(key_id, document):
    return b"TGSP-1.0 grant\0" + key_id + sha256(document)


def deployment_message(key_id, document):
    return b"TGSP-1.0 deployment\0" + key_id + sha256(document)


def chunk_nonce(i, last):
    return i.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


# ---- openssl ----

@functools.lru_cache(maxsize=256)
def _openssl(args, files):
    """Run openssl with `@name` arguments replaced by temporary files holding files[name]; `@out`
    is read back. Returns (ok, out)."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o700)
        for name, data in files:
            with open(os.path.join(d, name), "wb") as f:
                f.write(data)
        argv = [os.path.join(d, a[1:]) if a.startswith("@") else a for a in args]
        r = subprocess.run([os.environ.get("OPENSSL", "openssl"), *argv], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        out = r.stdout
        path = os.path.join(d, "out")
        if "@out" in args:
            out = open(path, "rb").read() if os.path.exists(path) else b""
        return r.returncode == 0, out


def openssl(*args, **files):
    return _openssl(args, tuple(sorted(files.items())))


def pem_blocks(text, kind):
    return re.findall(rb"-----BEGIN (?:ENCRYPTED )?%s KEY-----.*?-----END (?:ENCRYPTED )?%s KEY-----\n?"
                      % (kind, kind), text, re.S)


class PublicKey:
    def __init__(self, classic_pem, pqc_pem, sizes):
        self.pems = (classic_pem, pqc_pem)
        raws = []
        for block, size in zip(self.pems, sizes):
            ok, der = openssl("pkey", "-pubin", "-in", "@k", "-pubout", "-outform", "DER", k=block)
            need(ok and len(der) > size, "FORMAT", "public key: not readable by openssl")
            raws.append(der[-size:])
        self.raw = b"".join(raws)


def pem(der):
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = [text[i:i + 64] for i in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN PUBLIC KEY-----", *lines, b"-----END PUBLIC KEY-----", b""])


def ed25519_usable(raw):
    """RFC 8032 §5.1.3 and §6 of the specification: y below p, on the curve, not of small order."""
    p = 2**255 - 19
    d = -121665 * pow(121666, p - 2, p) % p
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= p:
        return False
    x2 = (y * y - 1) * pow(d * y * y + 1, p - 2, p) % p
    x = pow(x2, (p + 3) // 8, p)
    if x * x % p != x2:
        x = x * pow(2, (p - 1) // 4, p) % p
    if x * x % p != x2 or (x == 0 and raw[31] >> 7):
        return False
    for _ in range(3):  # eight times the point
        k = d * x * x * y * y
        x, y = (2 * x * y * pow(1 + k, p - 2, p) % p, (y * y + x * x) * pow(1 - k, p - 2, p) % p)
    return (x, y) != (0, 1)


def signing_public(raw):
    """From the 1,984 bytes themselves (a trust store's form): a SubjectPublicKeyInfo around each half."""
    need(ed25519_usable(raw[:32]), "FORMAT", "public_key: not a usable Ed25519 key")
    return PublicKey(pem(bytes.fromhex("302a300506032b6570032100") + raw[:32]),
                     pem(bytes.fromhex("308207b2300b0609608648016503040312038207a100") + raw[32:]),
                     (32, 1952))


class Trust:
    """Whom a reader believes: keys with roles and, for authors, the model names they may sign."""

    def __init__(self, default_threshold=1):
        self.keys, self.thresholds, self.resets = {}, {}, {}
        self.default_threshold, self.change_threshold, self.version = default_threshold, 1, 0

    def add(self, key, roles=("author", "granter"), models=None):
        # No two entries share a key_id or a component key
        need(all(key.raw[:32] != k.raw[:32] and key.raw[32:] != k.raw[32:]
                 for k, _, _ in self.keys.values()), "FORMAT", "trust: a key stands twice")
        self.keys[signing_key_id(key.raw)] = (key, frozenset(roles), models)
        return self

    def may_sign(self, key_id, model):
        _, roles, models = self.keys[key_id]
        return "author" in roles and (models is None or model in models)

    def threshold(self, model):
        return self.thresholds.get(model, self.default_threshold)

    def verified(self, entries, message):
        """The key_ids that count; a trusted key's invalid signature is an error (§6)."""
        good = []
        for e in entries:
            if e["key_id"] in self.keys:
                need(signature_ok(self.keys[e["key_id"]][0], message(e["key_id"]), e), "AUTH",
                     "signatures: a trusted key's signature is invalid")
                good.append(e["key_id"])
        return good


def read_signing_public(path):
    blocks = pem_blocks(open(path, "rb").read(), b"PUBLIC")
    need(len(blocks) == 2, "FORMAT", f"{path}: must hold two public keys")
    return PublicKey(blocks[0], blocks[1], (32, 1952))


class KemPrivateKey:
    def __init__(self, path):
        blocks = pem_blocks(open(path, "rb").read(), b"PRIVATE")
        need(len(blocks) == 2, "FORMAT", f"{path}: must hold two private keys")
        self.pems = blocks
        pubs = []
        for block in blocks:
            ok, pub = openssl("pkey", "-in", "@k", "-pubout", k=block)
            need(ok, "FORMAT", f"{path}: not readable by openssl")
            pubs.append(pub)
        self.public = PublicKey(pubs[0], pubs[1], (32, 1184))

    def secrets(self, epk, ct):
        # SubjectPublicKeyInfo of X25519 (RFC 8410): a fixed prefix, then the 32 bytes
        spki = bytes.fromhex("302a300506032b656e032100") + epk
        ok, ss_x = openssl("pkeyutl", "-derive", "-inkey", "@k", "-peerkey", "@p", "-peerform",
                           "DER", k=self.pems[0], p=spki)
        need(ok and len(ss_x) == 32 and any(ss_x), "AUTH", "recipients: the X25519 share is no good")
        ok, ss_m = openssl("pkeyutl", "-decap", "-inkey", "@k", "-in", "@ct", "-secret", "@out",
                           k=self.pems[1], ct=ct)
        need(ok and len(ss_m) == 32, "AUTH", "recipients: the ML-KEM ciphertext is no good")
        return ss_x, ss_m


def signature_ok(key, message, entry):
    ed, _ = openssl("pkeyutl", "-verify", "-pubin", "-inkey", "@k", "-rawin", "-in", "@m",
                    "-sigfile", "@s", k=key.pems[0], m=message, s=entry["sig_classic"])
    ml, _ = openssl("pkeyutl", "-verify", "-pubin", "-inkey", "@k", "-rawin", "-in", "@m",
                    "-sigfile", "@s", "-pkeyopt", "context-string:TGSP-1.0",
                    k=key.pems[1], m=message, s=entry["sig_pqc"])
    return ed and ml


# ---- JSON ----

def b64(text, where, n=None):
    need(isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1,
         "FORMAT", f"{where}: must be unpadded base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text, "FORMAT",
         f"{where}: base64url is not canonical")
    need(n is None or len(raw) == n, "FORMAT", f"{where}: must be {n} bytes")
    return raw


def strict_json(raw, what):
    def no_duplicates(pairs):
        keys = [k for k, _ in pairs]
        need(len(keys) == len(set(keys)), "FORMAT", f"{what}: duplicate key")
        return dict(pairs)

    def integer(text):
        need(re.fullmatch(r"0|[1-9][0-9]*", text) and int(text) < 2**53, "FORMAT",
             f"{what}: numbers are integers 0 to 2^53-1")
        return int(text)

    def refuse(text):
        raise Refused("FORMAT", f"{what}: number {text}")

    def walk(v, depth):
        if isinstance(v, (dict, list)):
            need(depth <= 16, "FORMAT", f"{what}: nested deeper than 16")
            for x in (list(v.values()) + list(v.keys()) if isinstance(v, dict) else v):
                walk(x, depth + 1)
        elif isinstance(v, str):
            need("\0" not in v, "FORMAT", f"{what}: U+0000")
            need(not re.search("[\ud800-\udfff]", v), "FORMAT", f"{what}: lone surrogate")

    need(not raw.startswith(b"\xef\xbb\xbf"), "FORMAT", f"{what}: byte order mark")
    marks = re.sub(rb'"(?:\\.|[^"\\])*"', b"", raw, flags=re.S)
    need(len(re.findall(rb"[{\[,:]", marks)) <= 2**20, "FORMAT", f"{what}: too many values")
    try:
        v = json.loads(raw.decode("utf-8", "strict"), object_pairs_hook=no_duplicates,
                       parse_int=integer, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Refused("FORMAT", f"{what}: {e}") from None
    need(isinstance(v, dict), "FORMAT", f"{what}: not an object")
    walk(v, 1)
    return v


def field(obj, name, kind, where, lo=None, hi=None):
    need(name in obj, "FORMAT", f"{where}.{name}: is missing")
    v = obj[name]
    need(isinstance(v, kind) and not (kind is int and isinstance(v, bool)), "FORMAT",
         f"{where}.{name}: wrong type")
    size = v if kind in (int, bool) else len(v.encode()) if kind is str else len(v)
    need(lo is None or size >= lo, "FORMAT", f"{where}.{name}: too small")
    need(hi is None or size <= hi, "FORMAT", f"{where}.{name}: too large")
    return v


def parse_time(text, where):
    need(isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text),
         "FORMAT", f"{where}: not a time")
    try:
        return int(datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(
            tzinfo=datetime.timezone.utc).timestamp())
    except ValueError:
        raise Refused("FORMAT", f"{where}: not a time") from None


def signature_entries(raw_list, where):
    need(isinstance(raw_list, list) and 1 <= len(raw_list) <= 16, "FORMAT", f"{where}: 1 to 16 entries")
    entries = []
    for i, e in enumerate(raw_list):
        at = f"{where}[{i}]"
        need(isinstance(e, dict), "FORMAT", f"{at}: must be an object")
        entries.append({"key_id": b64(e.get("key_id"), at + ".key_id", 16),
                        "sig_classic": b64(e.get("sig_classic"), at + ".sig_classic", 64),
                        "sig_pqc": b64(e.get("sig_pqc"), at + ".sig_pqc", 3309)})
    ids = [e["key_id"] for e in entries]
    need(len(set(ids)) == len(ids), "FORMAT", f"{where}: a key_id is repeated")
    return entries


# Which members this page has, for `crit`: a dict goes on, None ends (nothing below has a path).
HEADER_FIELDS = dict.fromkeys(("tgsp", "package_id", "created_at", "aead", "kem", "sig", "hash",
                               "chunk_size", "payload_salt", "payload_plain_len", "key_commitment",
                               "manifest_sha256", "recipients_sha256", "crit"))
MANIFEST_FIELDS = {"model": dict.fromkeys(("name", "version", "sequence", "floor", "format", "metadata")),
                   "validity": dict.fromkeys(("not_before", "not_after")),
                   "constraints": dict.fromkeys(("fleets", "min_agent")), "files": None,
                   "payload": dict.fromkeys(("chunks", "chunk_digests")), "provenance": None}


def crit_list(j, where, roots):
    crit = field(j, "crit", list, where, 0, 16)
    for path in crit:
        need(isinstance(path, str), "FORMAT", f"{where}.crit: must hold strings")
        need(path.startswith(tuple(roots)), "UNSUPPORTED", f"{where}.crit: {path}")
        need("" not in path.split("."), "FORMAT", f"{where}.crit: {path} is not a dotted path")
    need(len(set(crit)) == len(crit), "FORMAT", f"{where}.crit: a path stands twice")
    return crit


def crit_check(crit, root, obj, known):
    for path in crit:
        if not path.startswith(root):
            continue
        at, have, understood = obj, True, known
        for name in path[len(root):].split("."):
            have = have and isinstance(at, dict) and name in at
            at = at.get(name) if isinstance(at, dict) else None
            implemented = understood is not None and name in understood
            understood = understood[name] if implemented else None
        need(have, "FORMAT", f"crit: {path} does not exist")
        need(implemented, "UNSUPPORTED", f"crit: {path} is not implemented")


def list_of(obj, name, where, lo=0, hi=None, kind=dict):
    v = field(obj, name, list, where, lo, hi)
    need(all(isinstance(x, kind) for x in v), "FORMAT", f"{where}.{name}: wrong type of entry")
    return v


def only_fields(obj, known, where):
    need(set(obj) <= set(known), "FORMAT", f"{where}: unknown field {set(obj) - set(known)}")


def string_list(obj, name, where, lo, hi, longest=256):
    v = list_of(obj, name, where, lo, hi, str)
    need(all(1 <= len(s.encode()) <= longest for s in v), "FORMAT", f"{where}.{name}: bad string")
    return v


def agent_version(text, where):
    m = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", text, re.A)
    need(m and all(int(g) < 2**31 for g in m.groups()), "FORMAT", f"{where}: not MAJOR.MINOR.PATCH")
    return tuple(map(int, m.groups()))


def check_path(path, where):
    raw = path.encode()
    need(1 <= len(raw) <= 1024 and "\\" not in path, "FORMAT", f"{where}: bad path")
    need(all(b >= 0x20 and b != 0x7F for b in raw), "FORMAT", f"{where}: control character")
    for seg in path.split("/"):
        need(seg not in ("", ".", "..") and len(seg.encode()) <= 255, "FORMAT", f"{where}: bad path")


# ---- the package ----

class Package:
    def __init__(self, path):
        self.f = open(path, "rb")
        self.size = os.fstat(self.f.fileno()).st_size
        self._lengths()

    def _at(self, off, n):
        self.f.seek(off)
        data = self.f.read(n)
        need(len(data) == n, "FORMAT", f"file: ends before offset {off + n}")
        return data

    def _lengths(self):
        """§7 step 1: each length against its limit and what is left of the file."""
        magic = self._at(0, min(6, self.size))
        need(magic[:4] == MAGIC[:4] and len(magic) == 6, "FORMAT", "magic: not a TGSP package")
        need(magic == MAGIC, "UNSUPPORTED", "magic: another version")
        self.sections, off = {}, 6
        for name in ("header", "manifest", "recipients", "payload", "signatures"):
            width = 8 if name == "payload" else 4
            need(off + width <= self.size, "FORMAT", f"{name}, offset {off}: file ends in the length")
            n = int.from_bytes(self._at(off, width), "big")
            need(n <= LIMITS[name], "FORMAT",
                 f"{name}, offset {off}: length {n} is over the limit")
            off += width
            need(n <= self.size - off, "FORMAT", f"{name}, offset {off}: file ends in the section")
            self.sections[name] = (off, n)
            off += n
        need(off == self.size, "FORMAT", f"offset {off}: bytes after the signature section")

    def raw(self, name):
        return self._at(*self.sections[name])

    def verify(self, trust):
        """§7: signatures, header, hashes, manifest, recipients, who may sign this model."""
        raw_header = self.raw("header")
        self.h = sha256(MAGIC, struct.pack(">I", len(raw_header)), raw_header)
        section = strict_json(self.raw("signatures"), "signatures")
        entries = signature_entries(section.get("signatures"), "signatures")
        good = trust.verified(entries, lambda key_id: package_message(key_id, self.h))
        need(good, "AUTH", "signatures: none by a trusted key")
        self._parse_header(raw_header)
        for name in ("manifest", "recipients"):
            need(sha256(self.raw(name)) == self.header[name + "_sha256"], "AUTH",
                 f"{name}: is not what the header's hash says")
        self._parse_manifest()
        self._parse_recipients()
        model = self.manifest["model"]["name"]
        count = sum(trust.may_sign(key_id, model) for key_id in good)
        need(count >= trust.threshold(model), "DENIED",
             f"signatures: {count} of {trust.threshold(model)} needed")

    def admit(self, now=None, fleet=None, agent=None):
        """§3: validity and constraints; None: not compared."""
        v, c = self.manifest.get("validity", {}), self.manifest.get("constraints", {})
        if now is not None:
            need("not_before" not in v or now >= parse_time(v["not_before"], "validity.not_before"),
                 "EXPIRED", "manifest.validity.not_before: not valid yet")
            need("not_after" not in v or now < parse_time(v["not_after"], "validity.not_after"),
                 "EXPIRED", "manifest.validity.not_after: expired")
        need(fleet is None or "fleets" not in c or fleet in c["fleets"], "DENIED",
             "manifest.constraints.fleets: not for this fleet")
        need(agent is None or "min_agent" not in c or agent_version(agent, "agent") >= agent_version(
            c["min_agent"], "min_agent"), "DENIED", "manifest.constraints.min_agent: a newer agent is needed")

    def _parse_header(self, raw):
        j = strict_json(raw, "header")
        for name, known in (("tgsp", ("1.0",)), ("aead", tuple(ciphers.OPEN)),
                            ("kem", ("x25519-ml-kem-768",)), ("sig", ("ed25519-ml-dsa-65",)),
                            ("hash", ("sha-256",))):
            need(field(j, name, str, "header") in known, "UNSUPPORTED", f"header.{name}: not known")
        self.header = {n: b64(j.get(n), f"header.{n}", k) for n, k in (
            ("package_id", 16), ("payload_salt", 32), ("key_commitment", 32),
            ("manifest_sha256", 32), ("recipients_sha256", 32))}
        parse_time(j.get("created_at"), "header.created_at")
        self.aead = j["aead"]
        c = self.chunk_size = field(j, "chunk_size", int, "header")
        need(64 << 10 <= c <= 16 << 20 and c & (c - 1) == 0, "FORMAT", "header.chunk_size")
        self.plain_len = field(j, "payload_plain_len", int, "header")
        self.chunks = max(1, -(-self.plain_len // c))
        need(self.chunks <= 2**18, "FORMAT", "header: too many chunks")
        need(self.sections["payload"][1] == self.plain_len + 16 * self.chunks, "FORMAT",
             "payload: length is not what the header says")
        self.crit = crit_list(j, "header", ("header.", "manifest."))
        crit_check(self.crit, "header.", j, HEADER_FIELDS)

    def _parse_manifest(self):
        j = self.manifest = strict_json(self.raw("manifest"), "manifest")
        crit_check(self.crit, "manifest.", j, MANIFEST_FIELDS)
        model = field(j, "model", dict, "manifest")
        field(model, "name", str, "model", 1, 256)
        field(model, "version", str, "model", None, 128)
        if "metadata" in model:
            need(all(isinstance(v, str) for v in field(model, "metadata", dict, "model", None, 256).values()),
                 "FORMAT", "model.metadata: must hold strings")
        seq = field(model, "sequence", int, "model")
        if "floor" in model:
            need(field(model, "floor", int, "model") <= seq, "FORMAT", "model.floor: above sequence")
        need(field(model, "format", str, "model") in
             ("onnx", "safetensors", "pytorch", "savedmodel", "tflite", "other"), "FORMAT",
             "model.format: not known")
        for name, known in (("validity", {"not_before", "not_after"}),
                            ("constraints", {"fleets", "min_agent"})):
            if name in j:
                only_fields(field(j, name, dict, "manifest"), known, f"manifest.{name}")
        for name in j.get("validity", {}):
            parse_time(j["validity"][name], f"validity.{name}")
        constraints = j.get("constraints", {})
        if "fleets" in constraints:
            string_list(constraints, "fleets", "constraints", 1, 64)
        if "min_agent" in constraints:
            agent_version(field(constraints, "min_agent", str, "constraints"), "constraints.min_agent")
        need(isinstance(j.get("provenance", {}), dict), "FORMAT", "manifest.provenance: not an object")
        payload = field(j, "payload", dict, "manifest")
        need(field(payload, "chunks", int, "payload") == self.chunks, "FORMAT", "payload.chunks")
        self.digests = b64(payload.get("chunk_digests"), "payload.chunk_digests", 32 * self.chunks)
        end, before, seen = 0, None, set()
        for i, f in enumerate(field(j, "files", list, "manifest", 0, 65536)):
            at = f"files[{i}]"
            need(isinstance(f, dict), "FORMAT", at)
            path = field(f, "path", str, at)
            check_path(path, at)
            need(before is None or path.encode() > before, "FORMAT", f"{at}: not in ascending order")
            before = path.encode()
            low = "".join(c.lower() if "A" <= c <= "Z" else c for c in path)
            parts = low.split("/")
            dirs = {("d", "/".join(parts[:k])) for k in range(1, len(parts))}
            need(("f", low) not in seen and ("d", low) not in seen and
                 not any(("f", d) in seen for _, d in dirs), "FORMAT", f"{at}: paths collide")
            seen |= dirs | {("f", low)}
            need(field(f, "offset", int, at) == -(-end // 4096) * 4096, "FORMAT", f"{at}.offset")
            end = f["offset"] + field(f, "size", int, at)
        need(end == self.plain_len, "FORMAT", "manifest.files: do not end where the payload does")

    def _parse_recipients(self):
        j = strict_json(self.raw("recipients"), "recipients")
        self.recipients = [recipient_block(r, f"recipients[{i}]")
                           for i, r in enumerate(field(j, "recipients", list, "recipients", 1))]
        ids = [r["id"] for r in self.recipients]
        need(len(set(ids)) == len(ids), "FORMAT", "recipients: an id is repeated")

    def unwrap(self, key, grant=None, trust=None, now=None):
        own = kem_key_id(key.public.raw)
        pid = self.header["package_id"]
        if grant is not None:
            block = self._grant_block(grant, own, trust, now)
            kek = grant_kek(*key.secrets(block["x25519_epk"], block["mlkem768_ct"]), self.h,
                            block["x25519_epk"], block["mlkem768_ct"], key.public.raw)
            aad = self.h
        else:
            block = next((r for r in self.recipients if r["id"] == own), None)
            need(block is not None, "NOTFORKEY", "recipients: no block for this key")
            kek = recipient_kek(*key.secrets(block["x25519_epk"], block["mlkem768_ct"]), pid,
                                block["x25519_epk"], block["mlkem768_ct"], key.public.raw)
            aad = pid
        try:
            file_key = ciphers.OPEN[self.aead](kek, bytes(12), aad, block["wrapped_key"])
        except ciphers.TagError:
            raise Refused("AUTH", "recipients: wrapped_key does not open") from None
        need(key_commitment(file_key, self.header["payload_salt"], pid,
                            self.header["manifest_sha256"], self.header["recipients_sha256"])
             == self.header["key_commitment"], "AUTH", "header.key_commitment: another file key")
        self.key = payload_key(file_key, self.header["payload_salt"], pid, self.aead)

    def _grant_block(self, raw, own, trust, now):
        document, entries = signed_document(raw, "grant")
        good = trust.verified(entries, lambda key_id: grant_message(key_id, document))
        g = strict_json(document, "grant")
        need(field(g, "tgsp_grant", str, "grant") == "1.0", "UNSUPPORTED", "grant.tgsp_grant: not known")
        block = recipient_block(g.get("recipient"), "grant.recipient")
        times = [parse_time(g.get(n), f"grant.{n}") for n in ("issued_at", "not_before", "not_after")]
        h = b64(g.get("header_sha256"), "grant.header_sha256", 32)
        package_id = b64(g.get("package_id"), "grant.package_id", 16)
        known = dict.fromkeys(("tgsp_grant", "package_id", "header_sha256", "issued_at", "not_before",
                               "not_after", "crit"), None)
        known["recipient"] = dict.fromkeys(block)
        crit_check(crit_list(g, "grant", ("grant.",)), "grant.", g, known)
        need(good, "AUTH", "grant: not by a trusted key")
        need(any("granter" in trust.keys[key_id][1] for key_id in good), "DENIED",
             "grant: signed by a trusted key without the role granter")
        need(h == self.h and package_id == self.header["package_id"], "DENIED",
             "grant: is for another package")
        need(now is None or times[1] <= now < times[2], "EXPIRED", "grant: not valid now")
        need(block["id"] == own, "NOTFORKEY", "grant: is for another key")
        return block

    def stored_chunk(self, i):
        size = min(self.chunk_size, self.plain_len - i * self.chunk_size) + 16
        stored = self._at(self.sections["payload"][0] + i * (self.chunk_size + 16), size)
        need(chunk_digest(stored) == self.digests[32 * i:32 * i + 32], "AUTH",
             f"payload: chunk {i} is not what the manifest's digest says")
        return stored

    def chunk(self, i):
        stored = self.stored_chunk(i)
        try:
            return ciphers.OPEN[self.aead](self.key, chunk_nonce(i, i == self.chunks - 1), b"", stored)
        except ciphers.TagError:
            raise Refused("AUTH", f"payload: chunk {i} does not open") from None

    def plaintext(self):
        plain = b"".join(self.chunk(i) for i in range(self.chunks))
        end = 0
        for f in self.manifest["files"]:
            need(not any(plain[end:f["offset"]]), "FORMAT", "payload: a gap between files is not zero")
            end = f["offset"] + f["size"]
        return plain


def recipient_block(r, where):
    need(isinstance(r, dict), "FORMAT", f"{where}: must be an object")
    return {n: b64(r.get(n), f"{where}.{n}", k) for n, k in (
        ("id", 16), ("x25519_epk", 32), ("mlkem768_ct", 1088), ("wrapped_key", 48))}


def signed_document(raw, what, most=1, limit=64 << 10):
    """The envelope of grants, deployments and trust stores: the exact bytes and who signed them."""
    need(len(raw) <= limit, "FORMAT", f"{what}: over {limit} bytes")
    outer = strict_json(raw, what)
    document = b64(outer.get(what), f"{what}.{what}")
    listed = outer.get("signatures")
    need(isinstance(listed, list) and len(listed) <= most, "FORMAT", f"{what}.signatures: how many")
    if not listed and most > 1:  # a first trust store may be unsigned
        return document, []
    return document, signature_entries(listed, f"{what}.signatures")


def open_package(args, trust, now):
    p = Package(args.file)
    p.verify(trust)
    p.admit(now)
    if args.command == "verify":
        for i in range(p.chunks):
            p.stored_chunk(i)
        return p
    p.unwrap(KemPrivateKey(args.key), open(args.grant, "rb").read() if args.grant else None,
             trust, now)
    plain = p.plaintext()
    os.mkdir(args.out_dir)
    for f in p.manifest["files"]:
        path = os.path.join(args.out_dir, *f["path"].split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as out:
            out.write(plain[f["offset"]:f["offset"] + f["size"]])
    return p


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    a.add_argument("command", choices=["verify", "open"])
    a.add_argument("file")
    a.add_argument("--trust", action="append", required=True)
    a.add_argument("--threshold", type=int, default=1)
    a.add_argument("--key")
    a.add_argument("--grant")
    a.add_argument("--out-dir")
    a.add_argument("--now", type=int, default=int(datetime.datetime.now().timestamp()))
    args = a.parse_args()
    if args.command == "open" and not (args.key and args.out_dir):
        a.error("open needs --key and --out-dir")
    try:
        trust = Trust(args.threshold)
        for path in args.trust:
            trust.add(read_signing_public(path))
        p = open_package(args, trust, args.now)
    except Refused as e:
        print(f"{args.file}: {e.code}: {e}", file=sys.stderr)
        return EXIT[e.code]
    except OSError as e:
        print(f"{args.file}: IO: {e}", file=sys.stderr)
        return EXIT["IO"]
    print(json.dumps({"header_sha256": p.h.hex(), "model": p.manifest["model"]["name"],
                      "files": len(p.manifest["files"]), "chunks": p.chunks}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
