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

EXIT = {"IO": 3, "FORMAT": 4, "AUTH": 5, "NOTFORKEY": 6, "EXPIRED": 7, "DENIED": 8,
        "LIMIT": 4, "UNSUPPORTED": 11}
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

def openssl(*args, **files):
    """Run openssl with `@name` arguments replaced by temporary files holding files[name]; `@out`
    is read back. Returns (ok, out)."""
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o700)
        for name, data in files.items():
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


def pem_blocks(text, kind):
    return re.findall(rb"-----BEGIN (?:ENCRYPTED )?%s KEY-----.*?-----END (?:ENCRYPTED )?%s KEY-----\n?"
                      % (kind, kind), text, re.S)


class PublicKey:
    def __init__(self, classic_pem, pqc_pem, sizes):
        self.pems = (classic_pem, pqc_pem)
        raws = []
        for pem, size in zip(self.pems, sizes):
            ok, der = openssl("pkey", "-pubin", "-in", "@k", "-pubout", "-outform", "DER", k=pem)
            need(ok and len(der) > size, "FORMAT", "public key: not readable by openssl")
            raws.append(der[-size:])
        self.raw = b"".join(raws)


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
        for pem in blocks:
            ok, pub = openssl("pkey", "-in", "@k", "-pubout", k=pem)
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
    size = v if kind is int else len(v.encode()) if kind is str else len(v)
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
        need(self._at(0, min(6, self.size)) == MAGIC, "FORMAT", "magic: not a TGSP 1.0 package")
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

    def verify(self, trusted, threshold=1, now=None):
        """§7: signatures, header, hashes, manifest, recipients, validity."""
        raw_header = self.raw("header")
        self.h = sha256(MAGIC, struct.pack(">I", len(raw_header)), raw_header)
        section = strict_json(self.raw("signatures"), "signatures")
        entries = signature_entries(section.get("signatures"), "signatures")
        keys = {signing_key_id(k.raw): k for k in trusted}
        good = 0
        for e in entries:
            if e["key_id"] in keys:
                need(signature_ok(keys[e["key_id"]], package_message(e["key_id"], self.h), e),
                     "AUTH", "signatures: a trusted key's signature is invalid")
                good += 1
        need(good > 0, "AUTH", "signatures: none by a trusted key")
        self._parse_header(raw_header)
        for name in ("manifest", "recipients"):
            need(sha256(self.raw(name)) == self.header[name + "_sha256"], "AUTH",
                 f"{name}: is not what the header's hash says")
        self._parse_manifest()
        self._parse_recipients()
        need(good >= threshold, "DENIED", f"signatures: {good} of {threshold} needed")
        v = self.manifest.get("validity", {})
        if now is not None:
            need("not_before" not in v or now >= parse_time(v["not_before"], "validity.not_before"),
                 "EXPIRED", "manifest.validity: not valid yet")
            need("not_after" not in v or now < parse_time(v["not_after"], "validity.not_after"),
                 "EXPIRED", "manifest.validity: expired")

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
        crit = field(j, "crit", list, "header", 0, 16)
        need(not crit, "UNSUPPORTED", f"header.crit: {crit} is not implemented")

    def _parse_manifest(self):
        j = self.manifest = strict_json(self.raw("manifest"), "manifest")
        model = field(j, "model", dict, "manifest")
        field(model, "name", str, "model", 1, 256)
        field(model, "version", str, "model", None, 128)
        seq = field(model, "sequence", int, "model")
        if "floor" in model:
            need(field(model, "floor", int, "model") <= seq, "FORMAT", "model.floor: above sequence")
        need(field(model, "format", str, "model") in
             ("onnx", "safetensors", "pytorch", "savedmodel", "tflite", "other"), "FORMAT",
             "model.format: not known")
        for name, known in (("validity", {"not_before", "not_after"}),
                            ("constraints", {"fleets", "min_agent"})):
            if name in j:
                need(isinstance(j[name], dict) and set(j[name]) <= known, "FORMAT",
                     f"manifest.{name}: unknown field")
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

    def unwrap(self, key, grant=None, trusted=(), now=None):
        own = kem_key_id(key.public.raw)
        pid = self.header["package_id"]
        if grant is not None:
            block = self._grant_block(grant, own, trusted, now)
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

    def _grant_block(self, raw, own, trusted, now):
        outer = strict_json(raw, "grant")
        document = b64(outer.get("grant"), "grant.grant")
        keys = {signing_key_id(k.raw): k for k in trusted}
        entry, = signature_entries(outer.get("signatures"), "grant.signatures")
        need(entry["key_id"] in keys, "AUTH", "grant: not by a trusted key")
        need(signature_ok(keys[entry["key_id"]], grant_message(entry["key_id"], document), entry),
             "AUTH", "grant: the signature is invalid")
        g = strict_json(document, "grant")
        need(g.get("tgsp_grant") == "1.0" and not g.get("crit"), "UNSUPPORTED", "grant: version or crit")
        need(b64(g.get("header_sha256"), "grant.header_sha256", 32) == self.h and
             b64(g.get("package_id"), "grant.package_id", 16) == self.header["package_id"],
             "DENIED", "grant: is for another package")
        if now is not None:
            need(parse_time(g["not_before"], "grant.not_before") <= now
                 < parse_time(g["not_after"], "grant.not_after"), "EXPIRED", "grant: not valid now")
        block = recipient_block(g.get("recipient"), "grant.recipient")
        need(block["id"] == own, "NOTFORKEY", "grant: is for another key")
        return block

    def chunk(self, i):
        size = min(self.chunk_size, self.plain_len - i * self.chunk_size) + 16
        stored = self._at(self.sections["payload"][0] + i * (self.chunk_size + 16), size)
        need(chunk_digest(stored) == self.digests[32 * i:32 * i + 32], "AUTH",
             f"payload: chunk {i} is not what the manifest's digest says")
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


def open_package(args, trusted, now):
    p = Package(args.file)
    p.verify(trusted, args.threshold, now)
    if args.command == "verify":
        for i in range(p.chunks):
            size = min(p.chunk_size, p.plain_len - i * p.chunk_size) + 16
            stored = p._at(p.sections["payload"][0] + i * (p.chunk_size + 16), size)
            need(chunk_digest(stored) == p.digests[32 * i:32 * i + 32], "AUTH",
                 f"payload: chunk {i} is not what the manifest's digest says")
        return p
    p.unwrap(KemPrivateKey(args.key), open(args.grant, "rb").read() if args.grant else None,
             trusted, now)
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
        p = open_package(args, [read_signing_public(t) for t in args.trust], args.now)
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
