"""Packages made and opened from outside: what goes in comes out, what could not be restored is refused."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

import programs
import pack


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("author"))


def open_args(author, package, out):
    return ["open", package, "--key", author.key, "--trust", author.pub, "--out-dir", out]


def round_trip(author, tmp_path, *args):
    r = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", *args)
    pack.run("verify", tmp_path / "m.tgsp", "--trust", author.pub)
    pack.run(*open_args(author, tmp_path / "m.tgsp", tmp_path / "out"))
    assert pack.tree(tmp_path / "out") == pack.tree(tmp_path / "model")
    return r.json


def test_files_of_every_shape(author, tmp_path):
    sizes = {"empty": 0, "one": 1, "page": 4096, "page+1": 4097, "chunk": 65536, "chunk+1": 65537,
             "deep/er/than/most": 123456}
    for name, n in sizes.items():
        pack.write(tmp_path / "model" / name, os.urandom(n))
    got = round_trip(author, tmp_path, "--chunk-size", 65536)
    assert got["files"] == len(sizes)


@pytest.mark.parametrize("aead", ["chacha20-poly1305", "aes-256-gcm"])
def test_the_independent_reader_opens_what_we_built(author, tmp_path, aead):
    pack.write(tmp_path / "model" / "weights", os.urandom(200000))
    pack.write(tmp_path / "model" / "ünï cødé" / "名前.txt", "π".encode())
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--aead", aead, "--chunk-size", 65536)
    r = pack.reader("verify", tmp_path / "m.tgsp", "--trust", author.pub)
    assert r.rc == 0, r
    r = pack.reader("open", tmp_path / "m.tgsp", "--key", author.key, "--trust", author.pub, "--out-dir", tmp_path / "out")
    assert r.rc == 0, r
    got = {k: v for k, v in pack.tree(tmp_path / "out").items() if not k.startswith(b".tensorguard")}
    assert got == pack.tree(tmp_path / "model")


def test_zeros_in_every_place(author, tmp_path):
    page = bytes(4096)
    for name, data in {"all": page * 40, "front": page * 20 + b"x", "back": b"x" + page * 20, "middle": b"x" * 5000 + page * 40 + b"y" * 5000,
                       "odd": bytes(4095), "almost": page * 15 + bytes(4095) + b"z", "shifted": b"a" + bytes(70000) + b"b"}.items():
        pack.write(tmp_path / "model" / name, data)
    round_trip(author, tmp_path, "--chunk-size", 65536)


def test_names_in_utf8(author, tmp_path):
    for name in ("naïve", "日本語/模型.onnx", "emoji 🤖.bin", "combining e\u0301", "composed \u00e9", "a b\u00a0c"):
        pack.write(tmp_path / "model" / name, name.encode())
    round_trip(author, tmp_path)


def test_no_files(author, tmp_path):
    (tmp_path / "model").mkdir()
    got = round_trip(author, tmp_path)
    assert got["files"] == 0


def test_many_files(author, tmp_path):
    for i in range(3000):
        pack.write(tmp_path / "model" / f"{i % 50}" / f"f{i}", b"%d" % i)
    got = round_trip(author, tmp_path)
    assert got["files"] == 3000


def test_too_many_files_are_refused_with_the_limit(author, tmp_path):
    for d in range(66):
        top = tmp_path / "model" / str(d)
        top.mkdir(parents=True)
        for i in range(1000):
            os.close(os.open(top / str(i), os.O_CREAT | os.O_WRONLY))
    r = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", rc="LIMIT")
    assert "65536" in r.err or "65535" in r.err
    assert not (tmp_path / "m.tgsp").exists()


def test_what_is_no_regular_file_is_refused_by_name(author, tmp_path):
    model = tmp_path / "model"

    def link():
        (model / "odd").symlink_to("good")

    def folder_link():
        (model / "odd").symlink_to(tmp_path)

    def sock():
        socket.socket(socket.AF_UNIX).bind(str(model / "odd"))

    def device():
        os.mknod(model / "odd", 0o600 | 0o020000, os.makedev(1, 3))

    for make, word in ((link, "link"), (folder_link, "link"), (lambda: os.mkfifo(model / "odd"), "FIFO"),
                       (sock, "socket"), (device, "device")):
        shutil.rmtree(model, ignore_errors=True)
        pack.write(model / "good")
        try:
            make()
        except PermissionError:
            continue  # devices need root
        r = pack.build(author, model, tmp_path / "m.tgsp", rc="FORMAT")
        assert "odd" in r.err and word.lower() in r.err.lower(), r
        assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("names", [[b"back\\slash"], [b"new\nline"], [b"del\x7f"], [b"\xff\xfe"], [b"half\xc3"],
                                   [b"Model", b"model"], [b"A/x", b"a"], [b".tensorguard/mine"]])
def test_paths_that_could_not_be_restored_are_refused(author, tmp_path, names):
    for name in names:
        path = os.fsencode(tmp_path) + b"/model/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(b"x")
    r = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", rc="FORMAT")
    assert "\x7f" not in r.err and len(r.err.splitlines()) == 1, r  # nothing that steers a terminal
    assert not (tmp_path / "m.tgsp").exists()


def test_a_folder_that_can_not_be_read(author, tmp_path):
    r = pack.build(author, tmp_path / "nowhere", tmp_path / "m.tgsp", rc="NOTFOUND")
    assert "nowhere" in r.err
    pack.write(tmp_path / "file")
    pack.build(author, tmp_path / "file", tmp_path / "m.tgsp", rc="IO")
    pack.write(tmp_path / "model" / "a")
    r = pack.build(author, tmp_path / "model", tmp_path / "model" / "m.tgsp", rc="USAGE")
    assert "inside" in r.err
    r = pack.build(author, tmp_path / "model", "-", rc="USAGE")
    r = pack.build(author, tmp_path / "model", tmp_path / "no" / "m.tgsp", rc="NOTFOUND")


def test_formats_are_told_by_content_and_recorded(author, tmp_path):
    def make(kind, folder):
        folder.mkdir(parents=True)
        if kind == "pytorch":
            pack.pytorch(folder / "weights.dat")
        elif kind == "savedmodel":
            pack.write(folder / "saved_model.pb", pack.SAVED_MODEL)
            pack.write(folder / "variables" / "variables.index", b"..")
        else:
            data = {"onnx": pack.ONNX, "safetensors": pack.safetensors(), "tflite": pack.TFLITE, "other": b"hello"}[kind]
            pack.write(folder / "weights.dat", data)
        pack.write(folder / "README", b"some words")

    for kind in ("onnx", "safetensors", "pytorch", "savedmodel", "tflite", "other"):
        make(kind, tmp_path / kind)
        which = ("--metadata", "model_file=weights.dat") if kind == "onnx" else ()  # a worker goes by .onnx, unless told
        got = pack.build(author, tmp_path / kind, tmp_path / "m.tgsp", *which).json
        assert got["format"] == kind
        assert pack.run("inspect", tmp_path / "m.tgsp", "--json").json["format"] == kind


def test_two_builds_differ_only_where_they_must(author, tmp_path):
    pack.write(tmp_path / "model" / "w", os.urandom(70000))
    for name in ("a", "b"):
        pack.build(author, tmp_path / "model", tmp_path / name, "--sequence", 7, "--metadata", "k=v", "--metadata", "a=b")
    a, b = pack.Parts(tmp_path / "a"), pack.Parts(tmp_path / "b")
    ha, hb = a.json("header"), b.json("header")
    assert {k for k in ha if ha[k] != hb[k]} - {"created_at"} == {
        "package_id", "payload_salt", "key_commitment", "manifest_sha256", "recipients_sha256"}
    ma, mb = a.json("manifest"), b.json("manifest")
    assert ma["payload"]["chunk_digests"] != mb["payload"]["chunk_digests"]
    for m in (ma, mb):
        del m["payload"]["chunk_digests"]
        m["provenance"].pop("built_at")
    assert ma == mb
    ra, rb = (p.json("recipients")["recipients"] for p in (a, b))
    assert [r["id"] for r in ra] == [r["id"] for r in rb]
    assert ra[0]["wrapped_key"] != rb[0]["wrapped_key"] and ra[0]["x25519_epk"] != rb[0]["x25519_epk"]
    assert a.at["payload"] == b.at["payload"] and a.raw["payload"] != b.raw["payload"]


def test_nothing_about_the_plaintext_stands_outside_the_payload(author, tmp_path):
    import hashlib
    secret = b"a low-entropy secret that could be guessed"
    pack.write(tmp_path / "model" / "w", secret)
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp")
    raw = (tmp_path / "m.tgsp").read_bytes()
    digest = hashlib.sha256(secret).digest()
    for shape in (secret, digest, digest.hex().encode(), pack.b64(digest).encode()):
        assert shape not in raw


def test_what_the_author_says_is_kept(author, tmp_path):
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
                 "subject": [{"name": "w", "digest": {"sha256": "00" * 32}}], "predicate": {"builder": "ci"}}
    pack.write(tmp_path / "st.json", json.dumps(statement).encode())
    pack.write(tmp_path / "model" / "w")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--model-version", "2.0.1", "--sequence", 9, "--floor", 4,
             "--metadata", "license=x y", "--metadata", "b=c=d", "--not-before", "2020-01-01", "--not-after", "+90d",
             "--fleet", "robots", "--fleet", "arms", "--min-agent", "0.1.0", "--provenance", tmp_path / "st.json")
    got = pack.run("inspect", tmp_path / "m.tgsp", "--json").json
    assert got["verified"] is False
    assert (got["version"], got["sequence"], got["floor"]) == ("2.0.1", 9, 4)
    assert {m["key"]: m["value"] for m in got["metadata"]} == {"license": "x y", "b": "c=d"}
    assert got["not_before"] == "2020-01-01T00:00:00Z" and got["fleets"] == ["robots", "arms"]
    assert got["provenance"]["builder"]["name"] == "tensorguard"
    assert got["provenance"]["statement"] == statement
    text = pack.run("inspect", tmp_path / "m.tgsp", "--files").out
    assert "UNVERIFIED" in text and "slsa.dev" in text
    pack.write(tmp_path / "not.json", b'{"_type": "something else", "predicateType": "x"}')
    r = pack.build(author, tmp_path / "model", tmp_path / "n.tgsp", "--provenance", tmp_path / "not.json", rc="FORMAT")
    assert "in-toto" in r.err and not (tmp_path / "n.tgsp").exists()


@pytest.mark.parametrize("args,word", [
    (["--sequence", "-1"], "--sequence"), (["--sequence", str(2**53)], "--sequence"), (["--floor", "5", "--sequence", "4"], "--floor"),
    (["--chunk-size", "65537"], "--chunk-size"), (["--chunk-size", "33554432"], "--chunk-size"), (["--not-after", "soon"], "--not-after"),
    (["--not-before", "+2d", "--not-after", "+1d"], "--not-after"), (["--metadata", "novalue"], "--metadata"),
    (["--metadata", "a=1", "--metadata", "a=2"], "twice"), (["--aead", "rot13"], "--aead"), (["--floor", "1", "--floor", "2"], "twice")])
def test_options_that_make_no_sense(author, tmp_path, args, word):
    pack.write(tmp_path / "model" / "w")
    r = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", *args, rc="USAGE")
    assert word in r.err and not (tmp_path / "m.tgsp").exists()
    assert r.json["error"] == "USAGE" and r.json["exit"] == 2 and r.json["message"] in r.err


def test_names_that_steer_a_terminal_are_shown_harmless(author, tmp_path):
    pack.write(tmp_path / "model" / "w")
    pack.run("build", "--input-dir", tmp_path / "model", "--out", tmp_path / "m.tgsp", "--signing-key", author.sign,
           "--model-name", "evil\x1b]0;owned\x07\u202eeman", "--metadata", "k=\x1b[2J")
    text = pack.run("inspect", tmp_path / "m.tgsp").out
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text and "\\x1b" in text
    assert pack.run("inspect", tmp_path / "m.tgsp", "--json").json["model"] == "evil\x1b]0;owned\x07\u202eeman"


# ---- recipients, signatures, grants, time ----

@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return [pack.Author(tmp_path_factory.mktemp("p")) for _ in range(3)]


def test_several_recipients_each_open_it(author, people, tmp_path):
    pack.write(tmp_path / "model" / "w", b"weights")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--recipient", people[0].key_pub, "--recipient", people[1].key_pub)
    for p in people[:2]:
        pack.run("open", tmp_path / "m.tgsp", "--key", p.key, "--trust", author.pub, "--out-dir", tmp_path / p.dir.name)
        assert pack.tree(tmp_path / p.dir.name) == {b"w": b"weights"}
    for p in (author, people[2]):  # the author is no recipient here
        r = pack.run("open", tmp_path / "m.tgsp", "--key", p.key, "--trust", author.pub, "--out-dir", tmp_path / "no", rc="NOTFORKEY")
        assert not (tmp_path / "no").exists() and r.err.count("\n") == 1
    r = pack.build(author, tmp_path / "model", tmp_path / "n.tgsp", "--recipient", people[0].key_pub,
                 "--recipient", people[0].key_pub, rc=None)
    assert r.rc != 0 and not (tmp_path / "n.tgsp").exists()


def test_trust_comes_from_the_command_line_only(author, people, tmp_path):
    pack.write(tmp_path / "model" / "w")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp")
    for command in (["verify", tmp_path / "m.tgsp"],
                    ["open", tmp_path / "m.tgsp", "--key", author.key, "--out-dir", tmp_path / "o"]):
        r = pack.run(*command, rc="USAGE")
        assert "--trust" in r.err
        pack.run(*command, "--trust", people[0].pub, rc="AUTH")
        pack.run(*command, "--trust", author.sign, rc="FORMAT")  # a private key is no public one
        pack.run(*command, "--trust", author.pub, "--trust", author.pub, rc="USAGE")
    assert not (tmp_path / "o").exists()


def test_co_signatures_and_thresholds(author, people, tmp_path):
    a, b, stranger = people
    pack.write(tmp_path / "model" / "w", b"weights")
    made = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp").json
    before = (tmp_path / "m.tgsp").read_bytes()
    trust = ["--trust", author.pub, "--trust", a.pub, "--trust", b.pub]
    pack.run("verify", tmp_path / "m.tgsp", *trust, "--threshold", 1)
    r = pack.run("verify", tmp_path / "m.tgsp", *trust, "--threshold", 2, rc="DENIED")
    assert "2" in r.err
    got = pack.run("sign", tmp_path / "m.tgsp", "--signing-key", a.sign, "--json").json
    assert got["package"] == made["package"] and got["signatures"] == 2
    pack.run("verify", tmp_path / "m.tgsp", *trust, "--threshold", 2)
    pack.run("verify", tmp_path / "m.tgsp", *trust, "--threshold", 3, rc="DENIED")
    pack.run("verify", tmp_path / "m.tgsp", *trust, "--threshold", 4, rc="USAGE")
    # A stranger's signature neither counts nor harms.
    pack.run("sign", tmp_path / "m.tgsp", "--signing-key", stranger.sign, "--out", tmp_path / "n.tgsp")
    pack.run("verify", tmp_path / "n.tgsp", "--trust", author.pub, "--trust", a.pub, "--threshold", 2)
    pack.run("verify", tmp_path / "n.tgsp", "--trust", author.pub, "--trust", b.pub, "--threshold", 2, rc="DENIED")
    assert pack.reader("verify", tmp_path / "n.tgsp", "--trust", author.pub, "--trust", a.pub, "--threshold", "2").rc == 0
    pack.run("sign", tmp_path / "m.tgsp", "--signing-key", a.sign, rc="EXISTS")
    pack.run("sign", tmp_path / "m.tgsp", "--signing-key", b.sign, "--trust", stranger.pub, rc="AUTH")
    broken = bytearray(before)
    broken[len(before) // 2] ^= 1
    pack.write(tmp_path / "x.tgsp", bytes(broken))
    r = pack.run("sign", tmp_path / "x.tgsp", "--signing-key", b.sign, rc=None)
    assert r.rc in (pack.EXIT["AUTH"], pack.EXIT["FORMAT"]) and (tmp_path / "x.tgsp").read_bytes() == bytes(broken)


def test_a_grant_lets_one_more_key_in(author, people, tmp_path):
    friend, stranger, _ = people
    pack.write(tmp_path / "model" / "w", b"weights")
    for name in ("m", "other"):
        pack.build(author, tmp_path / "model", tmp_path / f"{name}.tgsp")
    make = ["grant", tmp_path / "m.tgsp", "--key", author.key, "--signing-key", author.sign, "--recipient", friend.key_pub]
    got = pack.run(*make, "--out", tmp_path / "g.tgrant", "--json").json
    assert got["package"] == pack.run("inspect", tmp_path / "m.tgsp", "--json").json["package"]
    pack.run(*make, "--trust", author.pub, "--out", tmp_path / "g.tgrant")  # one's own key may be named, too
    use = ["--trust", author.pub, "--out-dir", tmp_path / "out", "--grant", tmp_path / "g.tgrant"]
    pack.run("open", tmp_path / "m.tgsp", "--key", friend.key, *use)
    assert pack.tree(tmp_path / "out") == {b"w": b"weights"}
    shutil.rmtree(tmp_path / "out")
    pack.run("open", tmp_path / "m.tgsp", "--key", stranger.key, *use, rc="NOTFORKEY")
    r = pack.run("open", tmp_path / "other.tgsp", "--key", friend.key, *use, rc=None)
    assert r.rc in (pack.EXIT["AUTH"], pack.EXIT["NOTFORKEY"], pack.EXIT["DENIED"]), r
    pack.run("open", tmp_path / "m.tgsp", "--key", friend.key, *use[:4], rc="NOTFORKEY")
    assert pack.reader("open", tmp_path / "m.tgsp", "--key", friend.key, "--trust", author.pub, "--grant",
                     tmp_path / "g.tgrant", "--out-dir", tmp_path / "r").rc == 0
    # Made by someone whom the opener does not trust as a granter.
    bad = ["grant", tmp_path / "m.tgsp", "--key", author.key, "--signing-key", stranger.sign, "--trust", author.pub,
           "--recipient", friend.key_pub, "--out", tmp_path / "bad.tgrant"]
    pack.run(*bad)
    pack.run("open", tmp_path / "m.tgsp", "--key", friend.key, "--trust", author.pub, "--out-dir", tmp_path / "out",
           "--grant", tmp_path / "bad.tgrant", rc="AUTH")
    # Over, not begun.
    pack.run(*make, "--out", tmp_path / "old.tgrant", "--not-before", "2020-01-01", "--not-after", "2020-01-02")
    pack.run("open", tmp_path / "m.tgsp", "--key", friend.key, *use[:4], "--grant", tmp_path / "old.tgrant", rc="EXPIRED")
    # Whoever can't open it can't grant it.
    pack.run("grant", tmp_path / "m.tgsp", "--key", stranger.key, "--signing-key", author.sign, "--recipient", friend.key_pub,
           "--out", tmp_path / "x.tgrant", rc="NOTFORKEY")
    assert not (tmp_path / "x.tgrant").exists() and not (tmp_path / "out").exists()


def test_time(author, tmp_path):
    pack.write(tmp_path / "model" / "w")
    r = pack.build(author, tmp_path / "model", tmp_path / "old.tgsp", "--not-after", "2020-01-01T00:00:00Z")
    assert "passed" in r.err
    pack.build(author, tmp_path / "model", tmp_path / "new.tgsp", "--not-before", "+1h")
    for name, word in (("old", "2020-01-01"), ("new", "not")):
        for command in (["verify", tmp_path / f"{name}.tgsp", "--trust", author.pub],
                        open_args(author, tmp_path / f"{name}.tgsp", tmp_path / "out")):
            r = pack.run(*command, rc="EXPIRED")
            assert word in r.err, r
    assert not (tmp_path / "out").exists()


# ---- opening leaves nothing behind ----

def test_open_takes_an_empty_folder_and_no_other(author, tmp_path):
    pack.write(tmp_path / "model" / "w", b"weights")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp")
    (tmp_path / "empty").mkdir()
    pack.run(*open_args(author, tmp_path / "m.tgsp", tmp_path / "empty"))
    assert pack.tree(tmp_path / "empty") == {b"w": b"weights"}
    (tmp_path / "dot").mkdir()
    r = pack.run(*open_args(author, tmp_path / "m.tgsp", str(tmp_path / "dot") + "/."), rc="USAGE")
    assert "by its name" in r.err
    (tmp_path / "dot").rmdir()
    pack.write(tmp_path / "full" / "mine", b"mine")
    pack.run(*open_args(author, tmp_path / "m.tgsp", tmp_path / "full"), rc="EXISTS")
    assert pack.tree(tmp_path / "full") == {b"mine": b"mine"}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    r = pack.run(*open_args(author, tmp_path / "m.tgsp", tmp_path / "link"), rc=None)
    assert r.rc != 0 and os.listdir(tmp_path / "elsewhere") == []
    assert not [n for n in os.listdir(tmp_path) if n not in ("model", "m.tgsp", "empty", "full", "elsewhere", "link")]


def test_a_chunk_that_fails_late_leaves_nothing(author, tmp_path):
    pack.write(tmp_path / "model" / "w", os.urandom(3 << 20))
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--chunk-size", 65536)
    parts = pack.Parts(tmp_path / "m.tgsp")
    off, n = parts.at["payload"]
    raw = bytearray((tmp_path / "m.tgsp").read_bytes())
    raw[off + n - 5] ^= 0x80
    pack.write(tmp_path / "bad.tgsp", bytes(raw))
    r = pack.run(*open_args(author, tmp_path / "bad.tgsp", tmp_path / "out"), rc="AUTH")
    assert "chunk" in r.err
    assert sorted(os.listdir(tmp_path)) == ["bad.tgsp", "m.tgsp", "model"]


def limited(size):
    import resource

    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return set_limit


def test_a_full_disk_leaves_nothing(author, tmp_path):
    """By the size limit of files, which fails writes the same way for everyone, root included."""
    pack.write(tmp_path / "model" / "w", os.urandom(1 << 20))
    r = pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", rc="IO", preexec_fn=limited(500000))
    assert "m.tgsp" in r.err and sorted(os.listdir(tmp_path)) == ["model"]
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp")
    r = pack.run(*open_args(author, tmp_path / "m.tgsp", tmp_path / "out"), rc="IO", preexec_fn=limited(500000))
    assert sorted(os.listdir(tmp_path)) == ["m.tgsp", "model"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk_leaves_nothing(author, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], check=False,
                      capture_output=True).returncode != 0:
        pytest.skip("this root may not mount")
    try:
        pack.write(tmp_path / "model" / "w", os.urandom(1 << 20))
        r = pack.build(author, tmp_path / "model", disk / "m.tgsp", rc="IO")
        assert "No space left" in r.err and os.listdir(disk) == []
        pack.build(author, tmp_path / "model", tmp_path / "m.tgsp")
        r = pack.run(*open_args(author, tmp_path / "m.tgsp", disk / "out"), rc="IO")
        assert "No space left" in r.err and os.listdir(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def interrupt(args, ready, made):
    """Start a command, send SIGINT once ready() says so, and return how it died. On a busy machine the command may be
    done before we are: then what it made goes, and it is started again."""
    for _ in range(10):
        p = subprocess.Popen([programs.path("tensorguard"), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until = time.time() + 60
        while not ready() and p.poll() is None and time.time() < until:
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=60)
        if p.returncode != 0:
            break
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    return p.returncode, err.decode()


def test_ctrl_c_leaves_nothing_half_written(author, tmp_path):
    model = tmp_path / "model" / "w"
    model.parent.mkdir()
    with open(model, "wb") as f:
        f.truncate(2 << 30)  # long enough to be met in the middle
    build = ["build", "--input-dir", model.parent, "--out", tmp_path / "m.tgsp", "--signing-key", author.sign, "--model-name", "m"]
    rc, err = interrupt(build, lambda: len(os.listdir(tmp_path)) > 1, tmp_path / "m.tgsp")
    assert rc == -signal.SIGINT and "interrupted" in err
    assert os.listdir(tmp_path) == ["model"]
    os.truncate(model, 512 << 20)
    pack.run(*build)
    rc, err = interrupt(open_args(author, tmp_path / "m.tgsp", tmp_path / "out"), lambda: len(os.listdir(tmp_path)) > 2,
                        tmp_path / "out")
    assert rc == -signal.SIGINT, err
    assert sorted(os.listdir(tmp_path)) == ["m.tgsp", "model"]


@pytest.mark.timeout(2400)  # its steps' own limits come to less
def test_over_4_gib_in_one_file(author, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    if free < 10 << 30:
        pytest.skip(f"needs 10 GiB of disk, {free >> 30} GiB are free")
    size, border = (1 << 32) + (64 << 20) + 12345, 1 << 32
    model = tmp_path / "model" / "huge.bin"
    model.parent.mkdir()
    marks = ((0, b"begin"), (border - 3, b"across 2^32"), (size - 3, b"end"))
    with open(model, "wb") as f:
        f.truncate(size)
        for at, mark in marks:
            f.seek(at)
            f.write(mark)
    assert os.stat(model).st_size == size
    pack.write(tmp_path / "model" / "last.txt", b"behind 4 GiB")
    package = tmp_path / "m.tgsp"
    pack.build(author, model.parent, package, timeout=400)
    assert os.stat(package).st_size > size
    pack.run("verify", package, "--trust", author.pub, timeout=400)

    def ranged(off, n):
        """Through tg_tgsp_read, in tests/unit/tgsp/read_range.c."""
        tool = programs.BUILD / "tests" / "unit" / "tgsp" / "read_range"
        return subprocess.run([tool, package, author.key, author.pub, str(off), str(n)], check=True, capture_output=True,
                              timeout=60).stdout

    files = {f["path"]: f["offset"] for f in json.loads(pack.tgsp_reader.Package(str(package)).raw("manifest"))["files"]}
    for at, mark in marks:
        assert ranged(files["huge.bin"] + at, len(mark)) == mark
    across = ranged(files["huge.bin"] + border - (3 << 20) - 1, 6 << 20)  # several whole chunks and two edges
    assert across == bytes((3 << 20) - 2) + b"across 2^32" + bytes((3 << 20) - 9)
    assert ranged(files["last.txt"], 12) == b"behind 4 GiB"
    assert ranged(files["last.txt"] - 4096, 4096 + 12)[4096:] == b"behind 4 GiB"
    pack.run(*open_args(author, package, tmp_path / "tail"), "--files", "last.txt")
    assert pack.tree(tmp_path / "tail") == {b"last.txt": b"behind 4 GiB"}

    pack.run(*open_args(author, package, tmp_path / "out"), timeout=400)
    os.unlink(package)
    assert os.stat(tmp_path / "out" / "huge.bin").st_blocks * 512 < 64 << 20  # the holes are holes again
    assert subprocess.run(["cmp", model, tmp_path / "out" / "huge.bin"], check=False, timeout=400).returncode == 0
