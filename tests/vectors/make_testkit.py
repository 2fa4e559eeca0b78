#!/usr/bin/python3
"""Writes tests/vectors/testkit: the vector files, their index and the keys they name. Every byte follows from fixed seeds, so a
second run changes nothing; the `openssl` command (3.5 or newer; $OPENSSL names another one) signs and wraps.

    make_testkit.py [DIR]       default: testkit beside this file
    make_testkit.py --list      names, classes and comments only
"""
import hashlib
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "reader"))
import kit_sections  # noqa: E402
import kit_trust  # noqa: E402
import testkit  # noqa: E402
import tgsp_reader as r  # noqa: E402
from tgsp_writer import Package, kem_key, signing_key  # noqa: E402


def digest(data):
    return hashlib.sha256(data).hexdigest()


def vector(case):
    package = Package(**case["package"])
    chosen = dict(case.get("header", []))
    parts = case.get("parts", {})
    header = [("comment", case["comment"]), ("expect", case["expect"]), ("exit", str(r.EXIT.get(case["expect"], 0))),
              ("released", digest(b"".join(package.plain) if case["expect"] == "OK" else b""))]
    if "sound" in case:
        header.append(("chunks-released", digest(b"".join(package.plain[i] for i in case["sound"]))))
    if case["names"]:
        header.append(("names", case["names"]))
    header += [("now", str(kit_trust.NOW)), ("key", chosen.get("key", "device"))]
    if "trust" not in chosen and "trust-store" not in parts:
        header.append(("trust", "author author,granter"))
    header += [(n, v) for n, v in case.get("header", []) if n != "key"]
    return testkit.Vector(header, {"package": package.bytes, **parts})


def write_keys(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("author", "author2", "platform", "stranger"):
        (folder / f"{name}.pub").write_bytes(b"".join(signing_key(name).public.pems))
    for name in ("device", "other", "third"):
        (folder / f"{name}.pub").write_bytes(b"".join(kem_key(name).public.pems))
        (folder / f"{name}.priv").write_bytes(b"".join(kem_key(name).private))


def main():
    cases = [*kit_sections.all_cases(), *kit_trust.all_cases()]
    names = [c["name"] for c in cases]
    assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
    if sys.argv[1:] == ["--list"]:
        for c in cases:
            print(f"{c['name']:48} {c['expect']:12} {c['comment']}")
        return
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else testkit.FOLDER
    write_keys(folder / "keys")
    for old in folder.glob("*.vec"):
        if old.stem not in names:
            old.unlink()
    index = []
    for c in sorted(cases, key=lambda c: c["name"]):
        data = testkit.dump(vector(c))
        (folder / f"{c['name']}.vec").write_bytes(data)
        index.append(f"{digest(data)}  {c['name']}.vec  {c['expect']}  {c['comment']}\n")
    (folder / "index.txt").write_text("".join(index), encoding="utf-8")
    print(f"{len(cases)} vectors in {folder}")


if __name__ == "__main__":
    main()
