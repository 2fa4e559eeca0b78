"""`--json` everywhere: each command of each program says so in its help, and whatever goes wrong, standard output holds one
object with the code and the documented exit status. And the good answers parse."""
import json
import os
import re
import subprocess

import pytest

import pack
import programs
import tg


def run(program, *args, cwd=None):
    return subprocess.run([programs.path(program), *args], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def verbs(program):
    """Every command of a program, as its own help lists them."""
    text = run(program, "--help").stdout.decode()
    if program == "tensorguard":
        return re.findall(r"^  ([a-z-]+(?: [a-z]+)?)(?=  )", text, re.M)
    if program == "tensorguard-agent":
        return re.findall(r"^  tensorguard-agent ([a-z]+)", text, re.M)
    return {"tensorguard-platform": [""], "tensorguard-moai": ["--make-key", "--verify-memory", "worker"]}[program]


# How many commands there are at least: a help text that is read wrongly finds none.
PROGRAMS = {"tensorguard": 41, "tensorguard-agent": 4, "tensorguard-platform": 1, "tensorguard-moai": 3}


def complaint(done, code=None):
    """The one object of a command that failed."""
    what = f"{done.args[1:]}\n-> {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith(b"\n") and done.stdout.count(b"\n") == 1, what
    said = json.loads(done.stdout)
    assert list(said) == ["error", "exit", "message"] and said["message"], what
    assert said["exit"] == done.returncode == pack.EXIT[said["error"]] != 0, what
    assert code in (None, said["error"]), what
    return said


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_has_json(program):
    found = verbs(program)
    assert len(found) >= PROGRAMS[program], found
    for verb in found:
        done = run(program, *verb.split(), "--help")
        assert done.returncode == 0 and re.search(rb"^  --json ", done.stdout, re.M), (verb, done.stdout)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_bad_option_before_or_after(program):
    for verb in verbs(program):
        for args in (["--json", "--bogus"], ["--bogus", "--json"], ["--bogus=1", "--json"]):
            done = run(program, *verb.split(), *args)
            said = complaint(done, "USAGE")
            assert "--bogus" in said["message"], said
            name = program if verb in ("", "--make-key") else f"{program} {verb}"
            assert done.stderr.decode() == f"{name}: {said['message']}\n"
        # It is said to people alone unless it was asked for.
        quiet = run(program, *verb.split(), "--bogus", "--", "--json")
        assert quiet.stdout == b"" and quiet.returncode == 2


NO_PACKAGE = ["--package", "none", "--trust", "none", "--key", "none"]
WORKER = ["worker", "--package-fd", "11", "--trust-fd", "12", "--key-fd", "13", "--rollback-fd", "14", "--control-fd", "15",
          "--listen-fd", "16", "--fleet", "F", "--device-id", "D"]


@pytest.mark.parametrize("program,args,code", [
    ("tensorguard", ["--json"], "USAGE"),
    ("tensorguard", ["frobnicate", "--json"], "USAGE"),
    ("tensorguard", ["trust", "frobnicate", "--json"], "USAGE"),
    ("tensorguard", ["trust", "--json"], "USAGE"),
    ("tensorguard", ["tgsp", "frobnicate", "--json"], "USAGE"),
    ("tensorguard", ["--json", "verify", "none.tgsp"], "USAGE"),
    ("tensorguard", ["verify", "--json"], "USAGE"),
    ("tensorguard", ["inspect", "none.tgsp", "--json"], "NOTFOUND"),
    ("tensorguard", ["inspect", b"\xff\x1b.tgsp", "--json"], "NOTFOUND"),
    ("tensorguard", ["fleet", "list", "--config", "none", "--json"], "STATE"),
    ("tensorguard-agent", ["--json"], "USAGE"),
    ("tensorguard-agent", ["frobnicate", "--json"], "USAGE"),
    ("tensorguard-agent", ["status", "--json"], "USAGE"),
    ("tensorguard-agent", ["status", "--state-dir", "none", "--json"], None),
    ("tensorguard-agent", ["run", "--once", "--state-dir", "none", "--json"], None),
    ("tensorguard-agent", ["run", "--state-dir", "none", "--log-level", "loud", "--json"], "USAGE"),
    ("tensorguard-agent", ["trust", "--state-dir", "none", "--trust-store", "none", "--json"], None),
    ("tensorguard-platform", ["--json"], "USAGE"),
    ("tensorguard-platform", ["--data-dir", "/proc/none", "--json"], None),
    ("tensorguard-platform", ["--data-dir", "d", "--threads", "99", "--json"], "USAGE"),
    ("tensorguard-moai", ["--json"], "USAGE"),
    ("tensorguard-moai", ["frobnicate", "--json"], "USAGE"),
    ("tensorguard-moai", ["--make-key", "--out", "/proc/none", "--json"], None),
    ("tensorguard-moai", ["--verify-memory", *NO_PACKAGE, "--json"], "IO"),
    ("tensorguard-moai", [*WORKER, "--json"], None),
])
def test_other_failures(program, args, code, tmp_path):
    done = run(program, *args, cwd=tmp_path)
    said = complaint(done, code)
    assert "\x1b" not in said["message"] and b"\x1b" not in done.stderr
    if b"\xff\x1b.tgsp" in args:
        assert said["message"].startswith("\\xff\\x1b.tgsp"), said


# ---- good answers ----

def test_answers_about_files(tmp_path):
    def tell(*args):
        return pack.run(*args, "--json", cwd=tmp_path).json

    for kind in "signing", "encryption":
        for folder in "a", "b":
            assert tell("keygen", "--type", kind, "--out", folder)["type"] == kind
    pack.write(tmp_path / "model" / "w", b"weights")
    package = tell("build", "--input-dir", "model", "--out", "m.tgsp", "--signing-key", "a/signing.priv", "--model-name", "m")["package"]
    assert tell("inspect", "m.tgsp")["package"] == package
    assert tell("verify", "m.tgsp", "--trust", "a/signing.pub")["verified"] is True
    assert tell("open", "m.tgsp", "--trust", "a/signing.pub", "--key", "a/encryption.priv", "--out-dir", "o")["package"] == package
    assert tell("grant", "m.tgsp", "--key", "a/encryption.priv", "--signing-key", "a/signing.priv", "--recipient", "b/encryption.pub",
                "--out", "g.tgrant")["package"] == package
    assert tell("sign", "m.tgsp", "--signing-key", "b/signing.priv")["signatures"] == 2
    assert tell("trust", "init", "s", "--author", "a/signing.pub")["version"] == 1
    assert tell("trust", "add", "s", "--author", "b/signing.pub", "--signing-key", "a/signing.priv")["version"] == 2
    assert tell("trust", "sign", "s", "--signing-key", "b/signing.priv")["version"] == 2
    keys = tell("trust", "show", "s")["keys"]
    assert tell("trust", "remove", "s", keys[1]["key_id"], "--signing-key", "a/signing.priv")["version"] == 3


LISTS = {"fleet list": "fleets", "enrolment-token list": "enrolment_tokens", "device list": "devices", "publisher list": "publishers",
         "package list": "packages", "deployment list": "deployments", "token list": "tokens", "audit": "audit"}


def test_answers_of_a_platform(tmp_path):
    platform = tg.Platform(tmp_path / "platform", "--json").start()
    try:
        first = json.loads(next(line for line in platform.log_text().splitlines() if line.startswith('{"admin_token_file"')))
        author = pack.Author(tmp_path / "author")
        config = ["--config", tmp_path / "config", "--json"]

        def tell(*args):
            return pack.run(*args, *config).json

        said = tell("login", "--server", platform.api_url, "--ca", first["ca"], "--token-file", first["admin_token_file"])
        assert said["vault_key_id"] == first["vault_key_id"] and said["platform_key_id"] == first["platform_key_id"]
        key = tell("publisher", "add", "--name", "author", "--key", author.pub)["key_id"]
        assert tell("publisher", "list")["publishers"][0]["key_id"] == key
        assert tell("fleet", "create", "robots")["name"] == "robots"
        token = tell("token", "create", "--name", "ci", "--role", "viewer")["id"]
        for verb, name in LISTS.items():
            assert isinstance(tell(*verb.split())[name], list), verb
        assert token in [t["id"] for t in tell("token", "list")["tokens"]]
        assert tell("token", "delete", token) == {"removed": token}
        assert tell("publisher", "remove", key) == {"removed": key}
        assert tell("publisher", "list") == {"publishers": []}
        assert tell("audit", "verify")["ok"] is True
        assert isinstance(tell("status")["devices"], list)
    finally:
        platform.stop()


def test_the_devices_key(tmp_path):
    """As the agent makes it, and for people; the agent's PEM is what it was."""
    pem = run("tensorguard-moai", "--make-key", cwd=tmp_path).stdout.decode()
    said = json.loads(run("tensorguard-moai", "--make-key", "--json", cwd=tmp_path).stdout)
    assert said["pem"] == pem and said["private_key"] == "kem.priv" and len(said["key_id"]) == 32
    done = run("tensorguard-moai", "--json", "--make-key", "--out", "d", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (tmp_path / said["public_key"]).read_text() == said["pem"] and os.access(tmp_path / said["private_key"], os.R_OK)
    assert complaint(run("tensorguard-moai", "--make-key", "--out", "d", "--json", cwd=tmp_path), "EXISTS")
