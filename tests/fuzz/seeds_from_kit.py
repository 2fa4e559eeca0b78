#!/usr/bin/python3
"""Seeds for the fuzzers of TGSP from the test kit (tests/vectors): each distinct section and document of its vectors.

    seeds_from_kit.py DIR      writes DIR/tgsp_header/..., DIR/tgsp_grant/... and so on
"""
import base64
import hashlib
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "reader"), str(ROOT / "vectors")]
import testkit  # noqa: E402
import tgsp_writer  # noqa: E402

DOCUMENTS = {"grant": ("tgsp_grant", "grant"), "deployment": ("tgsp_deployment", "deployment"),
             "trust-store": ("tgsp_trust", "trust"), "next-trust-store": ("tgsp_trust", "trust"),
             "rollback-record": ("tgsp_rollback", None)}


def sections(package):
    """The sections whose lengths hold, by name."""
    for name, at, width, n in tgsp_writer.split(package):
        data = package[at + width:at + width + n]
        if name != "payload" and len(data) == n:
            yield "tgsp_" + name, data
    if len(package) < 16384:
        yield "tgsp_package", package


def documents(parts):
    for part, (harness, member) in DOCUMENTS.items():
        if part not in parts:
            continue
        yield harness, parts[part]
        if member:  # the document inside the envelope: see fuzz_tgsp.h
            inner = json.loads(parts[part]).get(member, "")
            try:
                yield harness, b"=" + base64.urlsafe_b64decode(inner + "=" * (-len(inner) % 4))
            except ValueError:
                pass


def main():
    out, count = pathlib.Path(sys.argv[1]), 0
    for path in sorted(testkit.FOLDER.glob("*.vec")):
        parts = testkit.load(path).parts
        for harness, data in (*sections(parts["package"]), *documents(parts)):
            folder = out / harness
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
            count += 1
    print(f"{count} seeds")


if __name__ == "__main__":
    main()
