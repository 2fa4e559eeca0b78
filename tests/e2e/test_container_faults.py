"""Packages that are not what they should be, seen from outside: the error's words and the exit status.

The sweep over every single bit is tests/unit/tgsp/test_corrupt.c; here a sample of it goes through the programs.
"""
import json
import os
import random
import subprocess

import pytest

import pack
import programs

SEED = 20260131


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def good(author, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    pack.write(folder / "model" / "a", os.urandom(150000))
    pack.write(folder / "model" / "b", b"second")
    pack.build(author, folder / "model", folder / "m.tgsp", "--chunk-size", 65536, "--not-before", "2020-01-01")
    return folder / "m.tgsp"


@pytest.fixture
def parts(good):
    return pack.Parts(good)


def refused(author, package, rc, *words):
    """verify and open refuse with this status and these words, and open leaves nothing behind."""
    out = package.parent / "out"
    before = sorted(os.listdir(package.parent))
    results = [pack.run("verify", package, "--trust", author.pub, rc=rc),
               pack.run("open", package, "--key", author.key, "--trust", author.pub, "--out-dir", out, rc=rc)]
    for r in results:
        assert r.err.count("\n") == 1 and package.name in r.err, r
        for word in words:
            assert word in r.err, r
    assert sorted(os.listdir(package.parent)) == before
    return results


def statuses(author, folder, variants):
    """The exit status of `verify` for each of many byte strings, by one shell loop; none may crash."""
    script = "for f in *.v; do \"$0\" verify $f --trust \"$1\" >/dev/null 2>$f.err; echo $f $?; done"
    for name, data in variants:
        (folder / f"{name}.v").write_bytes(data)
    done = subprocess.run(["sh", "-c", script, programs.path("tensorguard"), str(author.pub)], cwd=folder, text=True,
                          capture_output=True, check=True)
    return {line.split()[0][:-2]: int(line.split()[1]) for line in done.stdout.splitlines()}


def test_cut_at_every_border_and_two_hundred_other_places(author, good, parts, tmp_path):
    raw = good.read_bytes()
    rng = random.Random(SEED)
    cuts = {c for b in parts.borders() for c in (b - 1, b, b + 1) if 0 <= c < len(raw)}
    cuts |= {rng.randrange(len(raw)) for _ in range(220)}
    assert len(cuts) > 200
    got = statuses(author, tmp_path, [(f"{c:07}", raw[:c]) for c in cuts])
    assert len(got) == len(cuts)
    assert set(got.values()) == {pack.EXIT["FORMAT"]}, got
    for c in list(cuts)[:20]:
        text = (tmp_path / f"{c:07}.v.err").read_text()
        assert "offset" in text or "empty" in text or "bytes" in text, text


def test_a_sample_of_single_bits(author, good, parts, tmp_path):
    raw = good.read_bytes()
    rng = random.Random(SEED)
    places = [rng.randrange(len(raw)) for _ in range(150)]
    for name in parts.NAMES:  # some in every section and every length field
        off, n = parts.at[name]
        places += [off - 1, off - 4, off, off + n - 1] + [off + rng.randrange(n) for _ in range(12)]

    def flipped(at, bit):
        b = bytearray(raw)
        b[at] ^= 1 << bit
        return bytes(b)

    variants = [(f"{at:07}-{bit}", flipped(at, bit)) for at in places for bit in [rng.randrange(8)]]
    got = statuses(author, tmp_path, variants)
    assert all(rc in (pack.EXIT["FORMAT"], pack.EXIT["AUTH"], pack.EXIT["UNSUPPORTED"], pack.EXIT["LIMIT"]) for rc in got.values()), got


def test_lengths_that_lie(author, good, parts, tmp_path):
    raw = good.read_bytes()
    for name in parts.NAMES:
        width = 8 if name == "payload" else 4
        at = parts.at[name][0] - width
        for value in {2**32 - 1, 2**31, 0, parts.at[name][1] + 1, parts.at[name][1] - 1} | ({2**63, 2**64 - 1} if width == 8 else set()):
            bad = pack.write(tmp_path / "bad.tgsp", raw[:at] + value.to_bytes(width, "big") + raw[at + width:])
            r = pack.run("verify", bad, "--trust", author.pub, rc=None)
            assert r.rc in (pack.EXIT["FORMAT"], pack.EXIT["LIMIT"], pack.EXIT["AUTH"]), (name, value, r)
            assert "offset" in r.err or name in r.err, r


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"x" * 100])
def test_trailing_bytes(author, good, tmp_path, tail):
    refused(author, pack.write(tmp_path / "m.tgsp", good.read_bytes() + tail), "FORMAT")


def test_what_is_no_package_at_all(author, tmp_path):
    for name, data in (("empty", b""), ("text", b"hello\n"), ("zip", b"PK\3\4" + bytes(100)), ("next", b"TGSP\x02\x00" + bytes(100))):
        refused(author, pack.write(tmp_path / name / "m.tgsp", data), {"next": "UNSUPPORTED"}.get(name, "FORMAT"))
    assert pack.run("verify", tmp_path, "--trust", author.pub, rc=None).rc in (3, 4)
    pack.run("verify", tmp_path / "missing", "--trust", author.pub, rc="NOTFOUND")


# ---- signed by the author himself, so that what is inside gets looked at ----

def test_forging_as_the_author_works(author, parts, tmp_path):
    """The control: a package taken apart, signed by openssl and put together again is accepted."""
    made = parts.rehash().sign(author).write(tmp_path / "m.tgsp")
    pack.run("verify", made, "--trust", author.pub)
    pack.run("open", made, "--key", author.key, "--trust", author.pub, "--out-dir", tmp_path / "out")
    assert len(pack.tree(tmp_path / "out")) == 2


@pytest.mark.parametrize("section", ["header", "manifest", "recipients"])
@pytest.mark.parametrize("fault,change", [
    ("duplicate key", lambda t: b'{"tgsp":"1.0",' + t.lstrip()[1:] if b'"tgsp"' in t else b'{"recipients":[],"files":[],' + t.lstrip()[1:]),
    ("duplicate key in disguise", lambda t: t.lstrip()[:-1] + b',"\\u0074gsp":"1.0","tgsp2":1,"tgsp2":2}'),
    ("depth bomb", lambda t: t.rstrip()[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    ("trailing text", lambda t: t + b" x"),
    ("a number with a fraction", lambda t: t.rstrip()[:-1] + b',"x":1.5}'),
    ("a number that is too large", lambda t: t.rstrip()[:-1] + b',"x":9007199254740992}'),
    ("no UTF-8", lambda t: t.rstrip()[:-1] + b',"x":"\xff"}'),
    ("a lone surrogate", lambda t: t.rstrip()[:-1] + b',"x":"\\ud800"}'),
    ("a byte order mark", lambda t: b"\xef\xbb\xbf" + t),
    ("an array", lambda t: b"[" + t + b"]"),
])
def test_json_that_breaks_the_rules(author, parts, tmp_path, section, fault, change):
    parts.set(section, change(parts.raw[section]))
    if section != "header":
        parts.rehash()
    parts.sign(author)
    bad = parts.write(tmp_path / "m.tgsp")
    r = pack.run("verify", bad, "--trust", author.pub, rc="FORMAT")
    assert section in r.err, (fault, r)
    pack.run("inspect", bad, rc="FORMAT")


@pytest.mark.parametrize("where,field,value", [
    ("header", "tgsp", "2.0"), ("header", "aead", "rot13"), ("header", "kem", "rsa"), ("header", "sig", "none"), ("header", "hash", "md5"),
    ("header", "chunk_size", 65537), ("header", "chunk_size", 0), ("header", "payload_plain_len", 0), ("header", "package_id", "AAAA"),
    ("header", "crit", ["header.unheard_of"]), ("header", "created_at", "yesterday"),
    ("manifest", "files", None), ("manifest", "model", {}), ("manifest", "constraints", {"planets": ["earth"]}),
    ("manifest", "validity", {"until": "2030-01-01T00:00:00Z"})])
def test_fields_that_are_wrong(author, parts, tmp_path, where, field, value):
    j = parts.json(where)
    j[field] = value
    parts.set(where, j)
    if where == "manifest":
        parts.rehash()
    r = pack.run("verify", parts.sign(author).write(tmp_path / "m.tgsp"), "--trust", author.pub, rc=None)
    assert r.rc in (pack.EXIT["FORMAT"], pack.EXIT["UNSUPPORTED"]), r
    assert field in r.err or "chunk" in r.err, r


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../b", "a//b", "./a", "a\\b", "a\nb", "", "x" * 1025, "A"])
def test_paths_that_lead_elsewhere(author, parts, tmp_path, path):
    m = parts.json("manifest")
    m["files"][0]["path"] = path if path != "A" else "B"  # B and b are one on some file systems
    parts.set("manifest", m).rehash().sign(author)
    refused(author, parts.write(tmp_path / "deep" / "m.tgsp"), "FORMAT", "files")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]


# ---- signatures ----

def entries(parts):
    return parts.json("signatures")["signatures"]


def test_one_half_of_a_signature_missing_or_wrong(author, parts, tmp_path):
    e = entries(parts)[0]
    for half, rc in (("sig_classic", "FORMAT"), ("sig_pqc", "FORMAT")):
        cut = {k: v for k, v in e.items() if k != half}
        refused(author, parts.set("signatures", {"signatures": [cut]}).write(tmp_path / "m.tgsp"), rc, "signatures", half)
    for half, n in (("sig_classic", 64), ("sig_pqc", 3309)):
        other = dict(e, **{half: pack.b64(bytes(n))})
        refused(author, parts.set("signatures", {"signatures": [other]}).write(tmp_path / "m.tgsp"), "AUTH", "signature")


def test_two_halves_from_different_packages(author, good, tmp_path):
    pack.write(tmp_path / "model" / "x")
    pack.build(author, tmp_path / "model", tmp_path / "other.tgsp")
    a, b = pack.Parts(good), pack.Parts(tmp_path / "other.tgsp")
    ea, eb = entries(a)[0], entries(b)[0]
    for mixed in (dict(ea, sig_pqc=eb["sig_pqc"]), dict(ea, sig_classic=eb["sig_classic"]), eb):
        refused(author, a.set("signatures", {"signatures": [mixed]}).write(tmp_path / "one" / "m.tgsp"), "AUTH", "signature")


def test_another_key_under_the_authors_name(author, stranger, parts, tmp_path):
    """The wrong key signs, the entry claims the trusted one's id."""
    import tgsp_reader
    classic, pqc = stranger.signature(tgsp_reader.package_message(author.key_id, parts.h))
    forged = {"key_id": pack.b64(author.key_id), "sig_classic": pack.b64(classic), "sig_pqc": pack.b64(pqc)}
    refused(author, parts.set("signatures", {"signatures": [forged]}).write(tmp_path / "m.tgsp"), "AUTH", "signature")
    refused(author, parts.sign(stranger).write(tmp_path / "n.tgsp"), "AUTH", "trusted")


def test_repeated_and_too_many_signatures(author, parts, tmp_path):
    e = entries(parts)[0]
    refused(author, parts.set("signatures", {"signatures": [e, e]}).write(tmp_path / "m.tgsp"), "FORMAT", "signatures")
    refused(author, parts.set("signatures", {"signatures": []}).write(tmp_path / "m.tgsp"), "FORMAT", "signatures")
    many = [dict(e, key_id=pack.b64(bytes([i]) * 16)) for i in range(17)]
    refused(author, parts.set("signatures", {"signatures": many}).write(tmp_path / "m.tgsp"), "FORMAT", "signatures")


# ---- recipients ----

def opened(author, parts, tmp_path, rc):
    """The author signs whatever the recipients section became; what does opening say?"""
    package = parts.rehash().sign(author).write(tmp_path / "m.tgsp")
    r = pack.run("open", package, "--key", author.key, "--trust", author.pub, "--out-dir", tmp_path / "out", rc=rc)
    assert not (tmp_path / "out").exists()
    return r


def test_recipient_blocks_that_are_not_what_they_say(author, stranger, good, parts, tmp_path):
    block = parts.json("recipients")["recipients"][0]
    flipped = bytearray(pack.unb64(block["mlkem768_ct"]))
    flipped[500] ^= 1
    low_order = [bytes(32), bytes([1]) + bytes(31), bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")]
    pack.build(author, good.parent / "model", tmp_path / "s.tgsp", "--recipient", stranger.key_pub)
    theirs = pack.Parts(tmp_path / "s.tgsp").json("recipients")["recipients"][0]
    cases = [(dict(block, mlkem768_ct=pack.b64(bytes(flipped))), "AUTH"),
             (dict(block, wrapped_key=pack.b64(bytes(48))), "AUTH"),
             (dict(theirs, id=block["id"]), "AUTH"),
             (theirs, "NOTFORKEY")] + [(dict(block, x25519_epk=pack.b64(p)), "AUTH") for p in low_order]
    for changed, rc in cases:
        r = opened(author, pack.Parts(good).set("recipients", {"recipients": [changed]}), tmp_path, rc)
        assert r.err.count("\n") == 1
    r = opened(author, pack.Parts(good).set("recipients", {"recipients": [block, block]}), tmp_path, "FORMAT")
    assert "recipients" in r.err
    opened(author, pack.Parts(good).set("recipients", {"recipients": []}), tmp_path, "FORMAT")


def test_a_recipient_cannot_put_another_manifest_on_the_payload(author, stranger, good, tmp_path):
    """Who can decrypt knows the file key, but a signer who does not is stopped by the commitment."""
    parts = pack.Parts(good)
    m = parts.json("manifest")
    m["model"]["name"] = "another"
    parts.set("manifest", m).rehash().sign(author).write(tmp_path / "m.tgsp")
    r = pack.run("open", tmp_path / "m.tgsp", "--key", author.key, "--trust", author.pub, "--out-dir", tmp_path / "out", rc="AUTH")
    assert "commitment" in r.err
    assert not (tmp_path / "out").exists()
