"""Enrolment: idempotent, crash-safe, and plain about what to do."""
import json
import os
import pathlib
import signal
import socket

import pytest

import programs
import tg
import tg_agent
from test_agent_grant import give, own


def test_again_says_so_and_changes_nothing(world):
    a = world.agent().enrol()
    before = {p: p.read_bytes() for p in a.state.rglob("*") if p.is_file() and p.name != "lock"}
    done = tg.run(*a.enrol_argv(world.token(), "--json"))
    assert json.loads(done.stdout)["already"] and json.loads(done.stdout)["device_id"] == a.id
    assert before == {p: p.read_bytes() for p in a.state.rglob("*") if p.is_file() and p.name != "lock"}
    assert len(world.api.get("/api/v1/devices").json["items"]) == 1


def test_a_used_token(world):
    token = world.token()
    world.agent("one").enrol(token=token)
    two = world.agent("two")
    done = two.enrol(token=token, ok=False)
    assert done.returncode == 5, done.stderr  # AUTH
    assert "used before" in done.stderr and "ask the operator for a new one" in done.stderr
    assert "run the same command with it" in done.stderr
    assert not (two.state / "agent.json").exists()
    two.enrol()  # the same command with a new token


@pytest.mark.parametrize("step,spent", [("key", False), ("kem", False), ("sent", True), ("stored", True)])
def test_killed_in_the_middle(world, step, spent):
    a, token = world.agent(), world.token()
    done = tg.run(*a.enrol_argv(token, "--kill-at", step), ok=None)
    assert done.returncode == -signal.SIGKILL
    assert not (a.state / "agent.json").exists()
    refused = tg.run(*a.argv("--once"), ok=False)
    assert "not enrolled" in refused.stderr
    key = (a.state / "device.key").read_bytes()
    if spent:
        done = a.enrol(token=token, ok=False)
        assert "ask the operator for a new one" in done.stderr
        token = world.token()
    a.enrol(token=token)
    assert (a.state / "device.key").read_bytes() == key  # what was made is used
    a.once()


def test_unknown_token_wrong_fleet_wrong_platform(world, tmp_path, stranger):
    a = world.agent()
    bad = tmp_path / "bad"
    bad.write_text("tge_nothing\n")
    done = a.enrol(token=bad, ok=False)
    assert done.returncode == 5 and "unknown enrolment token" in done.stderr
    empty = tmp_path / "empty"
    empty.write_text("\n")
    done = a.enrol(token=empty, ok=False)
    assert done.returncode == 2 and "empty" in done.stderr
    world.api.post("/api/v1/fleets", {"name": "ships"})
    done = a.enrol(token=world.token("ships"), ok=False)
    assert "another fleet" in done.stderr
    # a CA that did not issue the platform's certificate: the token is never sent
    openssl = programs.openssl()
    tg.run(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
           tmp_path / "k", "-out", tmp_path / "foreign.pem", "-subj", "/CN=foreign", "-days", "2", "-config", "/dev/null",
           "-addext", "basicConstraints=critical,CA:TRUE")
    argv = a.enrol_argv(world.token())
    argv[argv.index("--ca") + 1] = tmp_path / "foreign.pem"
    done = tg.run(*argv, ok=False)
    assert done.returncode == 5 and "certificate" in done.stderr, done.stderr
    assert "token" not in done.stderr
    assert all(t["state"] != "used" for t in world.api.get("/api/v1/enrolment-tokens").json["items"])


def test_unreachable_platform(world):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    a = world.agent()
    a.server = f"https://127.0.0.1:{port}"
    done = a.enrol(ok=False)
    assert done.returncode == 3 and f"127.0.0.1:{port}" in done.stderr
    proxy = tg_agent.Proxy(a.server)
    proxy.down = True  # hangs up in the handshake: the connection's failure, no word about certificates or tokens
    a.server = proxy.url
    done = a.enrol(ok=False)
    assert done.returncode == 3 and "token" not in done.stderr, (done.returncode, done.stderr)
    proxy.close()


def test_options_that_contradict(world):
    a = world.agent()

    def argv(*more):
        """The usual command line, with these options instead of those of the same name."""
        usual = a.enrol_argv(world.token())
        if more and more[0] in usual:
            i = usual.index(more[0])
            usual[i:i + 2] = []
        return [*usual, *more]

    for more, text in ((["--predict-tcp", "0"], "--tcp-token-file"), (["--predict-tcp", "70000"], "no port"),
                       (["--worker", "/nonexistent"], "/nonexistent"), (["--worker-user", "no-such-user"], "no such user"),
                       (["--worker-user", "root"], "is root"), (["--trust-store", "/nonexistent"], "either --trust"),
                       (["--predict-socket", "relative"], "absolute"), (["--load-timeout", "x"], "whole number"),
                       (["--server", "ftp://x"], "https://host"), (["--no-such"], "unknown option")):
        done = tg.run(*argv(*more), ok=False)
        assert text in done.stderr, (more, done.stderr)
        assert not (a.state / "agent.json").exists()


def test_trust_store_file(world, author, stranger, tmp_path):
    """--trust-store: taken as it is; it must name the platform's key."""
    store = tmp_path / "fleet.tgtrust"
    tg.cli("trust", "init", store, "--author", author / "signing.pub", "--granter", author / "signing.pub")
    a = world.agent()
    argv = a.enrol_argv(world.token(), "--trust-store", store)
    i = argv.index("--trust")
    del argv[i:i + 2]
    done = tg.run(*argv, ok=False)
    assert "role platform" in done.stderr
    tg.cli("trust", "add", store, "--platform", world.platform_pub, "--granter", world.platform_pub,
           "--signing-key", author / "signing.priv")
    tg.run(*argv)
    assert (a.state / "trust.tgtrust").read_bytes() == store.read_bytes()
    _, one = world.ship(1)
    a.id = json.loads((a.state / "agent.json").read_text())["device_id"]
    a.start()
    world.wait_update(one, a.id, "running")


def test_no_vault_grants(world, tmp_path):
    """The operator may refuse the vault's grants: then a package does not run by one, and waits for its author's."""
    a = world.agent().enrol("--no-vault-grants")
    package = own(world, vault=True)
    one = world.deploy(world.publish(package))
    a.start()
    told = lambda: (lambda u: "granter" in (u.get("reason") or "") and u)(world.update(one, a.id))  # noqa: E731
    u = tg.wait_for("why it waits", told)
    assert u["state"] == "downloading" and "waits for a new grant" in u["reason"], u
    assert not a.socket.exists() or a.status()["serving"]["state"] == "nothing"
    assert "started=" not in a.log_text()
    give(world, package, a, tmp_path / "authors")
    world.wait_update(one, a.id, "running")
    assert a.serves(1)


def test_enrol_again_after_revocation(world):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    world.api.post(f"/api/v1/devices/{a.id}/revoke", {"reason": "lost"}, expect=200)
    a.poke()
    s = a.wait_status("revoked", lambda s: s.get("platform_code") == "DENIED")
    assert "revoked" in s["platform_reason"] and not s["online"]
    assert a.serves(1)  # what it has goes on; nothing new reaches it
    a.stop()
    first, record = a.id, (a.state / "rollback.json").read_bytes()
    a.enrol("--again")
    assert a.id != first
    assert (a.state / "rollback.json").read_bytes() == record
    a.start()
    _, two = world.ship(2)
    world.wait_update(two, a.id, "running")


def test_help_and_usage():
    agent = programs.path("tensorguard-agent")
    assert "enroll" in tg.run(agent, "--help").stdout
    for verb in ("enroll", "run", "status", "trust"):
        assert "--state-dir" in tg.run(agent, verb, "--help").stdout
    assert tg.run(agent, ok=False).returncode == 2
    assert tg.run(agent, "frobnicate", ok=False).returncode == 2
    done = tg.run(agent, "status", "--state-dir", "/nonexistent/state", ok=False)
    assert "enrol this device first" in done.stderr
