#!/usr/bin/python3
"""Writes the files of weights that the readers are tested with, good ones and ones with exactly one fault.

  tests/vectors/make_weights.py            remakes all that Python alone can make
  tests/vectors/make_weights.py --torch    also those of PyTorch (python3-torch, python3-numpy)

They go to tests/fuzz/corpus/{safetensors,torch,pickle}/ (the harnesses start from them) and are listed in
tests/vectors/weights.txt: file, expected code, words that the error has to contain; for a file that is read, its
tensors (name, type, shape, CRC-32 of the packed bytes) as Python or PyTorch itself sees them. Nothing here is shared
with the C sources: the layouts are written from the formats' own descriptions.
"""
import argparse
import builtins
import collections
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS, INDEX = ROOT / "tests" / "fuzz" / "corpus", ROOT / "tests" / "vectors" / "weights.txt"
rows = []


def emit(kind, name, data, code="OK", words="", tensors=()):
    """One vector. tensors: (name, type, shape, packed bytes)."""
    path = CORPUS / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    lines = [" | ".join(filter(None, (f"{kind}/{name}", code, words)))]
    for n, t, shape, raw in sorted(tensors, key=lambda x: x[0].encode()):
        lines.append(f"  {n} {t} [{','.join(map(str, shape))}] {zlib.crc32(raw):08x}")
    rows.append("\n".join(lines))


# ---- safetensors ----

def st(header, data=b"", length=None, pad=True):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    if pad and not isinstance(header, bytes):
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def t(dtype, shape, begin, end, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


ORDER = ["BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16", "BF16",
         "I32", "U32", "F32", "C64", "F64", "I64", "U64"]


def reference_layout(tensors):
    """As the reference library writes: types by rank descending, then names; metadata first."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for n, dt, shape, raw in sorted(tensors, key=lambda x: (-ORDER.index(x[1]), x[0].encode())):
        header[n] = t(dt, list(shape), len(data), len(data) + len(raw))
        data += raw
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def safetensors_good():
    f2x3 = struct.pack("<6f", *range(6))
    some = [("b", "F32", (3,), f2x3[:12]), ("a", "F32", (1, 3), f2x3[12:])]
    emit("safetensors", "two.safetensors", reference_layout(some), tensors=some)
    emit("safetensors", "empty.safetensors", st({}))
    emit("safetensors", "metadata-only.safetensors", st({"__metadata__": {"format": "pt", "by": "ü"}}))
    emit("safetensors", "no-padding.safetensors", st(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\7"),
         tensors=[("a", "U8", (1,), b"\7")])
    emit("safetensors", "scalar.safetensors", st({"s": t("F64", [], 0, 8)}, b"\1" * 8),
         tensors=[("s", "F64", (), b"\1" * 8)])
    emit("safetensors", "no-elements.safetensors", st({"e": t("F32", [0, 5], 0, 0), "f": t("F32", [3, 0], 0, 0),
                                                       "x": t("I8", [2], 0, 2)}, b"ab"),
         tensors=[("e", "F32", (0, 5), b""), ("f", "F32", (3, 0), b""), ("x", "I8", (2,), b"ab")])
    emit("safetensors", "escapes.safetensors", st(b'{ "a\\u00e9\\"" : {"data_offsets":[0,1],"shape":[1],"dtype":"I8"} }  ', b"x"),
         tensors=[('aé"', "I8", (1,), b"x")])
    bits = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
    wide, data, header = [], b"", {}
    for name in ORDER:
        n = bits.get(name) or (8 if name in ("BOOL", "U8", "I8") or name.startswith("F8") else
                               16 if name == "BF16" else int("".join(c for c in name if c.isdigit())))
        raw = bytes((i * 7) % 2 if name == "BOOL" else i for i in range(4 * n // 8))
        header["t." + name] = t(name, [2, 2], len(data), len(data) + len(raw))
        wide.append(("t." + name, name, (2, 2), raw))
        data += raw
    emit("safetensors", "every-type.safetensors", st(header, data), tensors=wide)


def safetensors_bad():
    d = b"\0" * 8
    two = {"a": t("F32", [1], 0, 4), "b": t("F32", [1], 4, 8)}
    for name, header, data, words in [
        ("gap", {**two, "b": t("F32", [1], 5, 9)}, d + b"\0", "begins at 5"),
        ("overlap", {**two, "b": t("F32", [1], 2, 6)}, d, "begins at 2"),
        ("same-place", {**two, "b": t("F32", [1], 0, 4)}, d[:4], "begins at 0"),
        ("not-from-0", {"a": t("F32", [1], 4, 8)}, d, "begins at 4"),
        ("reversed", {"a": t("F32", [1], 4, 0)}, d, "begins at 4"),
        ("past-the-end", two, d[:7], "ends at 8"),
        ("trailing", two, d + b"\0", "1 bytes after"),
        ("too-small", {"a": t("F32", [2], 0, 4)}, d[:4], "shape and type"),
        ("too-large", {"a": t("F32", [1], 0, 8)}, d, "shape and type"),
        ("overflow", {"a": t("F32", [1 << 40, 1 << 40], 0, 8)}, d, "shape and type"),
        ("overflow-to-fit", {"a": t("F32", [1 << 62, 4, 4], 0, 8)}, d, "shape and type"),
        ("part-of-a-byte", {"a": t("F4", [3], 0, 1)}, d[:1], "shape and type"),
        ("bool-2", {"a": t("BOOL", [2], 0, 2)}, b"\1\2", "neither 0 nor 1"),
        ("no-name", {"": t("F32", [1], 0, 4)}, d[:4], "name is empty"),
        ("control-name", {"a\nb": t("F32", [1], 0, 4)}, d[:4], "control"),
        ("long-name", {"a" * 1025: t("F32", [1], 0, 4)}, d[:4], "too long"),
        ("unknown-member", {"a": t("F32", [1], 0, 4, x=1)}, d[:4], "unknown or repeated"),
        ("no-shape", {"a": {"dtype": "F32", "data_offsets": [0, 4]}}, d[:4], "exactly dtype"),
        ("no-dtype", {"a": {"shape": [1], "data_offsets": [0, 4]}}, d[:4], "exactly dtype"),
        ("no-offsets", {"a": {"dtype": "F32", "shape": [1]}}, d[:4], "exactly dtype"),
        ("one-offset", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, d[:4], "two numbers"),
        ("three-offsets", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, d[:4], "two numbers"),
        ("negative-offset", {"a": t("F32", [1], -4, 0)}, d[:4], "whole number"),
        ("negative-size", {"a": t("F32", [-1], 0, 4)}, d[:4], "whole number"),
        ("float-size", {"a": t("F32", [1.0], 0, 4)}, d[:4], "whole number"),
        ("text-size", {"a": t("F32", ["1"], 0, 4)}, d[:4], "whole number"),
        ("size-over-64-bits", {"a": t("F32", [1 << 64], 0, 4)}, d[:4], "over 64 bits"),
        ("size-of-64-bits", {"a": t("F32", [(1 << 64) - 1], 0, 4)}, d[:4], "over 63 bits"),
        ("shape-not-a-list", {"a": t("F32", 1, 0, 4)}, d[:4], "not a list"),
        ("dtype-not-a-string", {"a": t(1, [1], 0, 4)}, d[:4], "not a string"),
        ("entry-not-an-object", {"a": [1]}, d[:4], "not an object"),
        ("metadata-number", {"__metadata__": {"a": 1}}, b"", "not a string"),
        ("metadata-list", {"__metadata__": []}, b"", "not an object"),
    ]:
        emit("safetensors", name, st(header, data), "FORMAT", words)
    emit("safetensors", "many-dimensions", st({"a": t("F32", [1] * 17, 0, 4)}, d[:4]), "LIMIT", "over 16 dimensions")
    emit("safetensors", "unknown-type", st({"a": t("F128", [1], 0, 16)}, d + d), "UNSUPPORTED", "'F128'")
    one = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for name, text, words in [
        ("duplicate-tensor", b"{" + one + b"," + one.replace(b"[0,1]", b"[1,2]") + b"}", "there twice"),
        ("duplicate-by-escape", b"{" + one + b"," + one.replace(b"[0,1]", b"[1,2]").replace(b'"a"', b'"\\u0061"') + b"}",
         "there twice"),
        ("duplicate-member", b'{"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "unknown or repeated"),
        ("duplicate-metadata", b'{"__metadata__":{},"__metadata__":{}}', "repeated"),
        ("duplicate-metadata-key", b'{"__metadata__":{"a":"1","a":"2"}}', "there twice"),
        ("not-utf8", b'{"\xff":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "UTF-8"),
        ("overlong-utf8", b'{"\xc0\xaf":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "UTF-8"),
        ("lone-surrogate", b'{"\\ud800":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "escapes"),
        ("nul-in-name", b'{"a\\u0000":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "escapes"),
        ("leading-zero", b'{"a":{"dtype":"U8","shape":[02],"data_offsets":[0,2]}}', "whole number"),
        ("exponent", b'{"a":{"dtype":"U8","shape":[2e0],"data_offsets":[0,2]}}', "whole number"),
        ("trailing-comma", b"{" + one + b",}", "name must stand"),
        ("no-end", b"{" + one, "'}' is missing"),
        ("after-the-object", b"{" + one + b"} x", "other than spaces"),
        ("newline-padding", b"{" + one + b"}\n", "other than spaces"),
        ("nul-padding", b"{" + one + b"}\0", "other than spaces"),
        ("no-colon", b'{"a"}', "':' is missing"),
    ]:
        emit("safetensors", name, st(text, b"\0\0"), "FORMAT", words)
    emit("safetensors", "leading-space", st(b" {}"), "FORMAT", "neither a safetensors")
    emit("safetensors", "header-past-the-end", st({}, length=99), "FORMAT", "cut")
    emit("safetensors", "header-over-the-limit", st({}, length=100_000_001), "LIMIT", "header of 100000001")
    emit("safetensors", "header-of-all-ones", st({}, length=(1 << 64) - 1), "LIMIT", "header of")
    emit("safetensors", "header-of-nothing", st({}, length=0), "FORMAT", "does not begin")
    emit("safetensors", "short", b"\2\0\0\0\0\0\0", "FORMAT", "neither")


# ---- pickles, by a small assembler ----

def S(text):
    raw = text.encode() if isinstance(text, str) else text
    return b"X" + struct.pack("<I", len(raw)) + raw


def I(n):
    if 0 <= n < 256:
        return b"K" + bytes([n])
    if -(1 << 31) <= n < 1 << 31:
        return b"J" + struct.pack("<i", n)
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def T(*items):
    return b"(" + b"".join(items) + b"t"


def G(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


ORDERED = G("collections", "OrderedDict") + b")R"
V2, V3 = G("torch._utils", "_rebuild_tensor_v2"), G("torch._utils", "_rebuild_tensor_v3")


def storage(key="0", kind="FloatStorage", numel=6):
    return T(S("storage"), G("torch", kind), S(key), S("cpu"), I(numel)) + b"Q"


def ints(v):
    return T(*map(I, v))


def tensor(size=(2, 3), stride=(3, 1), offset=0, store=None, grad=b"\x89", hooks=ORDERED, how=V2, more=()):
    return how + T(store or storage(), I(offset), ints(size), ints(stride), grad, hooks, *more) + b"R"


def items(*pairs):
    return b"}(" + b"".join(S(k) + v for k, v in pairs) + b"u"


def state(*pairs):
    return b"\x80\x02" + items(*pairs) + b"."


# ---- ZIP archives, by hand, each field open to a fault ----

def archive(pkl, storages=None, prefix="m/", version=b"3\n", extra=(), **how):
    entries = [(prefix + "data.pkl", pkl)] if pkl is not None else []
    entries += [(f"{prefix}data/{k}", v) for k, v in (storages if storages is not None else {"0": SIX}).items()]
    if version is not None:
        entries.append((prefix + "version", version))
    return zip_of(entries + list(extra), **how)


def zip_of(entries, local=None, central=None, zip64=False, end=None, end64=None, between=b"", before=b"", after=b"",
           moved=None):
    """local, central, end: {field: value} put over the first entry's (or the end record's) fields."""
    out, directory = before, b""
    for i, (name, data) in enumerate(entries):
        raw = name.encode() if isinstance(name, str) else name
        loc = {"need": 0, "flags": 0x808, "method": 0, "crc": zlib.crc32(data), "packed": len(data), "plain": len(data),
               "name": raw, "extra": b"", **((local or {}) if i == 0 else {})}
        at = len(out)
        out += struct.pack("<4s5H3I2H", b"PK\3\4", loc["need"], loc["flags"], loc["method"], 0, 0, loc["crc"],
                           loc["packed"], loc["plain"], len(loc["name"]), len(loc["extra"])) + loc["name"] + loc["extra"]
        out += data
        cen = {"flags": 0x808, "method": 0, "crc": zlib.crc32(data), "packed": len(data), "plain": len(data),
               "name": raw, "extra": b"", "comment": b"", "disk": 0, "at": at, **((central or {}) if i == 0 else {})}
        if zip64:
            cen["extra"] = struct.pack("<2H3Q", 1, 24, len(data), len(data), at)
            cen["packed"] = cen["plain"] = cen["at"] = 0xffffffff
        if moved and i == moved[0]:
            cen["at"] = moved[1]
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, cen["flags"], cen["method"], 0, 0, cen["crc"],
                                 cen["packed"], cen["plain"], len(cen["name"]), len(cen["extra"]), len(cen["comment"]),
                                 cen["disk"], 0, 0, cen["at"]) + cen["name"] + cen["extra"] + cen["comment"]
    out += between
    e = {"disk": 0, "n_here": len(entries), "n": len(entries), "size": len(directory), "at": len(out), "comment": b"",
         **(end or {})}
    e64 = {"n": len(entries), "size": len(directory), "at": len(out), "record": len(out) + len(directory), "length": 44,
           **(end64 or {})}
    out += directory
    if zip64:
        out += struct.pack("<4sQ2H2I4Q", b"PK\6\6", e64["length"], 45, 45, 0, 0, e64["n"], e64["n"], e64["size"], e64["at"])
        out += struct.pack("<4sIQI", b"PK\6\7", 0, e64["record"], 1)
    out += struct.pack("<4s4H2IH", b"PK\5\6", e["disk"], 0, e["n_here"], e["n"], e["size"], e["at"], len(e["comment"]))
    return out + e["comment"] + after


SIX = struct.pack("<6f", *range(6))
GOOD = state(("w", tensor()))
W = ("w", "F32", (2, 3), SIX)


def zip_vectors():
    emit("torch", "plain.pt", archive(GOOD), tensors=[W])
    emit("torch", "zip64.pt", archive(GOOD, zip64=True), tensors=[W])
    emit("torch", "zip64-saturated-end.pt", archive(GOOD, zip64=True, end={"n_here": 0xffff, "n": 0xffff, "size": 0xffffffff,
                                                                         "at": 0xffffffff}), tensors=[W])
    emit("torch", "descriptor-sizes-0.pt", archive(GOOD, local={"packed": 0, "plain": 0, "crc": 0}), tensors=[W])
    emit("torch", "extra-entries.pt", archive(GOOD, extra=[("m/byteorder", b"little"), ("m/.data/serialization_id", b"1")]),
         tensors=[W])
    emit("torch", "no-tensors.pt", archive(b"\x80\x02}."))
    emit("torch", "no-entries", zip_of([]), "FORMAT", "without entries")
    for name, data, code, words in [
        ("compressed", archive(GOOD, local={"method": 8}, central={"method": 8}), "UNSUPPORTED", "compressed entry (method 8)"),
        ("compressed-in-directory-only", archive(GOOD, central={"method": 8}), "UNSUPPORTED", "compressed"),
        ("compressed-in-local-only", archive(GOOD, local={"method": 8}), "FORMAT", "contradict"),
        ("encrypted", archive(GOOD, local={"flags": 0x809}, central={"flags": 0x809}), "UNSUPPORTED", "encrypted"),
        ("strange-flags", archive(GOOD, local={"flags": 0x2808}, central={"flags": 0x2808}), "FORMAT", "flags"),
        ("two-flags", archive(GOOD, local={"flags": 0x800}), "FORMAT", "contradict"),
        ("two-names", archive(GOOD, local={"name": b"m/dat0.pkl"}), "FORMAT", "differently"),
        ("two-sizes", archive(GOOD, local={"plain": 5}), "FORMAT", "about sizes"),
        ("packed-is-not-plain", archive(GOOD, central={"packed": 1}), "FORMAT", "two different sizes"),
        ("duplicate-entry", archive(GOOD, extra=[("m/data/0", SIX)]), "FORMAT", "there twice"),
        ("overlap", archive(GOOD, moved=(1, 0)), "FORMAT", "differently"),
        ("overlap-inside", archive(GOOD.replace(b".", b"."), {"0": SIX}, extra=[("m/data/1", SIX)], moved=(3, 1)), "FORMAT",
         "no local header"),
        ("over-the-directory", archive(GOOD, central={"packed": 9999, "plain": 9999}), "FORMAT", "into the directory"),
        ("no-local-header", archive(GOOD, moved=(0, 4)), "FORMAT", "no local header"),
        ("offset-past-the-end", archive(GOOD, moved=(0, 0x7fffffff)), "FORMAT", "no local header"),
        ("archive-comment", archive(GOOD, end={"comment": b"hello"}), "FORMAT", "does not end with an end record"),
        ("after-the-end", archive(GOOD, after=b"\0"), "FORMAT", "does not end with an end record"),
        ("before-the-first", archive(GOOD, before=b"PK  "), "FORMAT", "before the first"),
        ("after-the-entries", archive(GOOD, between=b"1234", end={"at": 0}), "FORMAT", "does not end where"),
        ("entry-comment", archive(GOOD, central={"comment": b"x"}), "FORMAT", "comments"),
        ("entry-on-a-disk", archive(GOOD, central={"disk": 1}), "FORMAT", "disk"),
        ("several-disks", archive(GOOD, end={"disk": 1}), "FORMAT", "several disks"),
        ("fewer-here", archive(GOOD, end={"n_here": 2}), "FORMAT", "several disks"),
        ("too-many-entries", archive(GOOD, end={"n_here": 9, "n": 9}), "FORMAT", "too short"),
        ("one-too-many", archive(GOOD, end={"n_here": 4, "n": 4}), "FORMAT", "too short"),
        ("one-too-few", archive(GOOD, end={"n_here": 2, "n": 2}), "FORMAT", "longer than"),
        ("directory-elsewhere", archive(GOOD, end={"at": 1}), "FORMAT", "does not end where"),
        ("zip64-contradiction", archive(GOOD, zip64=True, end={"n_here": 2, "n": 2}), "FORMAT", "contradict"),
        ("zip64-elsewhere", archive(GOOD, zip64=True, end64={"record": 8}), "FORMAT", "not where its locator says"),
        ("zip64-past-the-end", archive(GOOD, zip64=True, end64={"record": 1 << 63}), "FORMAT", "not where"),
        ("zip64-long-record", archive(GOOD, zip64=True, end64={"length": 45}), "FORMAT", "not where"),
        ("zip64-many", archive(GOOD, zip64=True, end={"n_here": 0xffff, "n": 0xffff}, end64={"n": 1 << 40}), "LIMIT", "entries"),
        ("zip64-directory-overflow", archive(GOOD, zip64=True, end={"size": 0xffffffff, "at": 0xffffffff},
                                             end64={"at": (1 << 64) - 1, "size": (1 << 64) - 1}), "FORMAT", "does not end where"),
        ("zip64-no-field", archive(GOOD, central={"packed": 0xffffffff, "plain": 0xffffffff}), "FORMAT", "extra field"),
        ("zip64-short-field", archive(GOOD, central={"packed": 0xffffffff, "plain": 0xffffffff, "extra": b"\1\0\4\0abcd"}),
         "FORMAT", "extra field"),
        ("zip64-size-overflow", archive(GOOD, central={"packed": 0xffffffff, "plain": 0xffffffff,
                                                       "extra": struct.pack("<2H2Q", 1, 16, (1 << 64) - 1, (1 << 64) - 1)}),
         "FORMAT", "into the directory"),
        ("zip64-twice", archive(GOOD, central={"extra": b"\1\0\0\0\1\0\0\0"}), "FORMAT", "extra field"),
        ("extra-cut", archive(GOOD, central={"extra": b"\1\0\xff\xff"}), "FORMAT", "extra field"),
        ("backslash-name", zip_of([("m\\data.pkl", GOOD)]), "FORMAT", "backslashes"),
        ("not-utf8-name", zip_of([(b"m/\xff", GOOD)]), "FORMAT", "UTF-8"),
        ("empty-name", zip_of([("", GOOD)]), "FORMAT", "empty"),
        ("two-folders", archive(GOOD, extra=[("n/data.pkl", GOOD)]), "FORMAT", "one folder"),
        ("no-folder", zip_of([("data.pkl", GOOD), ("version", b"3\n")]), "FORMAT", "one folder"),
        ("no-pickle", archive(None), "FORMAT", "no data.pkl"),
        ("no-version", archive(GOOD, version=None), "FORMAT", "no version"),
        ("big-endian", archive(GOOD, extra=[("m/byteorder", b"big")]), "UNSUPPORTED", "byte order 'big'"),
        ("torchscript", archive(GOOD, extra=[("m/constants.pkl", b"")]), "UNSUPPORTED", "TorchScript"),
        ("cut", archive(GOOD)[:-1], "FORMAT", "does not end"),
        ("local-file-only", archive(GOOD)[:60], "FORMAT", "does not end"),
        ("just-pk", b"PK", "FORMAT", "does not end"),
    ]:
        emit("torch", name, data, code, words)
    emit("torch", "legacy", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "UNSUPPORTED", "before 1.6")
    emit("torch", "tar", b"x" * 257 + b"ustar\0" + b"\0" * 249, "UNSUPPORTED", "a tar file")
    emit("torch", "bare-pickle", GOOD, "UNSUPPORTED", "a bare pickle")
    emit("torch", "something-else", b"hello, world", "FORMAT", "neither")
    emit("torch", "nothing", b"", "FORMAT", "neither")


def both(name, pkl, code="OK", words="", tensors=(), storages=None):
    """A pickle inside an archive, and on its own for its harness."""
    emit("torch", name, archive(pkl, storages), code, words, tensors)
    path = CORPUS / "pickle" / name.removesuffix(".pt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pkl)


def tensor_vectors():
    f = struct.pack("<f", 0)
    both("parameter.pt", state(("w", G("torch._utils", "_rebuild_parameter") + T(tensor(), b"\x88", ORDERED) + b"R")),
         tensors=[W])
    both("size-object.pt", state(("w", V2 + T(storage(), I(0), G("torch", "Size") + T(ints((2, 3))) + b"R", ints((3, 1)),
                                              b"\x89", ORDERED) + b"R")), tensors=[W])
    both("transposed.pt", state(("w", tensor((3, 2), (1, 3)))),
         tensors=[("w", "F32", (3, 2), struct.pack("<6f", 0, 3, 1, 4, 2, 5))])
    both("slice.pt", state(("w", tensor((2, 2), (3, 2), 0))), tensors=[("w", "F32", (2, 2), struct.pack("<4f", 0, 2, 3, 5))])
    both("tied.pt", state(("a", tensor()), ("b", tensor((3,), (1,), 3))),
         tensors=[("a", "F32", (2, 3), SIX), ("b", "F32", (3,), SIX[12:])])
    both("expanded-a-little.pt", state(("w", tensor((2, 2), (0, 1)))),
         tensors=[("w", "F32", (2, 2), struct.pack("<4f", 0, 1, 0, 1))])
    both("strides-of-one-row.pt", state(("w", tensor((1, 6), (77, 1)))), tensors=[("w", "F32", (1, 6), SIX)])
    both("no-elements.pt", state(("w", tensor((0, 3), (3, 1), 6))), tensors=[("w", "F32", (0, 3), b"")])
    both("scalar.pt", state(("w", tensor((), (), 5))), tensors=[("w", "F32", (), SIX[20:])])
    both("bytes-typed.pt", state(("w", tensor((3,), (1,), 1, storage("0", "UntypedStorage", 8), how=V3,
                                              more=(G("torch", "uint16"),)))), storages={"0": b"abcdefgh"},
         tensors=[("w", "U16", (3,), b"cdefgh")])
    both("checkpoint.pt", state(("epoch", I(3)), ("lr", b"G" + bytes(8)), ("best", b"N"), ("on", b"\x88"), ("set", b"\x8f"),
                                ("list", b"]" + I(1) + b"a" + b"(" + I(2) + I(1 << 40) + b"e"), ("old", b"U\3abc"),
                                ("optimizer", items(("exp_avg", tensor()))), ("state_dict", items(("w", tensor()))),
                                ("neg", I(-5)), ("three", I(1) + I(2) + I(3) + b"\x87"), ("one", I(1) + b"\x85")),
         tensors=[W])
    both("metadata.pt", b"\x80\x02" + ORDERED + b"q\0(" + S("w") + tensor() + b"u" + items(("_metadata", ORDERED)) + b"b.",
         tensors=[W])
    both("memo.pt", b"\x80\x02}q\0(" + S("w") + b"q\1" + tensor() + b"r\0\1\0\0" + S("v") + b"j\0\1\0\0" + b"u.",
         tensors=[W, ("v", "F32", (2, 3), SIX)])
    both("names-only-a-dtype.pt", state(("dtype", G("torch", "float16")), ("w", tensor())), tensors=[W])
    both("contains-itself.pt", b"\x80\x02}q\0(" + S("w") + tensor() + S("me") + b"]q\1h\1a" + b"u.", tensors=[W])
    for name, pkl, words in [
        ("numel-too-small", state(("w", tensor(store=storage(numel=5)))), "storage of 5 elements has 24 bytes"),
        ("numel-too-large", state(("w", tensor(store=storage(numel=7)))), "storage of 7 elements has 24 bytes"),
        ("numel-overflow", state(("w", tensor(store=storage(numel=(1 << 62) + 6)))), "which is another number"),
        ("numel-negative", state(("w", tensor(store=storage(numel=-6)))), "not described"),
        ("no-such-storage", state(("w", tensor(store=storage("1")))), "storage '1' is not there"),
        ("storage-elsewhere", state(("w", tensor(store=storage("../data.pkl")))), "is not there"),
        ("storage-by-number", state(("w", tensor(store=T(S("storage"), G("torch", "FloatStorage"), I(0), S("cpu"), I(6)) + b"Q"))),
         "not described"),
        ("storage-is-a-dtype", state(("w", tensor(store=T(S("storage"), G("torch", "float32"), S("0"), S("cpu"), I(6)) + b"Q"))),
         "not a storage"),
        ("not-a-storage", state(("w", tensor(store=T(S("module"), G("torch", "FloatStorage"), S("0"), S("cpu"), I(6)) + b"Q"))),
         "not described"),
        ("storage-without-id", state(("w", tensor(store=I(0)))), "not described"),
        ("untyped-by-v2", state(("w", tensor(store=storage("0", "UntypedStorage", 24)))), "no element type"),
        ("past-the-end", state(("w", tensor((3, 3)))), "past the end"),
        ("past-the-end-by-offset", state(("w", tensor(offset=1))), "past the end"),
        ("past-the-end-by-stride", state(("w", tensor(stride=(4, 1)))), "past the end"),
        ("offset-past-the-end", state(("w", tensor((0,), (1,), 7))), "begins after"),
        ("offset-negative", state(("w", tensor(offset=-1))), "offset is not"),
        ("offset-of-64-bits", state(("w", tensor(offset=(1 << 63) - 1))), "begins after"),
        ("size-negative", state(("w", tensor((-2, -3)))), "numbers from 0"),
        ("stride-negative", state(("w", tensor(stride=(-3, 1)))), "numbers from 0"),
        ("shape-overflow", state(("w", tensor((1 << 40, 1 << 40), (0, 0)))), "overflows"),
        ("reach-overflow", state(("w", tensor((3, 3), ((1 << 63) - 1, (1 << 63) - 1)))), "past the end"),
        ("lengths-differ", state(("w", tensor((2, 3), (1,)))), "differ in length"),
        ("shape-of-strings", state(("w", tensor().replace(b"K\2K\3t", S("a") + S("b") + b"t", 1))), "numbers from 0"),
        ("hooks", state(("w", tensor(hooks=items(("h", I(1)))))), "hooks"),
        ("few-arguments", state(("w", V2 + T(storage()) + b"R")), "wrong number of arguments"),
        ("v3-without-dtype", state(("w", tensor(how=V3, more=(I(1),)))), "dtype is not one"),
        ("duplicate-name", state(("w", tensor()), ("w", tensor())), "there twice"),
        ("number-as-name", b"\x80\x02}(" + I(1) + tensor() + b"u.", "name is no string"),
        ("control-in-name", state(("a\nb", tensor())), "control"),
        ("nul-in-name", state(("a\0b", tensor())), "control"),
        ("no-dictionary", b"\x80\x02" + tensor() + b".", "no dictionary of tensors"),
        ("nothing-known", state(("net", items(("w", tensor())))), "no dictionary of tensors"),
    ]:
        both("tensor-" + name, pkl, "FORMAT", words)
    both("tensor-many-dimensions", state(("w", tensor((1,) * 17, (1,) * 17))), "LIMIT", "over 16 dimensions")
    both("tensor-expanded-too-far", state(("w", tensor((1 << 20, 6), (0, 1)))), "LIMIT", ".contiguous()")
    both("tensor-bool-2", state(("w", tensor((2,), (1,), 0, storage("0", "BoolStorage", 2)))), "FORMAT", "neither 0 nor 1",
         storages={"0": b"\1\2"})
    del f


class Call:
    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


class Thing:
    pass


def hostile_vectors():
    """What Python's own pickle module writes for objects that do something when they are loaded."""
    for name, thing, words in [
        ("system", Call(os.system, "id"), f"{os.system.__module__}.system"),
        ("eval", Call(eval, "1"), "builtins.eval"),
        ("exec", Call(exec, "1"), "builtins.exec"),
        ("import", Call(__import__, "os"), "builtins.__import__"),
        ("open", Call(open, "/dev/null"), "io.open"),
        ("popen", Call(subprocess.Popen, ["id"]), ".Popen"),
        ("getattr-chain", Call(getattr, Call(getattr, [], "append"), "__self__"), "builtins.getattr"),
        ("hidden-in-a-state-dict", {"w": 1, "x": Call(os.system, "id")}, "system"),
        ("object", Thing(), "Thing"),
        ("loads", Call(pickle.loads, b"N."), "loads"),
    ]:
        for protocol in range(6):
            raw = pickle.dumps(thing, protocol)
            # Python 2's name for it, below protocol 3
            said = words.replace("builtins.", "__builtin__.") if protocol < 3 else words
            said = "copy_reg._reconstructor" if name == "object" and protocol < 2 else said
            both(f"calls-{name}-{protocol}", raw, "DENIED", said)
    for name, body, words in [
        ("os-system", G("os", "system") + T(S("id")) + b"R", "calls os.system: a model must not"),
        ("posix-system", G("posix", "system") + T(S("id")) + b"R", "posix.system"),
        ("nt-system", G("nt", "system") + T(S("id")) + b"R", "nt.system"),
        ("builtins-getattr", G("builtins", "getattr") + T(G("os", "system"), S("x")) + b"R", "builtins.getattr"),
        ("numpy", G("numpy.core.multiarray", "_reconstruct"), "numpy.core.multiarray._reconstruct"),
        ("dotted-name", G("torch", "Size.__class__"), "torch.Size.__class__"),
        ("case", G("Collections", "OrderedDict"), "Collections.OrderedDict"),
        ("hub", G("torch.hub", "load") + T(S("x"), S("y")) + b"R", "torch.hub.load"),
        ("runpy", G("runpy", "_run_code"), "runpy._run_code"),
        ("no-name", G("os", ""), "os."),
        ("not-printable", G("o\x1b[2Js", "system"), "o?[2Js"),
        ("module", G("torch.nn.modules.linear", "Linear") + b")\x81", "torch.nn.modules.linear.Linear"),
        ("inst", b"(ios\nsystem\n", "os.system"),
        ("obj", b"(" + G("os", "system") + b"o", "os.system"),
        ("stack-global", S("os") + S("system") + b"\x93", "os.system"),
        ("storage-called", G("torch", "FloatStorage") + b")R", "torch.FloatStorage"),
        ("dtype-called", G("torch", "float32") + b")R", "torch.float32"),
        ("call-of-a-call", ORDERED + b")R", "calls an object it made itself"),
        ("call-of-a-string", S("system") + b")R", "calls an object it made itself"),
        ("build-on-a-tensor", tensor() + b"}b", "sets the state"),
        ("build-on-a-dict", b"}}b", "sets the state"),
        ("build-on-a-list", b"]}b", "sets the state"),
    ]:
        both("denied-" + name, b"\x80\x02" + body + b".", "DENIED", words)
    for name, body, words in [
        ("newobj", G("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
        ("newobj-ex", G("collections", "OrderedDict") + b")}\x92", "NEWOBJ_EX"),
        ("pop", b"NN0", "POP"), ("dup", b"N2", "DUP"), ("pop-mark", b"N(N1", "POP_MARK"),
        ("ext", b"\x82\1", "EXT1"), ("frame", b"\x95" + bytes(8), "FRAME"), ("memoize", b"N\x94", "MEMOIZE"),
        ("put", b"Np0\n", "PUT"), ("get", b"Ng0\n", "GET"), ("text-int", b"I1\n", "INT"), ("text-float", b"F1\n", "FLOAT"),
        ("text-string", b"S'a'\n", "STRING"), ("bytes", b"C\1a", "SHORT_BINBYTES"), ("long4", b"\x8b\1\0\0\0\1", "LONG4"),
        ("persid", b"Pa\n", "PERSID"), ("dict", b"(d", "DICT"), ("list", b"(l", "LIST"), ("buffer", b"\x97", "NEXT_BUFFER"),
        ("additems", b"\x8f(N\x90", "ADDITEMS"), ("frozenset", b"(\x91", "FROZENSET"), ("bytearray", b"\x96" + bytes(8), "BYTEARRAY8"),
    ]:
        both("opcode-" + name, b"\x80\x02" + body + b".", "UNSUPPORTED", "opcode " + words)
    both("protocol-0", pickle.dumps({"a": 1}, 0), "UNSUPPORTED", "protocol 2")
    both("protocol-4", pickle.dumps({"a": 1}, 4), "UNSUPPORTED", "protocol 2")


def broken_vectors():
    deep = b"\x80\x02" + b")" + b"\x85" * 70 + b"."
    lists = b"\x80\x02" + b"]" * 70 + b"a" * 69 + b"."
    bomb = b"\x80\x02]q\0" + b"".join(b"](" + b"h" + bytes([i]) * 1 + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1])
                                     for i in range(40)) + b"0."
    for name, pkl, code, words in [
        ("deep-tuples", deep, "LIMIT", "nested too deep"),
        ("deep-lists", lists, "LIMIT", "nested too deep"),
        ("memo-bomb", bomb, "UNSUPPORTED", "POP"),
        ("memo-bomb-in-a-dict", b"\x80\x02}(" + S("a") + bomb[2:-2].replace(b"]q\0", b"]q\0", 1)[:0] + b"]q\0"
         + b"".join(S(str(i)) + b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(40)) + b"u.",
         "FORMAT", "no dictionary of tensors"),
        ("memo-far", b"\x80\x02Nr\xff\xff\xff\xff.", "LIMIT", "remembered"),
        ("memo-unknown", b"\x80\x02h\5.", "FORMAT", "not remembered"),
        ("memo-of-nothing", b"\x80\x02q\0.", "FORMAT", "stack is empty"),
        ("no-stop", b"\x80\x02N", "FORMAT", "without STOP"),
        ("after-stop", b"\x80\x02N.N", "FORMAT", "follows"),
        ("two-objects", b"\x80\x02NN.", "FORMAT", "one object"),
        ("no-object", b"\x80\x02.", "FORMAT", "one object"),
        ("open-mark", b"\x80\x02N(.", "FORMAT", "one object"),
        ("no-mark-tuple", b"\x80\x02t.", "FORMAT", "no open mark"),
        ("no-mark-setitems", b"\x80\x02}u.", "FORMAT", "no open mark"),
        ("tuple-through-a-mark", b"\x80\x02N(\x85.", "FORMAT", "stack is empty"),
        ("reduce-through-a-mark", b"\x80\x02" + G("collections", "OrderedDict") + b"()R.", "FORMAT", "stack is empty"),
        ("append-to-nothing", b"\x80\x02a.", "FORMAT", "stack is empty"),
        ("append-to-a-dict", b"\x80\x02}Na.", "FORMAT", "not a list"),
        ("appends-to-nothing", b"\x80\x02(Ne.", "FORMAT", "not a list"),
        ("setitem-of-nothing", b"\x80\x02NNs.", "FORMAT", "stack is empty"),
        ("setitem-of-a-list", b"\x80\x02]" + S("a") + b"Ns.", "FORMAT", "not a dict"),
        ("key-without-value", b"\x80\x02}(" + S("a") + b"u.", "FORMAT", "without a value"),
        ("key-is-a-list", b"\x80\x02}(]Nu.", "FORMAT", "neither a string nor a number"),
        ("long-of-9-bytes", b"\x80\x02\x8a\x09" + bytes(9) + b".", "LIMIT", "over 64 bits"),
        ("string-not-utf8", b"\x80\x02" + S(b"\xff") + b".", "FORMAT", "not UTF-8"),
        ("string-cut", b"\x80\x02X\xff\xff\xff\x7fab.", "FORMAT", "cut"),
        ("global-cut", b"\x80\x02ctorch\nSize", "FORMAT", "cut"),
        ("no-opcode", b"\x80\x02\xff.", "FORMAT", "no opcode"),
        ("proto-twice", b"\x80\x02\x80\x02N.", "FORMAT", "elsewhere"),
        ("arguments-not-a-tuple", b"\x80\x02" + V2 + b"]R.", "FORMAT", "not a tuple"),
        ("ordered-dict-of-pairs", b"\x80\x02" + G("collections", "OrderedDict") + T(b"]") + b"R.", "FORMAT", "with arguments"),
        ("size-of-a-number", b"\x80\x02" + G("torch", "Size") + T(I(1)) + b"R.", "FORMAT", "not a tuple"),
        ("empty", b"", "UNSUPPORTED", "protocol 2"),
    ]:
        both("broken-" + name, pkl, code, words)


# ---- files of PyTorch itself ----

def torch_vectors():
    import torch  # only here: everything else is remade without it
    names = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
             torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
             torch.complex64: "C64"}

    def seen(tensors):
        def raw(x):
            x = x.detach().contiguous()
            return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().tobytes()
        return [(k, names[v.dtype], tuple(v.shape), raw(v)) for k, v in tensors.items()]

    def saved(thing, **how):
        out = io.BytesIO()
        torch.save(thing, out, **how)
        return out.getvalue()

    def good(name, thing, tensors=None):
        emit("torch", name + ".pt", saved(thing), tensors=seen(tensors or thing))
        emit("safetensors", name + ".safetensors", reference_layout(seen(tensors or thing)), tensors=seen(tensors or thing))

    torch.manual_seed(20)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    good("torch-state-dict", net.state_dict())
    good("torch-every-type", {"t." + n: (torch.arange(6) % 2 if d == torch.bool else torch.arange(6)).reshape(2, 3).to(d)
                              for d, n in names.items()})
    base = torch.arange(60.).reshape(6, 10)
    good("torch-views", {"all": base, "t": base.t(), "slice": base[3:5, ::2], "row": base[2], "scalar": base[1, 1],
                         "expanded": torch.ones(1, 3).expand(4, 3), "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
                         "none": torch.zeros(0, 4), "tied": base})
    good("torch-checkpoint", {"epoch": 3, "lr": 1e-3, "state_dict": net.state_dict(), "args": {"x": [1, 2.5, None, True, (1, 2, 3)]},
                              "optimizer": torch.optim.Adam(net.parameters()).state_dict()}, net.state_dict())
    good("torch-parameters", collections.OrderedDict(net.named_parameters()))
    emit("torch", "torch-module", saved(net), "DENIED", "torch.nn.modules.container.Sequential")
    emit("torch", "torch-legacy", saved(net.state_dict(), _use_new_zipfile_serialization=False), "UNSUPPORTED", "before 1.6")
    emit("torch", "torch-protocol-4", saved({"w": torch.zeros(1)}, pickle_protocol=4), "UNSUPPORTED", "protocol 2")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), script)
    emit("torch", "torch-script", script.getvalue(), "UNSUPPORTED", "")
    emit("torch", "torch-quantized", saved({"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}), "DENIED",
         "torch._utils._rebuild_qtensor")
    emit("torch", "torch-sparse", saved({"s": torch.eye(2).to_sparse()}), "DENIED", "torch._utils._rebuild_sparse_tensor")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--torch", action="store_true")
    if parser.parse_args().torch:
        torch_vectors()
    else:  # keep what is there
        kept = INDEX.read_text().split("\n\n")[1].strip("\n").split("\n") if INDEX.exists() else []
        rows.extend([] if not kept else ["\n".join(kept)])
    made = "\n".join(rows)
    rows.clear()
    for f in (safetensors_good, safetensors_bad, zip_vectors, tensor_vectors, hostile_vectors, broken_vectors):
        f()
    INDEX.write_text("# file | expected code | words of the error; below a file that is read: name type shape CRC-32 of the packed\n"
                     "# bytes. Made by make_weights.py; the first part by PyTorch.\n\n" + made + "\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
