#!/usr/bin/python3
"""Makes the seeds of the TGSP and key file harnesses (corpus/tgsp_*, corpus/keyfile) out of tests/vectors/packages, so that
none is written by hand. Run it again after make_packages; the files are checked in, small as they are."""
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = HERE.parent / "vectors" / "packages"


def sections(data):
    pos, out = 6, {}
    for name, k in (("header", 4), ("manifest", 4), ("recipients", 4), ("payload", 8), ("signatures", 4)):
        n = int.from_bytes(data[pos:pos + k], "big")
        out[name] = data[pos + k:pos + k + n]
        pos += k + n
    return out


def put(harness, name, data):
    folder = HERE / "corpus" / harness
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    big = (PACKAGES / "chacha20-poly1305.tgsp").read_bytes()
    tiny = (PACKAGES / "tiny.tgsp").read_bytes()
    for label, data in (("two-chunks", big), ("tiny", tiny)):
        s = sections(data)
        put("tgsp_header", label + ".json", s["header"])
        put("tgsp_recipients", label + ".json", s["recipients"])
        put("tgsp_signatures", label + ".json", s["signatures"])
        plain = len(s["payload"]) - 16 * (2 if label == "two-chunks" else 1)
        put("tgsp_manifest", label, struct.pack(">QB", plain, 0 if label == "two-chunks" else 4) + s["manifest"])
    put("tgsp_package", "tiny.tgsp", tiny)
    put("tgsp_package", "magic", b"TGSP\x01\x00")
    put("tgsp_package", "lengths", b"TGSP\x01\x00" + b"\x00\x00\x00\x02{}" * 3 + b"\x00" * 8 + b"\x00\x00\x00\x02{}")
    put("tgsp_grant", "other.tgrant", (PACKAGES / "other.tgrant").read_bytes())
    put("tgsp_deployment", "d.tgdeploy", (PACKAGES / "deployment.tgdeploy").read_bytes())
    put("tgsp_trust", "store.tgtrust", (PACKAGES / "store.tgtrust").read_bytes())
    put("tgsp_rollback", "empty.json", b'{"tgsp_rollback":"1.0","models":[]}')
    h = "A" * 43
    put("tgsp_rollback", "one.json", ('{"tgsp_rollback":"1.0","models":[{"model":"m","floor":3,"sequence":7,"header_sha256":"%s",'
                                      '"current":"%s","previous":"%s","reset_count":1}]}' % (h, h, h)).encode())
    for name in ("author.pub", "device.pub", "device.priv"):
        put("keyfile", name, (PACKAGES / name).read_bytes())


if __name__ == "__main__":
    main()
