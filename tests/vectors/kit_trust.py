"""Vectors for signatures, chunks, and the documents around a package: grants, trust stores, deployments, the record."""
import base64

import tgsp_reader as r
from kit_sections import AUTH, FORMAT, NOTFORKEY, OK, UNSUPPORTED, bent, case, put
from tgsp_writer import CHUNK, Package, b64u, compact, envelope, grant_block, make, raw, signing_key

DENIED, EXPIRED, ROLLBACK = "DENIED", "EXPIRED", "ROLLBACK"
NOW = 1770000000
THREE = {"files": (("a", 2 * CHUNK + 100),), "zero": True}


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def text_time(t):
    import datetime
    return datetime.datetime.fromtimestamp(t, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def more(c, header=(), parts=None):
    c["header"], c["parts"] = list(header), parts or {}
    return c


# ---- signatures -------------------------------------------------------------------------------------------------

def entry(i, **change):
    def fn(entries):
        entries[i] = {k: v for k, v in dict(entries[i], **change).items() if v is not ...}
        return entries
    return fn


def flipped(name, position):
    def fn(entries):
        data = bytearray(unb64(entries[0][name]))
        data[position] ^= 1
        return entry(0, **{name: b64u(bytes(data))})(entries)
    return fn


def plus_order(entries):
    data = unb64(entries[0]["sig_classic"])
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(data[32:], "little") + order
    return entry(0, sig_classic=b64u(data[:32] + s.to_bytes(32, "little")))(entries)


def half_of_another(name):
    def fn(entries):
        other = signing_key("author").entry(r.package_message(signing_key("author").id, make("another header", 32)))
        return entry(0, **{name: other[name]})(entries)
    return fn


def signatures():
    good = {"trust": ["author author,granter", "author2 author"]}
    lines = [("trust", t) for t in good["trust"]]
    for name, position in (("key_id", 0), ("sig_classic", 0), ("sig_classic", 32), ("sig_pqc", 0), ("sig_pqc", 1700),
                           ("sig_pqc", 3308)):
        yield bent(f"signatures-{name}-bit-{position}", f"{name}: one bit of byte {position} is another", AUTH, "signatures",
                   "entries", flipped(name, position))
    for name in ("key_id", "sig_classic", "sig_pqc"):
        size = {"key_id": 16, "sig_classic": 64, "sig_pqc": 3309}[name]
        yield bent(f"signatures-{name}-missing", f"{name} is missing", FORMAT, name, "entries", entry(0, **{name: ...}))
        yield bent(f"signatures-{name}-null", f"{name} is null", FORMAT, name, "entries", entry(0, **{name: None}))
        yield bent(f"signatures-{name}-short", f"{name} is {size - 1} bytes", FORMAT, name, "entries",
                   entry(0, **{name: b64u(bytes(size - 1))}))
        yield bent(f"signatures-{name}-long", f"{name} is {size + 1} bytes", FORMAT, name, "entries",
                   entry(0, **{name: b64u(bytes(size + 1))}))
        if name != "key_id":
            yield bent(f"signatures-{name}-zero", f"{name} is all zero", AUTH, "signatures", "entries",
                       entry(0, **{name: b64u(bytes(size))}))
            yield bent(f"signatures-{name}-of-another", f"{name} is the author's, over another package", AUTH, "signatures",
                       "entries", half_of_another(name))
    yield bent("signatures-malleable", "sig_classic has S + L in place of S", AUTH, "signatures", "entries", plus_order)
    yield bent("signatures-no-context", "sig_pqc was made without the context string", AUTH, "signatures", "entries",
               no_context())
    yield bent("signatures-other-label", "the author signed with a grant's label", AUTH, "signatures", "message",
               lambda key_id, h: b"TGSP-1.0 grant\0" + key_id + h)
    yield bent("signatures-no-key-id", "the author signed without the key id", AUTH, "signatures", "message",
               lambda key_id, h: b"TGSP-1.0 package signature\0" + h)
    yield bent("signatures-json-alone", "the author signed the hash of the header's JSON without magic and length", AUTH,
               "signatures", "message", json_alone())
    yield bent("signatures-none", "there are no entries", FORMAT, "signatures", "entries", lambda e: [])
    yield bent("signatures-seventeen", "there are seventeen entries", FORMAT, "signatures", "entries",
               lambda e: e + [dict(e[0], key_id=b64u(bytes([i]) * 16)) for i in range(16)])
    yield bent("signatures-twice", "an entry stands twice", FORMAT, "signatures", "entries", lambda e: e * 2)
    yield bent("signatures-entry-string", "an entry is a string", FORMAT, "signatures", "entries", lambda e: ["x"])
    yield bent("signatures-object", "the entries are an object", FORMAT, "signatures", "entries", lambda e: {"0": e[0]})
    yield bent("signatures-member-missing", "the member signatures is missing", FORMAT, "signatures", "signatures_text",
               lambda t: t.replace('"signatures"', '"Signatures"'))
    yield bent("signatures-unknown-member", "an entry has a member more, which is ignored", OK, "", "entries", entry(0, note="x"))
    yield case("signatures-stranger", "signed by nobody who is trusted", AUTH, "signatures", signers=("stranger",))
    yield bent("signatures-stranger-as-author", "a stranger's signature under the author's id", AUTH, "signatures", "entries",
               entry(0, key_id=b64u(signing_key("author").id)), signers=("stranger",))
    yield case("signatures-stranger-first", "a stranger's entry is skipped, the author's counts", OK, "",
               signers=("stranger", "author"))
    yield bent("signatures-stranger-broken", "a broken entry of a stranger is skipped", OK, "", "entries",
               entry(0, sig_classic=b64u(bytes(64))), signers=("stranger", "author"))
    yield more(bent("signatures-one-of-two-broken", "both authors are trusted and one's signature is broken: an error, not a "
                    "warning", AUTH, "signatures", "entries", entry(1, sig_pqc=b64u(bytes(3309))), signers=("author", "author2")),
               lines)
    yield more(case("signatures-threshold-met", "two of two", OK, "", signers=("author", "author2")), [*lines, ("threshold", "2")])
    yield more(case("signatures-threshold-short", "one of two", DENIED, "signatures"), [*lines, ("threshold", "2")])
    yield more(case("signatures-threshold-stranger", "a stranger does not count towards the threshold", DENIED, "signatures",
                    signers=("author", "stranger")), [*lines, ("threshold", "2")])
    yield more(case("signatures-role-platform", "signed by a trusted key that is no author", DENIED, "signatures"),
               [("trust", "author platform")])
    yield more(case("signatures-role-granter", "signed by a trusted key that may only grant", DENIED, "signatures"),
               [("trust", "author granter")])


def no_context():
    """The one case that needs the message to sign it otherwise."""
    key = signing_key("author")
    p = Package()
    e = key.entry(r.package_message(key.id, p.h))
    e["sig_pqc"] = b64u(key.pqc(r.package_message(key.id, p.h), context=""))
    return lambda _: [e]


def json_alone():
    key = signing_key("author")
    header = raw(Package().header)
    return lambda key_id, h: r.package_message(key.id, r.sha256(header))


# ---- chunks -----------------------------------------------------------------------------------------------------

def swap(chunks):
    return [chunks[1], chunks[0], *chunks[2:]]


def chunks():
    yield bent("payload-bit", "one bit of the only chunk is another", AUTH, "chunk 0", "payload",
               lambda c: [bytes([c[0][0] ^ 1]) + c[0][1:]])
    yield bent("payload-tag-bit", "one bit of the only chunk's tag is another", AUTH, "chunk 0", "payload",
               lambda c: [c[0][:-1] + bytes([c[0][-1] ^ 1])])
    yield bent("payload-tag-bit-signed", "one bit of the tag is another, and the author signed the digest of that", AUTH,
               "chunk 0", "stored", lambda c: [c[0][:-1] + bytes([c[0][-1] ^ 1])])
    yield bent("payload-bit-signed", "one bit of the ciphertext is another, and the author signed the digest of that", AUTH,
               "chunk 0", "stored", lambda c: [bytes([c[0][0] ^ 1]) + c[0][1:]])
    yield bent("payload-short", "the payload is a byte shorter than the header says", FORMAT, "payload", "payload",
               lambda c: [c[0][:-1]])
    yield bent("payload-long", "the payload is a byte longer than the header says", FORMAT, "payload", "payload",
               lambda c: [c[0] + b"\0"])
    yield bent("payload-empty", "the payload is empty: not even a tag", FORMAT, "payload", "payload", lambda c: [])
    yield bent("payload-no-tag", "the payload is without its tag", FORMAT, "payload", "payload", lambda c: [c[0][:-16]])
    three = [
        ("swapped", [2], "chunks 0 and 1 change places", "payload", swap),
        ("swapped-signed", [2], "chunks 0 and 1 change places, and the digests with them", "stored", swap),
        ("doubled", [0, 2], "chunk 0 stands in chunk 1's place too", "payload", lambda c: [c[0], c[0], c[2]]),
        ("doubled-signed", [0, 2], "chunk 0 stands in chunk 1's place too, and its digest", "stored", lambda c: [c[0], c[0], c[2]]),
        ("digests-swapped", [2], "the digests of chunks 0 and 1 change places", "digest", lambda d, _: swap(d)),
        ("middle-bit", [0, 2], "one bit of chunk 1 is another", "payload", lambda c: [c[0], bytes([c[1][0] ^ 1]) + c[1][1:], c[2]]),
        ("last-bit", [0, 1], "one bit of the last chunk is another", "payload", lambda c: [*c[:2], bytes([c[2][0] ^ 1]) + c[2][1:]]),
        ("second-piece-bit", [1, 2], "one bit of chunk 0's second 32 KiB is another", "payload",
         lambda c: [c[0][:40000] + bytes([c[0][40000] ^ 1]) + c[0][40001:], *c[1:]]),
    ]
    for name, sound, comment, step, fn in three:
        yield streamed(f"payload-three-{name}", comment, sound, step, fn, **THREE)
    yield bent("payload-three-without-last", "the last chunk is cut off", FORMAT, "payload", "payload", lambda c: c[:2], **THREE)
    yield bent("payload-three-one-more", "the last chunk stands twice", FORMAT, "payload", "payload", lambda c: c + c[-1:], **THREE)
    sealing = [
        ("no-last-flag", [0, 1], "the last chunk's nonce does not say that it is the last",
         lambda n, i: (r.chunk_nonce(i, False), b"")),
        ("all-last", [2], "every chunk's nonce says that it is the last", lambda n, i: (r.chunk_nonce(i, True), b"")),
        ("from-one", [], "the chunks are counted from one", lambda n, i: (r.chunk_nonce(i + 1, i == 2), b"")),
        ("little-endian", [0], "the chunk's number is little-endian in the nonce",
         lambda n, i: (i.to_bytes(11, "little") + n[0][11:], b"")),
        ("with-aad", [], "the chunks have associated data", lambda n, i: (n[0], b"TGSP")),
        ("one-nonce", [0], "all chunks have the nonce of the first", lambda n, i: (r.chunk_nonce(0, False), b"")),
    ]
    for name, sound, comment, fn in sealing:
        yield streamed(f"payload-sealed-{name}", comment, sound, "sealing", fn, **THREE)
    digests = [("no-label", "without its label", lambda s: r.sha256(*pieces(s), s[-16:])),
               ("no-tag", "without the tag", lambda s: r.sha256(b"TGSP-1.0 chunk", *pieces(s))),
               ("plain-sha256", "as the plain SHA-256 of the chunk", r.sha256),
               ("one-piece", "as if the chunk were one piece", lambda s: r.sha256(b"TGSP-1.0 chunk", r.sha256(s[:-16]), s[-16:])),
               ("tag-in-piece", "with the tag in the last piece", lambda s: r.sha256(b"TGSP-1.0 chunk", *pieces(s + bytes(16)), s[-16:])),
               ("big-pieces", "in pieces of 64 KiB", lambda s: r.sha256(b"TGSP-1.0 chunk", *pieces(s, CHUNK), s[-16:]))]
    for name, comment, fn in digests:
        yield bent(f"payload-digest-{name}", f"the digests were made {comment}", AUTH, "chunk 0", "digest",
                   lambda _, stored, fn=fn: [fn(c) for c in stored], files=(("a", CHUNK),), zero=True)
    keys = [("no-package-id", "without the package id", lambda k: r.hkdf(make("file_key", 32), make("payload_salt", 32),
                                                                         b"TGSP-1.0 payload" + b"chacha20-poly1305")),
            ("no-suite", "without the suite's name", lambda k: r.hkdf(make("file_key", 32), make("payload_salt", 32),
                                                                      b"TGSP-1.0 payload" + make("package_id", 16))),
            ("file-key", "by taking the file key itself", lambda k: make("file_key", 32))]
    for name, comment, fn in keys:
        yield bent(f"payload-key-{name}", f"the payload key was made {comment}", AUTH, "chunk 0", "payload_key", fn)
    yield bent("payload-other-suite", "the chunks are sealed with the other suite", AUTH, "chunk 0", "suite", lambda _: "aes-256-gcm")
    yield bent("payload-gap", "a byte between two files is not zero", FORMAT, "payload", "gap", lambda p: gap(p, 6),
               files=(("a", 5), ("b", 5)))
    yield bent("payload-gap-last-byte", "the last byte before the second file is not zero", FORMAT, "payload", "gap",
               lambda p: gap(p, 4095), files=(("a", 5), ("b", 5)))
    aes = {"aead": "aes-256-gcm"}
    yield bent("payload-aes-bit", "AES: one bit of the chunk is another", AUTH, "chunk 0", "payload",
               lambda c: [bytes([c[0][0] ^ 1]) + c[0][1:]], **aes)
    yield bent("payload-aes-tag-bit-signed", "AES: one bit of the tag is another, and the author signed the digest of that", AUTH,
               "chunk 0", "stored", lambda c: [c[0][:-1] + bytes([c[0][-1] ^ 1])], **aes)
    yield bent("payload-aes-other-suite", "the header says AES and the chunks are sealed with ChaCha20-Poly1305", AUTH, "chunk 0",
               "suite", lambda _: "chacha20-poly1305", **aes)
    yield bent("payload-aes-key", "AES: the payload key was made with the other suite's name", AUTH, "chunk 0", "payload_key",
               lambda k: r.payload_key(make("file_key", 32), make("payload_salt", 32), make("package_id", 16), "chacha20-poly1305"), **aes)
    two = {"files": (("a", CHUNK + 100),), "zero": True, "aead": "aes-256-gcm"}
    yield streamed("payload-aes-last-bit", "AES: one bit of the last chunk is another", [0], "payload",
                   lambda c: [c[0], bytes([c[1][0] ^ 1]) + c[1][1:]], **two)
    yield streamed("payload-aes-no-last-flag", "AES: the last chunk's nonce does not say that it is the last", [0], "sealing",
                   lambda n, i: (r.chunk_nonce(i, False), b""), **two)
    yield bent("recipients-aes-wrapped-bit", "AES: wrapped_key: one bit is another", AUTH, "recipients", "recipients",
               put("recipients", 0, "wrapped_key", to=lambda v: ("B" if v[0] == "A" else "A") + v[1:]), **aes)


def streamed(name, comment, sound, step, fn, **package):
    """A fault in some chunks; those in `sound` pass by themselves, and a reader of single chunks may release them."""
    c = bent(name, comment, AUTH, "chunk", step, fn, **package)
    c["sound"] = sound
    return c


def pieces(stored, size=r.PIECE):
    ct = stored[:-16]
    return [r.sha256(ct[i:i + size]) for i in range(0, len(ct), size)]


def gap(plain, position):
    plain[position] = 1
    return plain


# ---- policy -----------------------------------------------------------------------------------------------------

def with_manifest(**fields):
    return {"bend": {"manifest": lambda m: dict(m, **fields)}}


def policy():
    for name, field, offset, expect in (("not-before-now", "not_before", 0, OK), ("not-before-later", "not_before", 1, EXPIRED),
                                        ("not-after-now", "not_after", 0, EXPIRED), ("not-after-later", "not_after", 1, OK)):
        yield case(f"policy-{name}", f"validity.{field} is now + {offset} s", expect, field if expect != OK else "",
                   **with_manifest(validity={field: text_time(NOW + offset)}))
    fleets = with_manifest(constraints={"fleets": ["fleet-a", "fleet-b"]})
    for fleet, expect in (("fleet-b", OK), ("fleet-c", DENIED), ("Fleet-a", DENIED), ("fleet", DENIED), ("fleet-ab", DENIED)):
        yield more(case(f"policy-fleet-{fleet}", f"for fleet-a and fleet-b, on a device of {fleet}", expect,
                        "fleets" if expect != OK else "", **fleets), [("fleet", fleet)])
    for need, have, expect in (("1.2.3", "1.2.3", OK), ("1.2.3", "1.2.2", DENIED), ("1.10.0", "1.9.9", DENIED), ("0.9.9", "1.0.0", OK)):
        yield more(case(f"policy-agent-{need}-{have}".replace(".", "-"), f"needs agent {need}, this is {have}", expect,
                        "min_agent" if expect != OK else "", **with_manifest(constraints={"min_agent": need})), [("agent", have)])


def h_of(**package):
    return Package(**package).h


def record(**fields):
    entry_ = {"model": "m", "floor": 0, "sequence": 7, "header_sha256": b64u(make("recorded", 32)),
              "current": b64u(make("recorded", 32))}
    entry_.update(fields)
    return {"tgsp_rollback": "1.0", "models": [{k: v for k, v in entry_.items() if v is not None}]}


def rollback():
    h = b64u(h_of())
    rows = [
        ("nothing-recorded", "nothing is recorded for the name", record(model="another"), OK),
        ("below-floor", "the sequence is below the recorded floor", record(floor=8, sequence=9), ROLLBACK),
        ("below-floor-previous", "it served just before, but the floor was raised since: never below F",
         record(floor=8, sequence=9, previous=h), ROLLBACK),
        ("above", "the sequence is above the recorded one", record(sequence=6), OK),
        ("same", "the recorded package itself", record(header_sha256=h, current=h), OK),
        ("same-sequence-other-package", "the recorded sequence with another identity", record(), ROLLBACK),
        ("below", "the sequence is below the recorded one", record(sequence=8), ROLLBACK),
        ("current", "below, but it is what served last", record(sequence=8, current=h), OK),
        ("previous", "below, but it is what served just before", record(sequence=8, previous=h), OK),
        ("record-unknown-member", "the record has a member that is not known", record(sequence=6, extra=1), FORMAT),
        ("record-unknown-version", "the record's version is not known", dict(record(sequence=6), tgsp_rollback="1.1"), UNSUPPORTED),
        ("record-twice", "a name stands twice in the record", {"tgsp_rollback": "1.0", "models": record(sequence=6)["models"] * 2}, FORMAT),
        ("record-no-current", "the record's entry has no current", record(sequence=6, current=None), FORMAT),
    ]
    for name, comment, rec, expect in rows:
        yield more(case(f"rollback-{name}", comment, expect, ""), parts={"rollback-record": raw(compact(rec))})


LABELS = {"grant": b"TGSP-1.0 grant", "deployment": b"TGSP-1.0 deployment", "trust": b"TGSP-1.0 trust store"}


def document(what, fields, *signers, label=None, bend=None, **change):
    """The bytes of a signed document; change drops (...) or sets members before signing, bend changes the envelope."""
    body = {k: v for k, v in dict(fields, **change).items() if v is not ...}
    outer = envelope(what, label or LABELS[what], body, *signers)
    return raw(compact(bend(outer) if bend else outer))


def grants():
    h = h_of()
    block = grant_block("other", "grant", h, "chacha20-poly1305", make("file_key", 32))
    fields = {"tgsp_grant": "1.0", "package_id": b64u(make("package_id", 16)), "header_sha256": b64u(h), "recipient": block,
              "issued_at": text_time(NOW), "not_before": text_time(NOW - 60), "not_after": text_time(NOW + 60), "crit": []}
    wrong = b64u(make("wrong", 32))

    def row(name, comment, expect, signers=("author",), trust=None, key="other", **change):
        lines = [("key", key)] + ([("trust", t) for t in trust] if trust else [])
        return more(case(f"grant-{name}", comment, expect, "grant" if expect != OK else ""), lines,
                    {"grant": document("grant", fields, *signers, **change)})
    yield row("good", "a grant lets one more key in", OK)
    yield row("times-now", "not_before is now", OK, not_before=text_time(NOW))
    yield row("early", "not_before is in a second", EXPIRED, not_before=text_time(NOW + 1))
    yield row("late", "not_after is now", EXPIRED, not_after=text_time(NOW))
    yield row("stranger", "signed by nobody who is trusted", AUTH, signers=("stranger",))
    yield row("not-granter", "signed by an author who may not grant", DENIED, trust=["author author"])
    yield row("other-package", "header_sha256 is another package's", DENIED, header_sha256=wrong)
    yield row("other-package-id", "package_id is another package's", DENIED, package_id=wrong[:21] + "A")
    yield row("other-key", "the recipient block is for another key", NOTFORKEY, key="third")
    yield row("version", "tgsp_grant is not known", UNSUPPORTED, tgsp_grant="2.0")
    yield row("crit", "crit names a member that no reader knows", UNSUPPORTED, crit=["grant.new"], new=1)
    yield row("crit-not-there", "crit names a member that is not there", FORMAT, crit=["grant.new"])
    for name in fields:
        yield row(f"{name}-missing", f"{name} is missing", FORMAT, **{name: ...})
    yield row("label", "signed with a package's label", AUTH, label=b"TGSP-1.0 package signature")
    yield row("no-signature", "there is no signature", FORMAT, bend=lambda o: dict(o, signatures=[]))
    yield row("two-signatures", "there are two signatures", FORMAT, signers=("author", "author2"))
    yield row("signature-bit", "one bit of the post-quantum signature is another", AUTH,
              bend=lambda o: dict(o, signatures=flipped("sig_pqc", 9)(o["signatures"])))
    yield row("wrapped-bit", "one bit of wrapped_key is another, signed so", AUTH,
              recipient=dict(block, wrapped_key=("B" if block["wrapped_key"][0] == "A" else "A") + block["wrapped_key"][1:]))
    yield row("recipient-kek", "the block's KEK was made with a recipient's label", AUTH,
              recipient=grant_block("other", "grant", h, "chacha20-poly1305", make("file_key", 32),
                                    lambda x, m, *rest: r.recipient_kek(x, m, *rest)))
    yield row("other-file-key", "the block holds another file key", AUTH,
              recipient=grant_block("other", "grant", h, "chacha20-poly1305", make("another", 32)))
    yield row("padded", "the inner document is padded base64url", FORMAT, bend=lambda o: dict(o, grant=o["grant"] + "="))


def store_fields(*keys, **change):
    fields = {"tgsp_trust": "1.0", "version": 1, "issued_at": text_time(NOW),
              "keys": [{"public_key": b64u(signing_key(n).raw), "roles": roles.split(","), **rest} for n, roles, rest in keys],
              "default_threshold": 1, "thresholds": [], "change_threshold": 1, "resets": [], "crit": []}
    fields.update(change)
    return fields


def stores():
    author = ("author", "author,granter", {})
    plain = store_fields(author)

    def row(name, comment, expect, fields, signers=(), old=None, header=(), parts=None, names="", **change):
        text = document("trust", fields, *signers, **change)
        have = {"trust-store": old, "next-trust-store": text} if old else {"trust-store": text}
        return more(case(f"trust-{name}", comment, expect, names), header, {**have, **(parts or {})})
    yield row("good", "an unsigned first store", OK, plain)
    yield row("models", "the author may sign this model", OK, store_fields(("author", "author", {"models": ["m", "n"]})))
    yield row("models-other", "the author may sign other models only", DENIED, store_fields(("author", "author", {"models": ["M", "mm"]})))
    yield row("threshold-model", "this model needs two signatures", DENIED, dict(plain, thresholds=[{"model": "m", "signatures": 2}]))
    yield row("threshold-other", "another model needs two signatures", OK, dict(plain, thresholds=[{"model": "n", "signatures": 2}]))
    yield row("threshold-default", "models need two signatures unless said otherwise", DENIED, dict(plain, default_threshold=2))
    yield row("empty", "a store without keys", AUTH, store_fields())
    faults = [("default_threshold", 0), ("default_threshold", 17), ("change_threshold", 0), ("version", 0), ("issued_at", "now")]
    for name, value in faults:
        yield row(f"{name}-{value}", f"{name} is {value}", FORMAT, dict(plain, **{name: value}), names=name)
    for name in ("version", "issued_at", "keys", "default_threshold", "thresholds", "change_threshold", "resets", "crit"):
        yield row(f"{name}-missing", f"{name} is missing", FORMAT, plain, names=name, **{name: ...})
    yield row("version-unknown", "tgsp_trust is not known", UNSUPPORTED, dict(plain, tgsp_trust="1.1"))
    yield row("key-twice", "a key stands twice", FORMAT, store_fields(author, author))
    mixed = dict(plain["keys"][0], public_key=b64u(signing_key("author").raw[:32] + signing_key("author2").raw[32:]))
    yield row("half-shared", "two entries share their Ed25519 key", FORMAT, dict(plain, keys=[plain["keys"][0], mixed]))
    yield row("roles-none", "an entry without roles", FORMAT, dict(plain, keys=[dict(plain["keys"][0], roles=[])]))
    yield row("roles-twice", "a role stands twice", FORMAT, dict(plain, keys=[dict(plain["keys"][0], roles=["author", "author"])]))
    yield row("roles-unknown", "a role that is not known", UNSUPPORTED, dict(plain, keys=[dict(plain["keys"][0], roles=["owner"])]))
    yield row("key-unknown-member", "an entry has a member that is not known: it might narrow a right", FORMAT,
              dict(plain, keys=[dict(plain["keys"][0], until="2027")]))
    yield row("threshold-unknown-member", "a threshold has a member that is not known", FORMAT,
              dict(plain, thresholds=[{"model": "m", "signatures": 1, "x": 1}]))
    yield row("threshold-twice", "a name stands twice in thresholds", FORMAT, dict(plain, thresholds=[{"model": "m", "signatures": 1}] * 2))
    yield row("resets-zero", "a reset count is 0", FORMAT, dict(plain, resets=[{"model": "m", "count": 0}]))
    yield row("models-not-author", "models for a key that is no author", FORMAT,
              store_fields(("author", "granter", {"models": ["m"]})))
    yield row("crit", "crit names a member that no reader knows", UNSUPPORTED, dict(plain, crit=["trust.new"], new=1))
    for name, point in (("identity", "01" + "00" * 31), ("small-order", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
                        ("y-p", "ed" + "ff" * 30 + "7f"), ("off-curve", "02" + "00" * 31)):
        bad = b64u(bytes.fromhex(point) + signing_key("author").raw[32:])
        yield row(f"ed25519-{name}", f"the Ed25519 half is no usable key ({name})", FORMAT,
                  dict(plain, keys=[dict(plain["keys"][0], public_key=bad)]))
    yield from changes(plain, row)
    yield from resets(plain, row)


def changes(plain, row):
    both = store_fields(("author", "author,granter", {}), ("author2", "author", {}), ("platform", "platform", {}))
    new = dict(plain, version=2)
    old = document("trust", both)
    yield row("next", "a newer store, signed by an author of the old one", OK, new, ("author2",), old)
    yield row("next-same-version", "the offered store is not newer", ROLLBACK, dict(new, version=1), ("author",), old)
    yield row("next-older", "the offered store is older", ROLLBACK, new, ("author",), document("trust", dict(both, version=3)))
    yield row("next-unsigned", "the offered store is not signed", DENIED, new, (), old)
    yield row("next-stranger", "the offered store is signed by a stranger", DENIED, new, ("stranger",), old)
    yield row("next-platform", "the platform's key never counts for a change", DENIED, new, ("platform",), old)
    yield row("next-own-key", "the offered store is signed by a key that only it has", DENIED,
              dict(store_fields(("author", "author", {}), ("stranger", "author", {})), version=2), ("stranger",), old)
    limited = document("trust", store_fields(("author", "author", {"models": ["m"]})))
    yield row("next-limited-author", "an author limited to some names cannot change the store", DENIED, new, ("author",), limited)
    two = document("trust", dict(both, change_threshold=2))
    yield row("next-one-of-two", "a change needs two signatures", DENIED, new, ("author",), two)
    yield row("next-two-of-two", "a change has both signatures", OK, new, ("author", "author2"), two)
    yield row("next-lowers-threshold", "the offered store says one is enough; the old one's word counts", DENIED,
              dict(new, change_threshold=1), ("author",), two)
    yield row("next-broken", "a known key's signature on the offered store is broken", AUTH, new, ("author", "author2"), old,
              bend=lambda o: dict(o, signatures=flipped("sig_pqc", 5)(o["signatures"])))
    yield row("next-removes-author", "the newer store no longer has the package's author", AUTH,
              dict(store_fields(("author2", "author", {})), version=2), ("author2",), old)


def resets(plain, row):
    reset = dict(plain, resets=[{"model": "m", "count": 2}])
    low = record(floor=9, sequence=9)
    yield row("reset", "the store reset the name since the record was written", OK, reset,
              parts={"rollback-record": raw(compact(record(floor=9, sequence=9, reset_count=1)))})
    yield row("reset-seen", "the record has seen this reset already", ROLLBACK, reset,
              parts={"rollback-record": raw(compact(record(floor=9, sequence=9, reset_count=2)))})
    yield row("reset-other-model", "the store reset another name", ROLLBACK, dict(plain, resets=[{"model": "n", "count": 9}]),
              parts={"rollback-record": raw(compact(low))})


def deployments():
    h = h_of()
    fields = {"tgsp_deployment": "1.0", "deployment_id": "d-1", "header_sha256": b64u(h), "fleet": "fleet-a", "device": "dev-1",
              "allow_rollback": True, "issued_at": text_time(NOW), "not_after": text_time(NOW + 60), "crit": []}
    above = raw(compact(record(sequence=8)))

    def row(name, comment, expect, signers=("platform",), rec=None, roles="platform", header=(), **change):
        lines = [("fleet", "fleet-a"), ("device", "dev-1"), ("trust", "author author,granter"), ("trust", f"platform {roles}"), *header]
        parts = {"deployment": document("deployment", fields, *signers, **change)}
        if rec:
            parts["rollback-record"] = rec
        return more(case(f"deployment-{name}", comment, expect, ""), lines, parts)
    yield row("good", "a sound deployment", OK)
    yield row("fleet-wide", "a deployment for every device of the fleet", OK, device=...)
    yield row("rollback", "a deployment that allows going back", OK, rec=above)
    yield row("no-rollback", "a deployment that names the package but does not allow going back", ROLLBACK, rec=above, allow_rollback=False)
    yield row("below-floor", "no deployment goes below F", ROLLBACK, rec=raw(compact(record(floor=8, sequence=8))))
    yield row("other-package", "it names another package", DENIED, header_sha256=b64u(make("wrong", 32)))
    yield row("other-fleet", "it is for another fleet", DENIED, fleet="fleet-b")
    yield row("other-device", "it is for another device", DENIED, device="dev-2")
    yield row("role", "its signer is no platform", DENIED, roles="author")
    yield row("author", "an author signed it", DENIED, signers=("author",))
    yield row("stranger", "signed by nobody who is trusted", AUTH, signers=("stranger",))
    yield row("label", "signed with a grant's label", AUTH, label=b"TGSP-1.0 grant")
    yield row("slack", "issued five minutes ahead of this clock", OK, issued_at=text_time(NOW + 300), not_after=text_time(NOW + 900))
    yield row("future", "issued more than five minutes ahead", EXPIRED, issued_at=text_time(NOW + 301), not_after=text_time(NOW + 900))
    yield row("late", "not_after is now", EXPIRED, not_after=text_time(NOW))
    yield row("version", "tgsp_deployment is not known", UNSUPPORTED, tgsp_deployment="1.1")
    yield row("crit", "crit names a member that no reader knows", UNSUPPORTED, crit=["deployment.new"], new=1)
    yield row("id-65-bytes", "deployment_id is 65 bytes", FORMAT, deployment_id="x" * 65)
    yield row("allow-number", "allow_rollback is a number", FORMAT, allow_rollback=1)
    for name in ("deployment_id", "header_sha256", "fleet", "allow_rollback", "issued_at", "not_after", "crit"):
        yield row(f"{name}-missing", f"{name} is missing", FORMAT, **{name: ...})


def all_cases():
    for part in (signatures, chunks, policy, rollback, grants, stores, deployments):
        yield from part()
