"""tensorguard keygen, key files and passphrases, seen from outside."""
import os
import pty
import stat
import time

import pytest

import pack
import programs
import tgsp_reader


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_seeds_lines_work_word_for_word(tmp_path):
    pack.write(tmp_path / "my_model_v1" / "model.onnx", pack.ONNX)
    os.umask(0o022)
    pack.run("keygen", "--type", "signing", "--out", "./keys", cwd=tmp_path)
    assert sorted(os.listdir(tmp_path / "keys")) == ["signing.priv", "signing.pub"]
    assert mode(tmp_path / "keys/signing.priv") == 0o600
    assert mode(tmp_path / "keys/signing.pub") == 0o644
    line = ["build", "--input-dir", "./my_model_v1", "--out", "./my_model_v1.tgsp",
            "--signing-key", "./keys/signing.priv", "--model-name", "perception-net"]
    r = pack.run(*line, cwd=tmp_path)
    assert r.err.count("\n") == 1 and "encryption.pub" in r.err and "made your own encryption key" in r.err
    assert mode(tmp_path / "keys/encryption.priv") == 0o600
    # The second time the key is there, and nothing needs saying; `tgsp build` is the same command.
    assert pack.run("tgsp", *line, cwd=tmp_path).err == ""
    # If only the public half is lost, it is made again from the private one: the old packages stay readable.
    before = (tmp_path / "keys/encryption.pub").read_bytes()
    os.unlink(tmp_path / "keys/encryption.pub")
    assert "encryption.pub was gone" in pack.run(*line, cwd=tmp_path).err
    assert (tmp_path / "keys/encryption.pub").read_bytes() == before
    pack.run("verify", "my_model_v1.tgsp", "--trust", "keys/signing.pub", cwd=tmp_path)
    r = pack.run("open", "my_model_v1.tgsp", "--key", "keys/encryption.priv", "--trust", "keys/signing.pub",
               "--out-dir", "restored", "--json", cwd=tmp_path)
    assert r.json["model"] == "perception-net" and r.json["format"] == "onnx"
    assert pack.tree(tmp_path / "restored") == pack.tree(tmp_path / "my_model_v1")


def test_private_keys_are_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        pack.run("keygen", "--type", "encryption", "--out", tmp_path / "k")
    finally:
        os.umask(old)
    assert mode(tmp_path / "k/encryption.priv") == 0o600
    assert mode(tmp_path / "k") == 0o700


@pytest.mark.parametrize("kind,names", [("signing", ["ED25519", "ML-DSA-65"]),
                                        ("encryption", ["X25519", "ML-KEM-768"])])
def test_openssl_reads_every_block(tmp_path, kind, names):
    pack.run("keygen", "--type", kind, "--out", tmp_path)
    for ending, label, extra in (("priv", b"PRIVATE", []), ("pub", b"PUBLIC", ["-pubin"])):
        blocks = tgsp_reader.pem_blocks((tmp_path / f"{kind}.{ending}").read_bytes(), label)
        assert len(blocks) == 2
        for block, name in zip(blocks, names):
            pack.write(tmp_path / "block.pem", block)
            r = pack.openssl("pkey", *extra, "-in", tmp_path / "block.pem", "-noout", "-text")
            assert r.returncode == 0, r.stderr
            assert name in r.stdout.decode().split("\n")[0]
    # The public halves are the private ones' own.
    for block, pub in zip(tgsp_reader.pem_blocks((tmp_path / f"{kind}.priv").read_bytes(), b"PRIVATE"),
                          tgsp_reader.pem_blocks((tmp_path / f"{kind}.pub").read_bytes(), b"PUBLIC")):
        pack.write(tmp_path / "block.pem", block)
        assert pack.openssl("pkey", "-in", tmp_path / "block.pem", "-pubout").stdout.strip() == pub.strip()


def test_an_existing_key_is_kept_unless_forced(tmp_path):
    pack.run("keygen", "--type", "signing", "--out", tmp_path)
    before = pack.tree(tmp_path)
    r = pack.run("keygen", "--type", "signing", "--out", tmp_path, rc="EXISTS")
    assert "--force" in r.err and pack.tree(tmp_path) == before
    os.unlink(tmp_path / "signing.priv")  # one of the two is enough
    pack.run("keygen", "--type", "signing", "--out", tmp_path, rc="EXISTS")
    assert not (tmp_path / "signing.priv").exists()
    pack.run("keygen", "--type", "signing", "--out", tmp_path, "--force")
    assert pack.tree(tmp_path) != before
    # Another kind beside it is no conflict.
    pack.run("keygen", "--type", "encryption", "--out", tmp_path)


def test_usage_errors_say_what_to_do(tmp_path):
    for args, word in ((["keygen", "--type", "magic", "--out", tmp_path], "magic"),
                       (["keygen", "--out", tmp_path], "--type is required"),
                       (["keygen", "--type", "signing", "--out", tmp_path, "--nonsense"], "--nonsense"),
                       (["keygen", "--type", "signing", "--out", tmp_path, "extra"], "extra"),
                       (["sing"], "sing"), (["trust", "frobnicate"], "frobnicate")):
        r = pack.run(*args, rc="USAGE")
        assert word in r.err, r
    assert os.listdir(tmp_path) == []


def test_every_command_has_help():
    top = pack.run("--help").out
    names = [line[2:28].strip() for line in top.splitlines() if line.startswith("  ") and line[2:3].isalpha()]
    assert {"keygen", "build", "inspect", "verify", "open", "sign", "grant", "trust init", "trust add", "trust remove",
            "trust show", "login", "publish", "deploy", "status", "audit"} <= set(names)
    for name in names:
        r = pack.run(*name.split(), "--help")
        assert r.out.lower().startswith("usage: tensorguard " + name.lower()), r
        assert "--json" in r.out and "--help" in r.out
        assert max(map(len, r.out.splitlines())) <= 100, r.out
    assert pack.run("--version").out.startswith("tensorguard ")
    assert pack.run(rc="USAGE").out.startswith("Usage")


def test_an_encrypted_key_needs_its_passphrase(tmp_path):
    secret = pack.write(tmp_path / "pass", b"correct horse battery staple\n")
    wrong = pack.write(tmp_path / "wrong", b"incorrect\n")
    keys = tmp_path / "keys"
    r = pack.run("keygen", "--type", "signing", "--out", keys, "--passphrase-file", secret, "--json")
    assert r.json["encrypted"] is True
    text = (keys / "signing.priv").read_text()
    assert text.count("BEGIN ENCRYPTED PRIVATE KEY") == 2 and "BEGIN PRIVATE KEY" not in text
    for block in tgsp_reader.pem_blocks(text.encode(), b"PRIVATE"):
        pack.write(tmp_path / "block.pem", block)
        assert pack.openssl("pkey", "-in", tmp_path / "block.pem", "-passin", f"file:{secret}", "-noout").returncode == 0
        assert pack.openssl("pkey", "-in", tmp_path / "block.pem", "-passin", f"file:{wrong}", "-noout").returncode != 0
    pack.write(tmp_path / "model" / "a", b"a")
    args = ["build", "--input-dir", tmp_path / "model", "--out", tmp_path / "m.tgsp", "--signing-key",
            keys / "signing.priv", "--model-name", "m"]
    env = {**os.environ, "PASSPHRASE": "correct horse battery staple", "TENSORGUARD_PASSPHRASE": "correct horse battery staple"}
    r = pack.run(*args, rc="USAGE", env=env, start_new_session=True)  # the environment is never looked at
    assert "--passphrase-file" in r.err
    r = pack.run(*args, "--passphrase-file", wrong, rc="AUTH")
    assert "signing.priv" in r.err and "incorrect" not in r.err
    assert not (tmp_path / "m.tgsp").exists() and not (keys / "encryption.priv").exists()
    pack.run(*args, "--passphrase-file", secret)
    # The key that build made beside it is protected the same way.
    assert "BEGIN ENCRYPTED PRIVATE KEY" in (keys / "encryption.priv").read_text()
    opening = ["open", tmp_path / "m.tgsp", "--key", keys / "encryption.priv", "--trust", keys / "signing.pub",
               "--out-dir", tmp_path / "out"]
    pack.run(*opening, rc="USAGE", start_new_session=True)
    pack.run(*opening, "--passphrase-file", secret)
    assert pack.tree(tmp_path / "out") == {b"a": b"a"}


def test_the_terminal_is_asked_without_echo(tmp_path):
    secret = pack.write(tmp_path / "pass", b"swordfish\n")
    keys = tmp_path / "keys"
    pack.run("keygen", "--type", "signing", "--out", keys, "--passphrase-file", secret)
    pack.write(tmp_path / "model" / "a", b"a")
    pid, master = pty.fork()
    if pid == 0:
        os.execv(programs.path("tensorguard"),
                 ["tensorguard", "build", "--input-dir", str(tmp_path / "model"), "--out", str(tmp_path / "m.tgsp"),
                  "--signing-key", str(keys / "signing.priv"), "--model-name", "m"])
    seen = b""
    try:
        until = time.time() + 20
        while b"Passphrase for" not in seen and time.time() < until:
            seen += os.read(master, 4096)
        time.sleep(0.1)  # the echo is off before the prompt is written
        os.write(master, b"swordfish\n")
        while True:
            try:
                more = os.read(master, 4096)
            except OSError:
                break
            if not more:
                break
            seen += more
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(master)
    assert os.waitstatus_to_exitcode(status) == 0, seen
    assert b"swordfish" not in seen
    pack.run("verify", tmp_path / "m.tgsp", "--trust", keys / "signing.pub")


def test_keys_of_the_wrong_kind_are_told_apart(tmp_path):
    a = pack.Author(tmp_path / "a")
    pack.write(tmp_path / "model" / "f")
    base = ["build", "--input-dir", tmp_path / "model", "--out", tmp_path / "m.tgsp", "--model-name", "m"]
    for key in (a.pub, a.key, a.key_pub):
        r = pack.run(*base, "--signing-key", key, rc="FORMAT")
        assert key.name in r.err, r
    r = pack.run(*base, "--signing-key", a.sign, "--recipient", a.key, rc="FORMAT")
    assert "encryption.priv" in r.err
    pack.run(*base, "--signing-key", a.sign, "--recipient", a.pub, rc="FORMAT")
    os.chmod(a.sign, 0o644)
    r = pack.run(*base, "--signing-key", a.sign, rc="DENIED")
    assert "chmod" in r.err
    r = pack.run(*base, "--signing-key", tmp_path / "missing", rc="NOTFOUND")
    assert "missing" in r.err
    assert not (tmp_path / "m.tgsp").exists()
