"""The command line against a running platform: login, publish, grants, deploy, status, and the lists."""
import hashlib
import json
import os
import signal
import stat
import subprocess
import threading
import time

import pytest

import pack
import programs
import tg


class Operator:
    """Someone who has logged in; keeps the config folder."""

    def __init__(self, platform, config):
        self.platform, self.config = platform, config

    def run(self, *args, rc=0, **more):
        return pack.run(*args, "--config", self.config, rc=rc, **more)

    def json(self, *args):
        return self.run(*args, "--json").json


def log_in(platform, config, token, rc=0, **more):
    return pack.run("login", "--server", platform.api_url, "--token-file", token, "--ca", platform.ca, "--config", config,
                    "--json", rc=rc, **more)


@pytest.fixture
def operator(platform, tmp_path):
    config = tmp_path / "config"
    log_in(platform, config, platform.dir / "admin.token")
    return Operator(platform, config)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return [pack.Author(tmp_path_factory.mktemp("p")) for _ in range(2)]


@pytest.fixture
def fleet(operator, people):
    operator.run("publisher", "add", "--name", "author", "--key", people[0].pub)
    operator.run("fleet", "create", "robots")
    return "robots"


def build(author, folder, *args, size=300000):
    pack.write(folder / "model" / "w", os.urandom(size))
    pack.build(author, folder / "model", folder / "m.tgsp", *args)
    return folder / "m.tgsp"


def device(operator, tmp_path, name, fleet="robots"):
    token = tmp_path / f"{name}.token"
    operator.run("enrolment-token", "create", "--fleet", fleet, "--out", token)
    operator.platform.token = (operator.config / "token").read_text().strip()
    return tg.Device(tmp_path / name, operator.platform, fleet, name).enrol(token.read_text().strip())


# ---- login ----

def test_login_exchanges_the_one_time_token_and_keeps_what_is_needed(platform, tmp_path):
    config = tmp_path / "config"
    said = log_in(platform, config, platform.dir / "admin.token").json
    assert said["role"] == "admin" and said["server"] == platform.api_url
    assert stat.S_IMODE(os.stat(config).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(config / "token").st_mode) == 0o600
    lasting = (config / "token").read_text().strip()
    assert lasting not in json.dumps(said)
    about = platform.client(lasting).get("/api/v1/platform").json
    assert said["vault_key_id"] == about["vault_key_id"] and said["platform_key_id"] == about["platform_key_id"]
    # vault.pub works as a recipient, platform.pub in a trust store.
    pack.run("trust", "init", tmp_path / "s", "--author", config / "platform.pub", "--platform", config / "platform.pub")
    # One time is one time, and a refused login changes nothing.
    once = pack.write(tmp_path / "once", (platform.dir / "admin.token").read_bytes()) if (platform.dir / "admin.token").exists() else \
        pack.write(tmp_path / "once", b"nonsense\n")
    log_in(platform, tmp_path / "second", once, rc="AUTH")
    assert not (tmp_path / "second" / "token").exists()
    # The lasting one can log in elsewhere.
    again = log_in(platform, tmp_path / "third", config / "token").json
    assert again["token_name"] == said["token_name"]
    assert (tmp_path / "third" / "token").read_text().strip() == lasting


def test_a_second_login_replaces_no_key_unasked(operator, tmp_path):
    config, names = operator.config, ("config.json", "token", "ca.pem", "vault.pub", "platform.pub")
    log_in(operator.platform, config, config / "token")  # the same platform: nothing to say
    before = {n: (config / n).read_bytes() for n in names}
    old = operator.platform.client(before["token"].decode().strip()).get("/api/v1/platform").json
    other = tg.Platform(tmp_path / "other").start()
    try:
        r = log_in(other, config, other.dir / "admin.token", rc="AUTH")
        assert {n: (config / n).read_bytes() for n in names} == before
        spare = config / "token.new"  # a one-time token is not lost by the refusal
        assert stat.S_IMODE(spare.stat().st_mode) == 0o600 and "token.new" in r.err and "--replace-keys" in r.err
        new = other.client(spare.read_text().strip()).get("/api/v1/platform").json
        assert old["vault_key_id"] in r.err and new["vault_key_id"] in r.err, r.err
        # The other key alone is noticed as well.
        (config / "vault.pub").write_text(new["vault_public_key"])
        r = log_in(other, config, spare, rc="AUTH")
        assert old["platform_key_id"] in r.err and new["platform_key_id"] in r.err and "platform.pub" in r.err, r.err
        said = pack.run("login", "--server", other.api_url, "--token-file", spare, "--ca", other.ca, "--config", config, "--json",
                        "--replace-keys").json
        assert said["vault_key_id"] == new["vault_key_id"] and not spare.exists()
        assert (config / "platform.pub").read_text() == new["platform_public_key"]
        assert json.loads((config / "config.json").read_text())["server"] == other.api_url
        pack.write(config / "vault.pub", b"no key\n")
        r = log_in(other, config, config / "token", rc="FORMAT")
        assert "vault.pub" in r.err and "--replace-keys" in r.err
    finally:
        other.stop()


def test_login_fails_with_a_reason(platform, tmp_path):
    token = pack.write(tmp_path / "t", b"tok\n")
    other_ca = tmp_path / "other.pem"
    tg.run(programs.openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
           tmp_path / "k", "-out", other_ca, "-subj", "/CN=other", "-config", "/dev/null", "-days", "2")
    r = pack.run("login", "--server", platform.api_url, "--token-file", token, "--ca", other_ca, "--config", tmp_path / "c", rc="AUTH")
    assert "certificate" in r.err
    r = pack.run("login", "--server", "https://127.0.0.1:1", "--token-file", token, "--ca", platform.ca, "--config", tmp_path / "c", rc="IO")
    assert "127.0.0.1" in r.err or "connect" in r.err
    pack.run("login", "--server", "gopher://x", "--token-file", token, "--ca", platform.ca, "--config", tmp_path / "c", rc="USAGE")
    r = pack.run("login", "--server", platform.api_url.replace("https", "http"), "--token-file", token, "--ca", platform.ca, "--config",
                 tmp_path / "c", rc="USAGE")
    assert "https://" in r.err, "a token must not be sent in the clear"
    r = pack.run("login", "--server", platform.device_url, "--token-file", token, "--ca", platform.ca, "--config", tmp_path / "c",
                 rc="NOTFOUND")
    assert "devices" in r.err, "what answers there is for devices"
    pack.write(token, b"two words\n")
    log_in(platform, tmp_path / "c", token, rc="FORMAT")
    r = pack.run("fleet", "list", "--config", tmp_path / "c", rc="STATE")
    assert "login" in r.err


# ---- lists and roles ----

def test_fleets_devices_and_tokens(operator, fleet, tmp_path):
    assert "robots" in operator.run("fleet", "list").out
    operator.run("fleet", "create", "robots", rc="EXISTS")
    operator.run("fleet", "create", "no spaces", rc="FORMAT")
    assert operator.json("fleet", "set", "robots", "--grants", "author", "--description", "in hall 3")["grants"] == "author"
    assert operator.json("fleet", "show", "robots")["description"] == "in hall 3"
    assert operator.json("fleet", "set", "robots", "--grants", "any")["description"] == "in hall 3"
    operator.run("fleet", "set", "robots", "--grants", "perhaps", rc="USAGE")
    operator.run("fleet", "show", "nowhere", rc="NOTFOUND")
    assert operator.run("device", "list").out == "There are no devices.\n"
    d = device(operator, tmp_path, "one")
    assert stat.S_IMODE(os.stat(tmp_path / "one.token").st_mode) == 0o600
    listed = operator.json("device", "list", "--fleet", "robots")["devices"]
    assert [x["id"] for x in listed] == [d.id]
    assert operator.json("device", "show", d.id)["kem_key_id"] == d.kem_key_id
    assert operator.json("fleet", "keys", "robots")["kem_keys"][0]["kem_key_id"] == d.kem_key_id
    tokens = operator.json("enrolment-token", "list")["enrolment_tokens"]
    assert tokens[0]["state"] == "used" and tokens[0]["device"] == d.id
    shown = operator.run("enrolment-token", "create", "--fleet", "robots", "--expires", "30m", "--json").json
    assert shown["token"]
    operator.run("enrolment-token", "delete", shown["id"])
    operator.run("enrolment-token", "create", "--fleet", "robots", "--expires", "soon", rc="USAGE")
    d.checkin()
    assert operator.json("device", "revoke", d.id, "--reason", "stolen")["state"] == "revoked"
    d.checkin(expect=403)
    assert "stolen" in operator.run("device", "show", d.id).out


def test_roles_are_held_to(operator, fleet, tmp_path):
    made = operator.run("token", "create", "--name", "eyes", "--role", "viewer", "--out", tmp_path / "t", "--json").json
    assert "token" not in made or made.get("token") is None
    log_in(operator.platform, tmp_path / "viewer", tmp_path / "t")
    viewer = Operator(operator.platform, tmp_path / "viewer")
    assert viewer.json("fleet", "list")["fleets"][0]["name"] == "robots"
    r = viewer.run("fleet", "create", "mine", rc="DENIED", )
    assert r.err.count("\n") == 1
    operator.run("token", "delete", made["id"])
    viewer.run("fleet", "list", rc="AUTH")
    operator.run("token", "create", "--name", "x", "--role", "emperor", rc="USAGE")


# ---- publish ----

def test_publish_in_parts(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path)
    said = operator.json("publish", package, "--part-size", "65536")
    assert said["package"] == tg.h_of(package) and said["resumed"] is False
    assert said["parts"] == -(-os.stat(package).st_size // 65536) == said["parts_sent"]
    assert said["signed_by"] == [people[0].key_id.hex()]
    assert operator.json("package", "list")["packages"][0]["model"]["name"] == "m"
    for name in (package, said["package"], said["package"][:10]):
        assert operator.json("package", "show", name)["header_sha256"] == said["package"]
    operator.run("package", "show", "0" * 10, rc="NOTFOUND")
    operator.run("package", "show", "0" * 64, rc="NOTFOUND")
    # The blob is the file.
    blob = operator.platform.client((operator.config / "token").read_text().strip()).get("/api/v1/blobs/" + said["blob_sha256"])
    assert blob.body == package.read_bytes()
    # A co-signed copy replaces it under the same H.
    operator.run("publisher", "add", "--name", "second", "--key", people[1].pub)
    pack.run("sign", package, "--signing-key", people[1].sign)
    said2 = operator.json("publish", package)
    assert said2["package"] == said["package"] and said2["blob_sha256"] != said["blob_sha256"] and len(said2["signed_by"]) == 2
    assert [*(operator.config / "uploads").iterdir()] == []


def test_a_publisher_of_every_model_is_said_to_be_one(operator, people):
    """Who may co-sign others' packages counts as a signer of them: nobody gets that right without a word."""
    add = ("publisher", "add", "--key", people[0].pub, "--name")
    r = operator.run(*add, "wide")
    assert r.err.count("\n") == 1 and "every model" in r.err and "co-sign" in r.err and "--model" in r.err, r
    [line] = [line for line in operator.run("publisher", "list").out.splitlines() if "wide" in line]
    assert " all " in line, line
    [wide] = operator.json("publisher", "list")["publishers"]
    operator.run("publisher", "remove", wide["key_id"])
    assert operator.run(*add, "wide", "--model", "*", "--model", "net", rc="USAGE").out == ""
    assert "--model: the name of a model is empty" in operator.run(*add, "wide", "--model", "", rc="USAGE").err
    r = operator.run(*add, "meant", "--model", "*")  # asked for by name
    assert r.err == "", r
    [meant] = operator.json("publisher", "list")["publishers"]
    assert meant["models"] == wide["models"] == []
    r = operator.run(*add, "again", rc="EXISTS")  # the same key
    assert "registered already" in r.err and "remove it first" in r.err, r
    r = operator.run("publisher", "add", "--key", people[1].pub, "--name", "narrow", "--model", "net", "--json")
    assert r.err == "" and r.json["models"] == ["net"], r


def test_what_is_refused(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path)
    raw = bytearray(package.read_bytes())
    raw[len(raw) // 2] ^= 1
    bad = pack.write(tmp_path / "bad.tgsp", bytes(raw))
    r = operator.run("publish", bad, rc=None)
    assert r.rc in (pack.EXIT["FORMAT"], pack.EXIT["AUTH"]) and "chunk" in r.err, r
    stranger = build(people[1], tmp_path / "s")
    r = operator.run("publish", stranger, rc="AUTH")
    assert people[1].key_id.hex() in r.err or "publisher" in r.err
    r = operator.run("publish", pack.write(tmp_path / "x", b"no package"), rc="FORMAT")
    operator.run("publish", package, "--part-size", "1000", rc="USAGE")
    assert operator.json("package", "list")["packages"] == []
    assert [*(operator.config / "uploads").iterdir()] == []  # what was refused is not resumed
    operator.platform.stop()
    r = operator.run("publish", package, rc="IO")
    assert r.err.count("\n") == 1


def test_a_broken_upload_goes_on_where_it_was(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path, size=48 << 20)
    argv = [programs.path("tensorguard"), "publish", str(package), "--part-size", "65536", "--config", str(operator.config)]
    for sig in (signal.SIGKILL, signal.SIGINT):
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        notes = operator.config / "uploads"
        tg.wait_for("the upload to begin", lambda: notes.is_dir() and any(n.name[0] != "." and ".tmp" not in n.name for n in notes.iterdir()))
        p.send_signal(signal.SIGSTOP)
        upload = next(n for n in notes.iterdir() if ".tmp" not in n.name).read_text()
        client = operator.platform.client((operator.config / "token").read_text().strip())
        before = client.get(f"/api/v1/uploads/{upload}").json["received"]

        def some_parts():
            """Lets the upload go on a little and stands it still while we look: a busy machine may not outrun us."""
            p.send_signal(signal.SIGCONT)
            time.sleep(0.02)
            p.send_signal(signal.SIGSTOP)
            return p.poll() is not None or client.get(f"/api/v1/uploads/{upload}").json["received"] > before + 20

        tg.wait_for("some parts", some_parts)
        p.send_signal(sig)
        p.send_signal(signal.SIGCONT)
        _, err = p.communicate(timeout=30)
        assert p.returncode == -sig, err
    received = client.get(f"/api/v1/uploads/{upload}").json["received"]
    said = operator.json("publish", package)
    assert said["resumed"] is True and 0 < said["parts_sent"] <= said["parts"] - received
    assert [*notes.iterdir()] == []


def upload_and_kill(operator, package, *more):
    """An upload whose platform dies after some parts by kill -9; the process that uploads."""
    p = subprocess.Popen([programs.path("tensorguard"), "publish", str(package), "--part-size", "65536", "--json", "--config",
                          str(operator.config), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    notes = operator.config / "uploads"
    tg.wait_for("the upload to begin", lambda: notes.is_dir() and any(n.name[0] != "." and ".tmp" not in n.name for n in notes.iterdir()))
    p.send_signal(signal.SIGSTOP)
    assert p.poll() is None
    operator.platform.kill()
    p.send_signal(signal.SIGCONT)
    return p


def test_an_upload_survives_the_platform(operator, fleet, people, tmp_path):
    """kill -9 of the platform in the middle: the command says so, waits, goes on, and completes."""
    package = build(people[0], tmp_path, size=32 << 20)
    endpoints = operator.platform.endpoints
    p = upload_and_kill(operator, package)
    said = p.stderr.readline()
    assert said.startswith("tensorguard publish: ") and "trying again for up to 120 s" in said, said
    operator.platform.options[1] = endpoints["api_url"].split("//")[1]
    operator.platform.start()
    out, err = p.communicate(timeout=120)
    assert p.returncode == 0, err
    assert "the platform answers again: going on" in err
    done = json.loads(out)
    assert done["package"] == tg.h_of(package) and done["parts_sent"] <= done["parts"]
    assert operator.json("package", "list")["packages"][0]["header_sha256"] == done["package"]


def test_an_upload_gives_up_after_the_time_given(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path, size=32 << 20)
    endpoints = operator.platform.endpoints
    p = upload_and_kill(operator, package, "--retry-for", "0s")
    out, err = p.communicate(timeout=60)
    assert p.returncode == pack.EXIT["IO"] and err.count("\n") == 1, err
    assert "the same command goes on where it was" in err and "trying again" not in err
    operator.platform.options[1] = endpoints["api_url"].split("//")[1]
    operator.platform.start()
    assert operator.json("publish", package)["resumed"] is True
    operator.run("publish", package, "--retry-for", "soon", rc="USAGE")


# ---- grants for a fleet ----

def test_grants_are_made_for_pinned_keys(operator, fleet, people, tmp_path):
    author = people[0]
    package = build(author, tmp_path)
    one, two = device(operator, tmp_path, "one"), device(operator, tmp_path, "two")
    pins = pack.write(tmp_path / "pins", f"# mine\n{one.id} {one.kem_key_id}  the first\n\n".encode())
    grant = ["publish", package, "--grant-fleet", "robots", "--signing-key", author.sign]
    assert "--pins" in operator.run(*grant, rc="USAGE").err
    operator.run(*grant, "--pins", tmp_path / "none", rc="NOTFOUND")
    operator.run(*grant[:-2], "--pins", pins, rc="USAGE")

    r = operator.run(*grant, "--pins", pins, "--json")
    assert "1 of 2 keys were taken on the platform's word alone" in r.err
    known = {g["device"]: g["key_known_by"] for g in r.json["grants"]}
    assert known == {one.id: "your pin", two.id: "the platform's word alone"} and r.json["on_platform_word"] == 1
    listed = operator.json("package", "grants", package)["grants"]
    assert {g["kem_key_id"] for g in listed} == {one.kem_key_id, two.kem_key_id}
    assert all(g["granter"] == author.key_id.hex() and not g["vault"] for g in listed)
    # The device can use what it is handed.
    operator.run("deploy", "--package", package, "--fleet", "robots")
    one.checkin()
    h = tg.h_of(package)
    got = one.client().get(f"/device/v1/packages/{h}/grant").body
    pack.write(tmp_path / "g.tgrant", got)
    pack.run("open", package, "--key", one.dir / "encryption.priv", "--trust", author.pub, "--grant", tmp_path / "g.tgrant",
             "--out-dir", tmp_path / "out")
    assert pack.tree(tmp_path / "out") == pack.tree(tmp_path / "model")

    r = operator.run(*grant, "--pins", pins, "--pinned-only", "--json")
    assert [g["device"] for g in r.json["grants"]] == [one.id] and r.json["left_out"] == 1 and r.err == ""
    assert pins.read_text().startswith("# mine\n")
    r = operator.run(*grant, "--pins", pins, "--pin-new", "--json")
    assert pins.read_text().splitlines()[-1] == f"{two.id} {two.kem_key_id}"
    assert operator.json(*grant, "--pins", pins)["on_platform_word"] == 0


def test_a_platform_that_swaps_a_key_is_caught(operator, fleet, people, tmp_path):
    one = device(operator, tmp_path, "one")
    package = build(people[0], tmp_path)
    pins = pack.write(tmp_path / "pins", f"{one.id} {'00' * 16}\n".encode())
    r = operator.run("publish", package, "--grant-fleet", "robots", "--signing-key", people[0].sign, "--pins", pins, rc="AUTH")
    assert one.id in r.err and "pinned" in r.err
    assert operator.json("package", "list")["packages"] == []  # not even uploaded
    for bad in (b"nonsense\n", f"{one.id} {one.kem_key_id}\n{one.id} {one.kem_key_id}\n".encode(), f"{one.id}{one.kem_key_id}\n".encode()):
        pack.write(pins, bad)
        r = operator.run("publish", package, "--grant-fleet", "robots", "--signing-key", people[0].sign, "--pins", pins, rc="FORMAT")
        assert "line" in r.err


# ---- deploy and status ----

def test_deploy_wait_and_status(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path, "--recipient", operator.config / "vault.pub")
    d = device(operator, tmp_path, "one")
    operator.run("publish", package)
    operator.run("deploy", "--package", package, rc="USAGE")
    operator.run("deploy", "--package", package, "--fleet", "robots", "--device", d.id, rc="USAGE")
    operator.run("deploy", "--package", package, "--fleet", "elsewhere", rc="NOTFOUND")
    r = operator.run("deploy", "--package", package, "--fleet", "robots", "--wait", "--timeout", "1s", rc="IO")
    assert "0 of 1 devices" in r.err

    old = d.checkin().json["deployments"][0]["deployment_id"]

    def newest(before):
        return tg.wait_for("another deployment", lambda: next(
            (x["deployment_id"] for x in d.checkin().json["deployments"] if x["deployment_id"] != before), None))

    def life():
        found = newest(old)
        for state in ("downloading", "verifying", "running"):
            d.report(found, state)

    t = threading.Thread(target=life)
    t.start()
    done = operator.json("deploy", "--package", package, "--fleet", "robots", "--wait")
    t.join()
    assert done["counts"]["running"] == 1 and done["id"] != old
    text = operator.run("status").out
    assert "running" in text and "one" in text and "one user" in text
    assert operator.json("status")["devices"][0]["update_state"] == "running"

    made = operator.json("deploy", "--package", tg.h_of(package)[:12], "--device", d.id)
    d.report(newest(done["id"]), "failed", code="NOMEM", reason="memory could not be locked: 64 KiB of \u202e1 MiB")
    text = operator.run("status", made["id"]).out
    assert "memory could not be locked" in text and "\u202e" not in text and "NOMEM" in text
    assert len(operator.json("deployment", "list")["deployments"]) == 3
    operator.run("deployment", "cancel", made["id"])
    operator.run("status", "0" * 32, rc="NOTFOUND")


def test_a_failed_device_is_a_failed_deploy(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path, "--recipient", operator.config / "vault.pub")
    d = device(operator, tmp_path, "one")
    operator.run("publish", package)
    p = subprocess.Popen([programs.path("tensorguard"), "deploy", "--package", str(package), "--device", d.id, "--wait", "--json",
                          "--config", str(operator.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    found = tg.wait_for("the deployment", lambda: d.checkin().json.get("deployments"))
    d.report(found[0]["deployment_id"], "failed", code="AUTH", reason="not signed by anyone trusted")
    out, err = p.communicate(timeout=30)
    assert p.returncode == pack.EXIT["STATE"] and "1 of 1 devices failed" in err
    assert json.loads(out)["updates"][0]["reason"] == "not signed by anyone trusted"


def test_the_audit_log_tells_the_story(operator, fleet, people, tmp_path):
    package = build(people[0], tmp_path)
    operator.run("publish", package)
    rows = operator.json("audit", "--package", package)["audit"]
    assert "package.accept" in [r["action"] for r in rows]
    assert "fleet.create" in operator.run("audit").out
    assert operator.json("audit", "verify")["ok"] is True


def test_ids_from_outside_stay_one_segment(operator, fleet):
    for evil in ("../packages", "a/b", "x?limit=1", "%2e%2e", ""):
        r = operator.run("fleet", "show", evil, rc=None)
        assert r.rc in (3, 4), r
