#!/usr/bin/python3
"""Fixed vectors for every construction of docs/spec/tgsp-1.0.md, computed by the independent reader
(hashlib and hmac alone) from inputs made by a counter, so that anyone can make them again:

    input(label, n) = the first n bytes of SHA-256(label ‖ 00000000) ‖ SHA-256(label ‖ 00000001) ‖ …

Writes constructions.txt beside itself: `name = hex` lines, inputs first. The C library is held to them by
tests/unit/tgsp; a second implementation can be, too."""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))
import ciphers  # noqa: E402
import tgsp_reader as r  # noqa: E402


def make(label, n):
    out, i = b"", 0
    while len(out) < n:
        out += hashlib.sha256(label.encode() + i.to_bytes(4, "big")).digest()
        i += 1
    return out[:n]


def main():
    sizes = {"file_key": 32, "payload_salt": 32, "package_id": 16, "manifest_sha256": 32,
             "recipients_sha256": 32, "ss_x25519": 32, "ss_mlkem768": 32, "x25519_epk": 32,
             "mlkem768_ct": 1088, "kem_public_key": 1216, "signing_public_key": 1984,
             "header_sha256": 32, "document": 300}
    v = {name: make(name, n) for name, n in sizes.items()}
    out = {}
    for aead in ciphers.SEAL:
        tag = aead.replace("-", "_")
        out["payload_key." + tag] = r.payload_key(v["file_key"], v["payload_salt"], v["package_id"], aead)
    out["key_commitment"] = r.key_commitment(v["file_key"], v["payload_salt"], v["package_id"],
                                             v["manifest_sha256"], v["recipients_sha256"])
    out["hybrid_secret"] = r.sha256(v["ss_x25519"], v["ss_mlkem768"])
    out["recipient_kek"] = r.recipient_kek(v["ss_x25519"], v["ss_mlkem768"], v["package_id"],
                                           v["x25519_epk"], v["mlkem768_ct"], v["kem_public_key"])
    out["grant_kek"] = r.grant_kek(v["ss_x25519"], v["ss_mlkem768"], v["header_sha256"],
                                   v["x25519_epk"], v["mlkem768_ct"], v["kem_public_key"])
    for aead, seal in ciphers.SEAL.items():
        tag = aead.replace("-", "_")
        out["recipient_wrapped_key." + tag] = seal(out["recipient_kek"], bytes(12), v["package_id"],
                                                   v["file_key"])
        out["grant_wrapped_key." + tag] = seal(out["grant_kek"], bytes(12), v["header_sha256"],
                                               v["file_key"])
    out["kem_key_id"] = r.kem_key_id(v["kem_public_key"])
    out["signing_key_id"] = r.signing_key_id(v["signing_public_key"])
    out["package_message"] = r.package_message(out["signing_key_id"], v["header_sha256"])
    out["grant_message"] = r.grant_message(out["signing_key_id"], v["document"])
    out["deployment_message"] = r.deployment_message(out["signing_key_id"], v["document"])
    for aead, seal in ciphers.SEAL.items():
        tag = aead.replace("-", "_")
        key = out["payload_key." + tag]
        out["chunk_empty_last." + tag] = seal(key, r.chunk_nonce(0, True), b"", b"")
        out["chunk_5_not_last." + tag] = seal(key, r.chunk_nonce(5, False), b"", make("chunk", 100))
    # the digest over two and a bit pieces: 65,536 + 1,000 bytes of ciphertext, then the tag
    for name, n in (("empty", 0), ("one_piece", 32768), ("three_pieces", 66536)):
        out["chunk_digest." + name] = r.chunk_digest(make("ciphertext", n) + make("tag", 16))
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "constructions.txt"), "w", encoding="ascii") as f:
        f.write("# Made by make_constructions.py; its first lines say how inputs are made.\n")
        for name, value in v.items():
            f.write(f"input.{name} = {value.hex()}\n")
        for name, value in out.items():
            f.write(f"{name} = {value.hex()}\n")


if __name__ == "__main__":
    main()
