"""A TGSP 1.0 writer for the test kit, on the independent reader's constructions: every byte follows from fixed seeds, and
each step can be bent, after which all later steps (hashes, commitment, signatures) are made for what the bent step
gave. So a package has the one fault that was asked for, signed by its author."""
import base64
import copy
import functools
import hashlib
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))
import ciphers  # noqa: E402
import tgsp_reader as r  # noqa: E402

CHUNK = 65536


def make(label, n):
    """Fixed bytes: SHA-256(label ‖ counter), as in make_constructions.py."""
    out, i = b"", 0
    while len(out) < n:
        out += hashlib.sha256(label.encode() + i.to_bytes(4, "big")).digest()
        i += 1
    return out[:n]


def b64u(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(obj):
    return json.dumps(obj, separators=(",", ":"), ensure_ascii=False)


def run(*args, **files):
    ok, out = r.openssl(*args, **files)
    assert ok, args
    return out


def private_pem(der):
    text = base64.b64encode(der)
    return b"\n".join([b"-----BEGIN PRIVATE KEY-----", *(text[i:i + 64] for i in range(0, len(text), 64)),
                       b"-----END PRIVATE KEY-----", b""])


class Key:
    """A hybrid key from its name: the classical half is PKCS#8 around a seed (RFC 8410), the other openssl's."""

    def __init__(self, name, oid_byte, pqc, seed_len, sizes):
        classic = bytes.fromhex("302e020100300506032b65" + oid_byte + "04220420") + make(name + " classic", 32)
        seed = make(name + " pqc", seed_len)
        self.private = (private_pem(classic), run("genpkey", "-algorithm", pqc, "-pkeyopt", "hexseed:" + seed.hex()))
        self.public = r.PublicKey(*(run("pkey", "-in", "@k", "-pubout", k=k) for k in self.private), sizes)
        self.raw = self.public.raw


class SigningKey(Key):
    def __init__(self, name):
        super().__init__(name, "70", "ML-DSA-65", 32, (32, 1952))
        self.id = r.signing_key_id(self.raw)

    def classic(self, message):
        return run("pkeyutl", "-sign", "-rawin", "-inkey", "@k", "-in", "@m", k=self.private[0], m=message)

    def pqc(self, message, context="TGSP-1.0"):
        return run("pkeyutl", "-sign", "-rawin", "-inkey", "@k", "-in", "@m", "-pkeyopt", "context-string:" + context,
                   "-pkeyopt", "deterministic:1", k=self.private[1], m=message)

    def entry(self, message):
        return {"key_id": b64u(self.id), "sig_classic": b64u(self.classic(message)), "sig_pqc": b64u(self.pqc(message))}


class KemKey(Key):
    def __init__(self, name):
        super().__init__(name, "6e", "ML-KEM-768", 64, (32, 1184))
        self.id = r.kem_key_id(self.raw)

    def encapsulate(self, label):
        """(ss_x, ss_m, epk, ct)"""
        esk = private_pem(bytes.fromhex("302e020100300506032b656e04220420") + make(label + " esk", 32))
        epk = run("pkey", "-in", "@k", "-pubout", "-outform", "DER", k=esk)[-32:]
        ss_x = run("pkeyutl", "-derive", "-inkey", "@k", "-peerkey", "@p", k=esk, p=self.public.pems[0])
        both = ("pkeyutl", "-encap", "-pubin", "-inkey", "@k", "-pkeyopt", "hexikme:" + make(label + " m", 32).hex())
        ct = run(*both, "-out", "@out", "-secret", "@ss", k=self.public.pems[1], ss=b"")
        ss_m = run(*both, "-out", "@ct", "-secret", "@out", k=self.public.pems[1], ct=b"")
        return ss_x, ss_m, epk, ct


@functools.lru_cache(None)
def signing_key(name):
    return SigningKey(name)


@functools.lru_cache(None)
def kem_key(name):
    return KemKey(name)


encapsulated = functools.lru_cache(None)(lambda name, label: kem_key(name).encapsulate(label))


def grant_block(key_name, label, h, aead, file_key, kek_of=None):
    """A recipient block as a grant has it."""
    key = kem_key(key_name)
    ss_x, ss_m, epk, ct = encapsulated(key_name, label)
    kek = (kek_of or r.grant_kek)(ss_x, ss_m, h, epk, ct, key.raw)
    return {"id": b64u(key.id), "x25519_epk": b64u(epk), "mlkem768_ct": b64u(ct),
            "wrapped_key": b64u(ciphers.SEAL[aead](kek, bytes(12), h, file_key))}


class Package:
    """Steps in order; `bend` maps a step's name to a function from its result to what shall stand there."""

    def __init__(self, bend=None, aead="chacha20-poly1305", files=(("a", 5),), recipients=("device",),
                 signers=("author",), zero=False):
        self.bend, self.aead, self.signers, self.zero = bend or {}, aead, signers, zero
        unknown = set(self.bend) - {
            "manifest", "manifest_text", "recipients", "recipients_text", "header", "header_text", "sealing",
            "digest", "stored", "payload", "file_key", "commitment", "block_key", "kek", "wrap_aad", "payload_key",
            "message", "entries", "signatures_text", "sections", "file", "gap", "suite"}
        assert not unknown, unknown
        self.package_id, self.salt = make("package_id", 16), make("payload_salt", 32)
        self.file_key = make("file_key", 32)
        self._payload(files)
        self._sections(recipients)
        self._assemble()

    def bent(self, step, value, *more):
        return self.bend[step](value, *more) if step in self.bend else value

    def _payload(self, files):
        self.layout, end = [], 0
        for path, size in files:
            offset = -(-end // 4096) * 4096
            self.layout.append({"path": path, "size": size, "offset": offset})
            end = offset + size
        self.plain_len, self.n = end, max(1, -(-end // CHUNK))
        seal = ciphers.SEAL[self.bent("suite", self.aead)]
        key = self.bent("payload_key", r.payload_key(self.file_key, self.salt, self.package_id, self.aead))
        chunks, self.plain = [], []
        for i in range(self.n):
            nonce, aad = self.bent("sealing", (r.chunk_nonce(i, i == self.n - 1), b""), i)
            self.plain.append(self._plain(i, min(CHUNK, end - i * CHUNK), lambda p, n=nonce: seal(key, n, b"", p)))
            chunks.append(seal(key, nonce, aad, self.plain[i]))
        self.chunks = self.bent("stored", chunks)
        self.digests = self.bent("digest", [r.chunk_digest(c) for c in self.chunks], self.chunks)
        self.payload = b"".join(self.bent("payload", list(self.chunks)))

    def _plain(self, i, size, sealed):
        if self.zero:  # a plaintext whose ciphertext is one byte repeated: large packages compress to little
            return bytes(b ^ i + 1 for b in sealed(bytes(size))[:-16])
        plain = bytearray(size)
        for k, f in enumerate(self.layout):
            for at in range(max(f["offset"], i * CHUNK), min(f["offset"] + f["size"], i * CHUNK + size)):
                plain[at - i * CHUNK] = (at * 7 + k + 1) % 256
        return bytes(self.bent("gap", plain))

    def _sections(self, recipients):
        manifest = {"model": {"name": "m", "version": "1", "sequence": 7, "format": "other"}, "files": self.layout,
                    "payload": {"chunks": self.n, "chunk_digests": b64u(b"".join(self.digests))}}
        self.manifest = self.bent("manifest_text", compact(self.bent("manifest", copy.deepcopy(manifest))))
        wrapped = self.bent("file_key", self.file_key)
        blocks = {"recipients": [self._block(name, wrapped) for name in recipients]}
        self.recipients = self.bent("recipients_text", compact(self.bent("recipients", blocks)))
        sha = [hashlib.sha256(raw(t)).digest() for t in (self.manifest, self.recipients)]
        commitment = r.key_commitment(self.file_key, self.salt, self.package_id, *sha)
        header = {"tgsp": "1.0", "package_id": b64u(self.package_id), "created_at": "2026-02-02T02:40:00Z",
                  "aead": self.aead, "kem": "x25519-ml-kem-768", "sig": "ed25519-ml-dsa-65", "hash": "sha-256",
                  "chunk_size": CHUNK, "payload_salt": b64u(self.salt), "payload_plain_len": self.plain_len,
                  "key_commitment": b64u(self.bent("commitment", commitment)), "manifest_sha256": b64u(sha[0]),
                  "recipients_sha256": b64u(sha[1]), "crit": []}
        self.header = self.bent("header_text", compact(self.bent("header", header)))

    def _block(self, name, file_key):
        key = kem_key(self.bent("block_key", name))
        ss_x, ss_m, epk, ct = encapsulated(name, "block " + name)
        make_kek = self.bent("kek", r.recipient_kek)
        kek = make_kek(ss_x, ss_m, self.package_id, epk, ct, key.raw)
        aad = self.bent("wrap_aad", self.package_id)
        return {"id": b64u(key.id), "x25519_epk": b64u(epk), "mlkem768_ct": b64u(ct),
                "wrapped_key": b64u(ciphers.SEAL[self.aead](kek, bytes(12), aad, file_key))}

    def _assemble(self):
        header = raw(self.header)
        self.h = r.sha256(r.MAGIC, struct.pack(">I", len(header)), header)
        message = self.bend.get("message", r.package_message)
        entries = [signing_key(n).entry(message(signing_key(n).id, self.h)) for n in self.signers]
        signatures = self.bent("signatures_text", compact({"signatures": self.bent("entries", entries)}))
        sections = self.bent("sections", {"header": header, "manifest": raw(self.manifest),
                                          "recipients": raw(self.recipients), "payload": self.payload,
                                          "signatures": raw(signatures)})
        self.bytes = self.bent("file", join(sections))


def raw(text):
    return text if isinstance(text, bytes) else text.encode()


def join(sections):
    out = r.MAGIC
    for name, data in sections.items():
        out += struct.pack(">Q" if name == "payload" else ">I", len(data)) + data
    return out


def split(data):
    """Where the five length fields stand: [(name, position, width, bytes of the section)]."""
    out, at = [], 6
    for name, width in (("header", 4), ("manifest", 4), ("recipients", 4), ("payload", 8), ("signatures", 4)):
        n = int.from_bytes(data[at:at + width], "big")
        out.append((name, at, width, n))
        at += width + n
    return out


def envelope(what, label, document, *signers):
    """A signed document: `document` is a dict or the bytes themselves."""
    body = document if isinstance(document, bytes) else raw(compact(document))
    entries = [signing_key(n).entry(label + b"\0" + signing_key(n).id + r.sha256(body)) for n in signers]
    return {what: b64u(body), "signatures": entries}
