"""Vectors for the container's frame and its JSON sections. A case is (name, comment, expected class, what the error
names, package arguments, header lines)."""
import base64
import json

import tgsp_reader as r
from tgsp_writer import CHUNK, b64u, compact, make, split

OK, FORMAT, AUTH, UNSUPPORTED, NOTFORKEY = "OK", "FORMAT", "AUTH", "UNSUPPORTED", "NOTFORKEY"
TWO = {"files": (("a", 0), ("b", 5))}
GAP = {"files": (("a", 5), ("b", 5))}


def case(name, comment, expect, names="", **package):
    return {"name": name, "comment": comment, "expect": expect, "names": names, "package": package}


def bent(name, comment, expect, names, step, fn, **package):
    return case(name, comment, expect, names, bend={step: fn}, **package)


# ---- the frame ------------------------------------------------------------------------------------------------------

def length_set(section, to):
    """The length field says `to(n)`; nothing else moves."""
    def fn(data):
        for name, at, width, n in split(data):
            if name == section:
                return data[:at] + to(n).to_bytes(width, "big") + data[at + width:]
        raise KeyError(section)
    return fn


def cut(section, where):
    def fn(data):
        for name, at, width, n in split(data):
            if name == section:
                return data[:{"in-length": at + width - 1, "before": at, "empty": at + width,
                              "short": at + width + n - 1}[where]]
        raise KeyError(section)
    return fn


def frame():
    yield case("good-one-file", "a sound package with one file of five bytes", OK)
    yield case("good-no-files", "a sound package without files: one empty chunk", OK, files=())
    yield case("good-two-files", "a sound package whose second file begins at 4096", OK, **GAP)
    yield case("good-three-chunks", "a sound package of two full chunks and a short one", OK, files=(("a", 2 * CHUNK + 100),),
               zero=True)
    yield case("good-full-chunks", "a payload that is exactly two chunks: the last is full", OK, files=(("a", 2 * CHUNK),),
               zero=True)
    yield case("good-aes", "a sound package with the other suite", OK, aead="aes-256-gcm")
    yield case("good-aes-two-chunks", "the other suite over two chunks", OK, aead="aes-256-gcm", zero=True,
               files=(("a", CHUNK + 100),))
    yield case("good-two-recipients", "the key's block is the second of two", OK, recipients=("other", "device"))
    magic = {"magic-lower-case": (b"tgsp\1\0", FORMAT), "magic-other": (b"PK\3\4\1\0", FORMAT),
             "magic-last-letter": (b"TGSQ\1\0", FORMAT), "magic-major-2": (b"TGSP\2\0", UNSUPPORTED),
             "magic-major-0": (b"TGSP\0\0", UNSUPPORTED), "magic-minor-1": (b"TGSP\1\1", UNSUPPORTED)}
    for name, (first, expect) in magic.items():
        yield bent("frame-" + name, f"the file begins with {first!r}", expect, "", "file",
                   lambda d, first=first: first + d[6:])
    for n in (0, 1, 5, 6):
        yield bent(f"frame-only-{n}-bytes", f"the file ends after {n} bytes", FORMAT, "", "file", lambda d, n=n: d[:n])
    for section in ("header", "manifest", "recipients", "payload", "signatures"):
        top = 8 if section == "payload" else 4
        limit = {"header": 65536, "manifest": 32 << 20, "recipients": 8 << 20, "payload": 2**42 + 2**22,
                 "signatures": 256 << 10}[section]
        for name, comment in (("in-length", "ends inside its length field"), ("before", "ends before its length field"),
                              ("short", "ends one byte early"), ("empty", "ends after its length field")):
            if section == "header" and name == "before":
                continue  # the same as frame-only-6-bytes
            yield bent(f"frame-{section}-cut-{name}", f"{section}: the file {comment}", FORMAT, section, "file",
                       cut(section, name))
        yield bent(f"frame-{section}-length-all-ones", f"{section}: the length is 2^{8 * top}-1", FORMAT, section, "file",
                   length_set(section, lambda n, top=top: 256**top - 1))
        yield bent(f"frame-{section}-length-over-limit", f"{section}: the length is one over its limit", FORMAT, section,
                   "file", length_set(section, lambda n, limit=limit: limit + 1))
        yield bent(f"frame-{section}-length-over-file", f"{section}: the length is more than what is left of the file",
                   FORMAT, section, "file", length_set(section, lambda n: n + 20000 if n < 40000 else n))
    yield bent("frame-payload-length-top-bit", "payload: the length has its top bit set (negative, if read as signed)", FORMAT,
               "payload", "file", length_set("payload", lambda n: n | 1 << 63))
    yield bent("frame-signatures-length-short", "the signature section's length leaves one byte behind it", FORMAT, "", "file",
               length_set("signatures", lambda n: n - 1))
    yield bent("frame-trailing-byte", "one byte follows the last section", FORMAT, "", "file", lambda d: d + b"\0")
    yield bent("frame-trailing-newline", "a line end follows the last section", FORMAT, "", "file", lambda d: d + b"\n")
    yield bent("frame-trailing-package", "a second package follows the first", FORMAT, "", "file", lambda d: d + d)
    yield bent("frame-little-endian", "the lengths are little-endian", FORMAT, "", "file",
               lambda d: d[:6] + d[9:5:-1] + d[10:])
    for section, step in (("header", "header_text"), ("manifest", "manifest_text"), ("recipients", "recipients_text")):
        yield bent(f"frame-{section}-empty", f"{section}: a section of no bytes, signed so", FORMAT, section, step,
                   lambda _: "")
    yield bent("frame-signatures-empty", "signatures: a section of no bytes", FORMAT, "signatures", "signatures_text",
               lambda _: "")


# ---- JSON, the same rules in each section -------------------------------------------------------------------------

def member(text):
    """One more member in front of all others."""
    return lambda t: "{" + text + "," + t[1:]


def json_rules():
    """Each rule once; the sections take turns, and the signature section (the only unauthenticated JSON a reader
    parses) has the important ones too."""
    rules = [
        ("duplicate-key", "a key stands twice", member('"x":1,"x":1'), FORMAT),
        ("duplicate-escaped", "a key stands twice, once written with an escape", member('"x":1,"\\u0078":1'), FORMAT),
        ("duplicate-nested", "a key stands twice in an object that is not looked at", member('"x":{"y":1,"y":2}'), FORMAT),
        ("bom", "a byte order mark comes first", lambda t: b"\xef\xbb\xbf" + t.encode(), FORMAT),
        ("utf16", "the text is UTF-16", lambda t: t.encode("utf-16-le"), FORMAT),
        ("latin1", "a string holds a byte that is not UTF-8", lambda t: member('"x":"\u00e9"')(t).encode("latin-1"), FORMAT),
        ("overlong", "a string holds an overlong form of '/'",
         lambda t: member('"x":"@"')(t).encode().replace(b"@", b"\xc0\xaf", 1), FORMAT),
        ("surrogate-bytes", "a string holds a surrogate as UTF-8 bytes",
         lambda t: member('"x":"@"')(t).encode().replace(b"@", b"\xed\xa0\x80", 1), FORMAT),
        ("control", "a string holds a bare line end", member('"x":"\n"'), FORMAT),
        ("nul-escape", "a string holds U+0000", member('"x":"\\u0000"'), FORMAT),
        ("nul-byte", "a byte 0 stands between members", lambda t: member('"x":1')(t).encode().replace(b":1,", b":1\0,", 1),
         FORMAT),
        ("lone-surrogate", "a string holds a lone high surrogate", member('"x":"\\ud800"'), FORMAT),
        ("swapped-surrogates", "a string holds a low surrogate before a high one", member('"x":"\\udc00\\ud800"'), FORMAT),
        ("bad-escape", "a string holds an unknown escape", member('"x":"\\x41"'), FORMAT),
        ("negative", "a number is negative", member('"x":-1'), FORMAT),
        ("minus-zero", "a number is -0", member('"x":-0'), FORMAT),
        ("fraction", "a number has a fraction", member('"x":1.0'), FORMAT),
        ("exponent", "a number has an exponent", member('"x":1e3'), FORMAT),
        ("leading-zero", "a number has a leading zero", member('"x":01'), FORMAT),
        ("plus", "a number has a plus sign", member('"x":+1'), FORMAT),
        ("hex", "a number is hexadecimal", member('"x":0x10'), FORMAT),
        ("nan", "a number is NaN", member('"x":NaN'), FORMAT),
        ("infinity", "a number is Infinity", member('"x":Infinity'), FORMAT),
        ("number-2-53", "a number is 2^53, one more than is allowed", member('"x":9007199254740992'), FORMAT),
        ("number-2-64", "a number is 2^64", member('"x":18446744073709551616'), FORMAT),
        ("depth-17", "an object is seventeen deep", member('"x":' + "[" * 16 + "]" * 16), FORMAT),
        ("comment", "a comment stands in it", member('"x":1/* y */'), FORMAT),
        ("trailing-comma", "a comma stands before the end", lambda t: t[:-1] + ",}", FORMAT),
        ("missing-comma", "a comma is missing", lambda t: '{"x":1 ' + t[1:], FORMAT),
        ("single-quotes", "a string is in single quotes", member("'x':1"), FORMAT),
        ("literal", "a literal is written True", member('"x":True'), FORMAT),
        ("second-object", "a second object follows", lambda t: t + "{}", FORMAT),
        ("array", "the section is an array", lambda t: "[" + t + "]", FORMAT),
        ("unclosed", "the last brace is missing", lambda t: t[:-1], FORMAT),
        ("null-after", "a byte 0 follows the object", lambda t: t.encode() + b"\0", FORMAT),
        ("form-feed", "a form feed is used as white space", lambda t: "\f" + t, FORMAT),
    ]
    fine = [
        ("white-space", "white space of all four kinds around it", lambda t: " \t\r\n" + t + "\n"),
        ("unknown", "an unknown member is ignored", member('"x":{"y":[true,null,"\\ud83d\\ude00"]}')),
        ("number-max", "a number is 2^53-1", member('"x":9007199254740991')),
        ("depth-16", "an array is sixteen deep", member('"x":' + "[" * 15 + "]" * 15)),
        ("order", "the members stand in another order", lambda t: compact(dict(reversed(json.loads(t).items())))),
        ("escapes", "a member's name is written with escapes", lambda t: '{"\\u00%02x' % ord(t[2]) + t[3:]),
    ]
    steps = ["header_text", "manifest_text", "recipients_text", "signatures_text"]
    for i, (name, comment, fn, expect) in enumerate(rules):
        for step in (steps[i % 3], steps[3]) if i % 4 == 0 or name in ("depth-17", "nul-escape") else (steps[i % 4],):
            section = step[:-5]
            yield bent(f"json-{section}-{name}", f"{section}: {comment}", expect, section, step, fn)
    for i, (name, comment, fn) in enumerate(fine):
        section = steps[i % 4][:-5]
        yield bent(f"json-{section}-{name}", f"{section}: {comment}", OK, "", steps[i % 4], fn)


def flip_bit(position):
    def fn(text):
        data = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        data[position] ^= 1
        return b64u(bytes(data))
    return fn


# ---- fields -----------------------------------------------------------------------------------------------------

def at(obj, path):
    for name in path[:-1]:
        obj = obj[name]
    return obj, path[-1]


def put(*path, to):
    def fn(obj):
        holder, name = at(obj, path)
        holder[name] = to(holder[name]) if callable(to) else to
        return obj
    return fn


def drop(*path):
    def fn(obj):
        holder, name = at(obj, path)
        del holder[name]
        return obj
    return fn


def where(path):
    return ".".join(f"[{n}]" if isinstance(n, int) else n for n in path).replace(".[", "[")


def changed(section, path, what, comment, to, expect=FORMAT, **package):
    name = "-".join(str(n) for n in path)
    names = where(path) if expect == FORMAT else ""
    return bent(f"{section}-{name}-{what}", f"{section}.{where(path)}: {comment}", expect, names, section, put(*path, to=to),
                **package)


def missing(section, path, **package):
    return bent(f"{section}-{'-'.join(str(n) for n in path)}-missing", f"{section}.{where(path)} is missing", FORMAT,
                where(path), section, drop(*path), **package)


def unused_bit(text):
    """Text of the same bytes with a bit set that carries nothing; a character more where there is none."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + letters[letters.index(text[-1]) | 1] if len(text) % 4 else text + "A"


BINARY_FAULTS = [("padded", "has base64 padding", lambda v: v + "="), ("short", "is some bytes shorter", lambda v: v[:-4]),
                 ("long", "is three bytes longer", lambda v: v + "AAAA"), ("alphabet", "uses the other base64 alphabet", lambda v: "+/" + v[2:]),
                 ("unused-bits", "has an unused bit that is not zero", unused_bit), ("space", "has a space in it", lambda v: v[:4] + " " + v[5:]),
                 ("empty", "is empty", lambda v: ""), ("null", "is null", lambda v: None), ("number", "is a number", lambda v: 7)]


def binary(section, path, turn):
    """What can be wrong with a byte string: two of nine faults each, in turn."""
    for k in (2 * turn, 2 * turn + 1):
        what, comment, fn = BINARY_FAULTS[k % len(BINARY_FAULTS)]
        yield changed(section, path, what, comment, fn)


def header():
    for name in ("tgsp", "package_id", "created_at", "aead", "kem", "sig", "hash", "chunk_size", "payload_salt",
                 "payload_plain_len", "key_commitment", "manifest_sha256", "recipients_sha256", "crit"):
        yield missing("header", (name,))
    for turn, name in enumerate(("package_id", "payload_salt", "key_commitment", "manifest_sha256", "recipients_sha256")):
        yield from binary("header", (name,), turn)
    for name, value, comment in (("tgsp", "1.1", "an unknown version"), ("aead", "xchacha20-poly1305", "an unknown AEAD"),
                                 ("aead", "AES-256-GCM", "a known AEAD in capitals"), ("kem", "x25519", "an unknown KEM"),
                                 ("sig", "ed25519", "an unknown signature"), ("hash", "sha-512", "an unknown hash")):
        yield changed("header", (name,), "unknown-" + value.lower().replace(".", "-"), comment, value, UNSUPPORTED)
    yield changed("header", ("aead",), "null", "null", None)
    yield changed("header", ("aead",), "other-suite", "the other suite's name over these chunks", "aes-256-gcm", AUTH)
    for value, what in ((CHUNK - 1, "not-a-power"), (32768, "too-small"), (1 << 25, "too-large"), (0, "zero"),
                        ("65536", "string"), (True, "true")):
        yield changed("header", ("chunk_size",), what, f"{value!r}", value)
    yield changed("header", ("chunk_size",), "other", "twice as large, over a payload that is one chunk either way", 2 * CHUNK, OK)
    for value, what in ((6, "one-more"), (4, "one-less"), (0, "zero"), (2**53 - 1, "huge"), ("5", "string")):
        names = "" if isinstance(value, int) else "payload_plain_len"
        yield bent(f"header-payload_plain_len-{what}", f"header.payload_plain_len is {value!r}, not 5", FORMAT, names, "header",
                   put("payload_plain_len", to=value))
    for text, what in (("2026-02-30T02:40:00Z", "february-30"), ("2026-02-02T24:00:00Z", "hour-24"),
                       ("2026-02-02T02:40:60Z", "second-60"), ("2026-02-02T02:40:00+00:00", "offset"),
                       ("2026-02-02 02:40:00Z", "space"), ("2026-02-02T02:40:00.0Z", "fraction"), ("2026-02-02t02:40:00z", "lower"),
                       ("02026-02-02T02:40:00Z", "long"), ("2025-02-29T00:00:00Z", "no-leap-year"), (1770000000, "number")):
        yield changed("header", ("created_at",), what, f"the time is {text!r}", text)
    for value, what, expect in ((["header.new"], "not-there", FORMAT), (["manifest.new"], "not-there-manifest", FORMAT),
                                (["header.aead", "header.aead"], "twice", FORMAT), (["header."], "no-name", FORMAT),
                                (["header..aead"], "empty-name", FORMAT), (None, "null", FORMAT), ([7], "number", FORMAT),
                                ([f"header.{n}" for n in "abcdefghijklmnopq"], "seventeen", FORMAT),
                                (["manifest.files.path"], "inside-array", FORMAT), (["aead"], "no-section", UNSUPPORTED),
                                (["header.aead", "manifest.model.name"], "known", OK)):
        yield changed("header", ("crit",), what, f"{value}", value, expect)
    yield bent("header-crit-unknown", "header.crit names a member that is there and that no reader knows", UNSUPPORTED,
               "header.new", "header", lambda h: dict(h, crit=["header.new"], new=1))
    yield case("header-crit-unknown-manifest", "header.crit names a member of the manifest that no reader knows", UNSUPPORTED,
               "manifest.model.new", bend={"header": lambda h: dict(h, crit=["manifest.model.new"]),
                                           "manifest": lambda m: dict(m, model=dict(m["model"], new=1))})
    yield case("header-crit-metadata-key", "header.crit goes inside metadata, which has no paths", UNSUPPORTED, "metadata",
               bend={"header": lambda h: dict(h, crit=["manifest.model.metadata.k"]),
                     "manifest": lambda m: dict(m, model=dict(m["model"], metadata={"k": "v"}))})
    for name in ("manifest_sha256", "recipients_sha256"):
        yield bent(f"header-{name}-wrong", f"header.{name} is another section's", AUTH, name[:-7], "header",
                   put(name, to=b64u(make("wrong", 32))))
    yield bent("header-package_id-other", "header.package_id is another one: the KEK is bound to it", AUTH, "", "header",
               put("package_id", to=b64u(make("wrong", 16))))
    yield bent("header-payload_salt-other", "header.payload_salt is another one: the commitment is bound to it", AUTH,
               "key_commitment", "header", put("payload_salt", to=b64u(make("wrong", 32))))


def manifest():
    model = lambda name: ("model", name)  # noqa: E731
    for path in (("model",), model("name"), model("version"), model("sequence"), model("format"), ("files",), ("payload",),
                 ("payload", "chunks"), ("payload", "chunk_digests"), ("files", 0, "path"), ("files", 0, "size"),
                 ("files", 0, "offset")):
        yield missing("manifest", path)
    rows = [(model("name"), "empty", ""), (model("name"), "257-bytes", "x" * 257), (model("name"), "number", 7),
            (model("version"), "129-bytes", "x" * 129), (model("version"), "null", None), (model("sequence"), "string", "7"),
            (model("sequence"), "true", True), (model("floor"), "above-sequence", 8), (model("floor"), "null", None),
            (model("format"), "unknown", "exe"), (model("format"), "capitals", "ONNX"), (model("metadata"), "number-value", {"k": 1}),
            (model("metadata"), "257-pairs", {str(k): "" for k in range(257)}), (model("metadata"), "array", []),
            (("model",), "array", []), (("validity",), "unknown-field", {"until": "2026-02-02T02:40:00Z"}), (("validity",), "null", None),
            (("validity",), "bad-time", {"not_after": "tomorrow"}), (("constraints",), "unknown-field", {"gpu": True}),
            (("constraints",), "no-fleets", {"fleets": []}), (("constraints",), "65-fleets", {"fleets": [f"f{k}" for k in range(65)]}),
            (("constraints",), "fleet-number", {"fleets": [1]}), (("constraints",), "min-agent-zero", {"min_agent": "01.0.0"}),
            (("constraints",), "min-agent-two", {"min_agent": "1.0"}), (("constraints",), "min-agent-huge", {"min_agent": "1.0.2147483648"}),
            (("constraints",), "min-agent-word", {"min_agent": "1.0.0-rc"}), (("provenance",), "array", []), (("provenance",), "null", None),
            (("files",), "object", {}), (("payload", "chunks"), "two", 2), (("payload", "chunks"), "zero", 0),
            (("payload", "chunk_digests"), "32-more", lambda v: v + "A" * 43), (("payload", "chunk_digests"), "empty", ""),
            (("files", 0, "size"), "string", "5"), (("files", 0, "offset"), "1", 1), (("files", 0, "offset"), "4096", 4096)]
    for path, what, to in rows:
        def fn(m, path=path, to=to):
            holder, name = at(m, path)
            holder[name] = to(holder[name]) if callable(to) else to
            return m
        yield bent(f"manifest-{'-'.join(map(str, path))}-{what}", f"manifest.{where(path)}: {what}", FORMAT, path[-1], "manifest", fn)
    paths = [("dot-dot", "../a"), ("dot", "./a"), ("inner-dot-dot", "x/../a"), ("absolute", "/a"), ("double-slash", "x//a"),
             ("trailing-slash", "a/"), ("backslash", "a\\b"), ("empty", ""), ("line-end", "a\n"), ("delete", "a\x7f"),
             ("escape", "a\x1b[2J"), ("256-byte-segment", "x" * 256), ("1025-bytes", "/".join(["x" * 204] * 5) + "y")]
    for what, path in paths:
        yield bent(f"manifest-path-{what}", f"manifest.files[0].path is {path[:20]!r}", FORMAT, "path" if not path else "files",
                   "manifest", put("files", 0, "path", to=path))
    pairs = [("order", "c", "b", "stand out of order"), ("twice", "b", "b", "are equal"), ("case", "B", "b", "differ in case alone"),
             ("prefix", "a", "a/b", "are a file and a folder of one name"), ("prefix-case", "A", "a/b", "collide as file and folder"),
             ("order-utf16", "\U00010000", "\uffff", "stand in UTF-16 order, not in byte order")]
    for what, first, second, comment in pairs:
        yield bent(f"manifest-paths-{what}", f"two paths {comment}", FORMAT, "files", "manifest",
                   lambda m, a=first, b=second: put("files", 0, "path", to=a)(put("files", 1, "path", to=b)(m)), **TWO)
    yield bent("manifest-paths-utf8", "two paths in byte order, one composed and one decomposed: different names", OK, "", "manifest",
               lambda m: put("files", 0, "path", to="a\u0308")(put("files", 1, "path", to="\u00e4")(m)), **TWO)
    for what, to in (("offset-0", 0), ("offset-5", 5), ("offset-4097", 4097), ("offset-8192", 8192)):
        yield changed("manifest", ("files", 1, "offset"), what, "is not the next multiple of 4096", to, **GAP)
    for what, i, to in (("first-long", 0, 4097), ("last-long", 1, 6), ("last-short", 1, 4), ("huge", 1, 2**53 - 1)):
        yield bent(f"manifest-size-{what}", f"manifest.files[{i}].size is {to}", FORMAT, "files", "manifest",
                   put("files", i, "size", to=to), **GAP)
    yield bent("manifest-chunk_digests-wrong", "the digest of chunk 0 is another one", AUTH, "chunk 0", "manifest",
               put("payload", "chunk_digests", to=b64u(make("wrong", 32))))
    yield bent("manifest-changed-after-commitment", "another manifest, well signed, over the same payload: the commitment was "
               "made for the first", AUTH, "key_commitment", "header",
               lambda h: dict(h, key_commitment=b64u(make("of another manifest", 32))))


def recipients():
    block = ("recipients", 0)
    yield missing("recipients", ("recipients",))
    for turn, name in enumerate(("id", "x25519_epk", "mlkem768_ct", "wrapped_key")):
        yield missing("recipients", (*block, name))
        yield from binary("recipients", (*block, name), turn + 5)
    yield changed("recipients", ("recipients",), "none", "is empty", [])
    yield changed("recipients", ("recipients",), "object", "is an object", {})
    yield changed("recipients", block, "string", "is a string", "x")
    yield bent("recipients-twice", "a block stands twice", FORMAT, "recipients", "recipients",
               lambda j: {"recipients": j["recipients"] * 2})
    yield case("recipients-other-key", "no block is for the reader's key", NOTFORKEY, "", recipients=("other",))
    low = {"zero": "00" * 32, "one": "01" + "00" * 31,
           "order-8": "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
           "minus-one": "ec" + "ff" * 30 + "7f", "p": "ed" + "ff" * 30 + "7f"}
    for name, point in low.items():
        yield bent(f"recipients-epk-{name}", "x25519_epk is a point of small order: the shared secret is all zero", AUTH,
                   "recipients", "recipients", put(*block, "x25519_epk", to=b64u(bytes.fromhex(point))))

    for name, position in (("x25519_epk", 0), ("mlkem768_ct", 0), ("mlkem768_ct", 1087), ("wrapped_key", 0), ("wrapped_key", 47)):
        yield bent(f"recipients-{name}-bit-{position}", f"{name}: one bit of byte {position} is another", AUTH, "recipients",
                   "recipients", put(*block, name, to=flip_bit(position)))
    yield bent("recipients-id-of-other", "the block has the reader's id but is sealed to another key", AUTH, "recipients",
               "block_key", lambda _: "device", recipients=("other",))
    keks = {"grant-label": ("with a grant's label", r.grant_kek),
            "no-package-id": ("without the package id", lambda x, m, p, *rest: r.recipient_kek(x, m, b"", *rest)),
            "swapped-secrets": ("from the secrets in the other order", lambda x, m, *rest: r.recipient_kek(m, x, *rest)),
            "x25519-alone": ("from the X25519 secret alone", lambda x, m, *rest: r.recipient_kek(x, b"", *rest)),
            "mlkem-alone": ("from the ML-KEM secret alone", lambda x, m, *rest: r.recipient_kek(b"", m, *rest)),
            "no-public-key": ("without the public key", lambda x, m, p, e, c, k: r.recipient_kek(x, m, p, e, c, b"")),
            "no-epk": ("without the share", lambda x, m, p, e, c, k: r.recipient_kek(x, m, p, b"", c, k)),
            "no-ct": ("without the ciphertext", lambda x, m, p, e, c, k: r.recipient_kek(x, m, p, e, b"", k))}
    for name, (comment, kek) in keks.items():
        yield bent(f"recipients-kek-{name}", f"the KEK was made {comment}", AUTH, "recipients", "kek", lambda _, kek=kek: kek)
    yield bent("recipients-wrap-no-aad", "the file key was wrapped without associated data", AUTH, "recipients", "wrap_aad",
               lambda _: b"")
    yield bent("recipients-file-key-other", "the block holds another file key than the commitment's", AUTH, "key_commitment",
               "file_key", lambda _: make("another file key", 32))
    yield bent("header-key_commitment-bit", "header.key_commitment: one bit is another", AUTH, "key_commitment", "commitment",
               lambda c: bytes([c[0] ^ 1]) + c[1:])


def all_cases():
    for part in (frame, json_rules, header, manifest, recipients):
        yield from part()
