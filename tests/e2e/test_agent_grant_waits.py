"""A grant that lapses, is refused or goes missing where a package is under way, was superseded, or is to start: what was
downloaded stays, nothing fails for good, no older version runs, and all goes on when a grant that does is here."""
import base64
import json
import os
import signal
import sqlite3
import time

import pytest

import programs
import tg
from test_agent_grant import expired, give, grant, lapse, no_way_back, own, waits
from test_agent_stream import early, part, starts, wait_decrypting

SIZE = 6 << 20


def large(world):
    package = own(world, files={**world.files(1), "data.bin": os.urandom(SIZE)})
    return package, world.publish(package)


def stored(world, h, document=None, not_after=None):
    """What somebody who has the platform's database does to a grant."""
    with sqlite3.connect(world.platform.dir / "platform.db") as db:
        assert db.execute("UPDATE grants SET document = COALESCE(?, document), not_after = COALESCE(?, not_after) WHERE h = ?",
                          (document, not_after, bytes.fromhex(h))).rowcount == 1


def states_told(world):
    return [e["detail"].split(" ")[0].split(":")[0] for e in world.api.get("/api/v1/audit?action=update.report").json["items"]]


def waits_in_the_update(world, a, deployment, *words):
    """It says so, as no failure; returns the update as the platform shows it."""
    told = lambda: (lambda u: "waits for a new grant" in (u.get("reason") or "") and u)(world.update(deployment, a.id))  # noqa: E731
    u = tg.wait_for("told why it waits", told)
    assert u["state"] == "downloading" and not u.get("code"), u
    assert all(w in u["reason"] for w in words), u
    return u


def goes_on(world, a, deployment, model=1):
    world.wait_update(deployment, a.id, "running")
    assert a.serves(model)
    assert not {"failed", "rolled_back"} & set(states_told(world)), states_told(world)


# ---- refused in the middle of an update ----

@pytest.mark.parametrize("kind", ["of another package", "by a stranger", "no grant"])
def test_a_refused_grant_keeps_the_package(proxied, tmp_path, stranger, kind):
    world, proxy, a = proxied
    package, h = large(world)
    give(world, package, a, tmp_path / "good")
    bad = {"of another package": lambda: grant(world, own(world), a.state / "kem.pub", tmp_path / "bad").read_bytes(),
           "by a stranger": lambda: grant(world, package, a.state / "kem.pub", tmp_path / "bad", stranger).read_bytes(),
           "no grant": lambda: b"{}"}[kind]()
    stored(world, h, bad)
    a.start()
    before = proxy.bytes
    deployment = world.deploy(h)
    waits_in_the_update(world, a, deployment, "grant: ")
    a.wait_status("waiting", lambda s: s["update"]["state"] == "fetch-waiting" and s["update"]["fetched"] >= SIZE)
    assert (a.state / "packages" / f"{h}.tgsp").exists() and not list((a.state / "grants").iterdir())
    a.kill()  # and after a restart
    a.start()
    a.wait_status("waiting", lambda s: s["update"]["state"] == "fetch-waiting")
    stored(world, h, (tmp_path / "good").read_bytes())
    goes_on(world, a, deployment)
    assert proxy.bytes - before < SIZE * 1.5, "the package was fetched more than once"


# ---- lapsed while the download lasts, and in the trial ----

def follows(world, proxy, a, tmp_path):
    """A slow download that a worker follows which has the key: (package, h, deployment)."""
    package, h = large(world)
    give(world, package, a, tmp_path / "first")
    proxy.rate = SIZE / 6
    a.start()
    deployment = world.deploy(h)
    wait_decrypting(a)
    return package, h, deployment


def test_a_grant_that_lapses_while_the_download_lasts(proxied, tmp_path):
    world, proxy, a = proxied
    before = proxy.bytes
    package, h, deployment = follows(world, proxy, a, tmp_path)
    os.kill(early(a)[0], signal.SIGKILL)  # it has the key and needs no grant any more
    lapse(world, a, package, h)
    waits_in_the_update(world, a, deployment)
    proxy.rate = None
    assert (a.state / "packages" / f"{h}.tgsp").exists() and not part(a, h).exists()
    assert starts(a) == ["early"], "a worker was started in vain"
    give(world, package, a, tmp_path / "new")
    goes_on(world, a, deployment)
    assert proxy.bytes - before < SIZE * 1.5


def test_a_worker_that_has_the_key_needs_no_grant_any_more(proxied, tmp_path):
    world, proxy, a = proxied
    package, h, deployment = follows(world, proxy, a, tmp_path)
    lapse(world, a, package, h)
    goes_on(world, a, deployment)
    assert starts(a) == ["early"], a.log_text()


# The real worker, but no load of a package before the time in the file.
LATE = """
import os, pathlib, sys, time
real, until, argv = {real}, pathlib.Path({until}), sys.argv[1:]
while argv[0] == "worker" and time.time() < float(until.read_text()):
    time.sleep(0.05)
os.execv(real, [real, *argv])
"""


def stamp(t):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t))


def test_a_grant_that_lapses_in_the_trial(world, tmp_path):
    until = tmp_path / "until"
    until.write_text("0")
    a = world.agent().stand_in(LATE, until=until).run_first()
    package = own(world, 2)
    h = world.publish(package)
    end = int(time.time()) + 8
    give(world, package, a, tmp_path / "first", "--not-after", stamp(end))
    until.write_text(str(end + 0.5))
    deployment = world.deploy(h)
    waits_in_the_update(world, a, deployment, "expired at", "clock")
    assert a.serves(1)
    assert a.journal()["step"] == "trying" and (a.state / "packages" / f"{h}.tgsp").exists()
    give(world, package, a, tmp_path / "new")
    goes_on(world, a, deployment, 2)


# ---- missing, or of a revoked granter, at a start ----

def tells(a, code, *words):
    """It waits, and says for what; version 2 stays the one to run."""
    s = a.wait_status("waiting for a grant", lambda s: s["serving"]["state"] == "grant-waiting")
    assert s["serving"]["header_sha256"] == a.h and s["serving"]["code"] == code, s
    assert all(w in s["serving"]["reason"] for w in ("waits for a new grant", "tensorguard package grant", *words)), s


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_start_without_its_grant(expired, tmp_path, how):
    world, proxy, a = expired
    if how == "missing":
        a.grant_file.unlink()
    else:
        a.grant_file.write_text("{")
    proxy.drop()  # nor can it fetch one
    a.start()
    tells(a, *(("NOTFOUND", "there is none on this device") if how == "missing" else ("FORMAT", "grant")))
    a.stop()
    proxy.down = False
    a.start()
    tells(a, "NOTFOUND" if how == "missing" else "FORMAT")
    no_way_back(world, a)
    give(world, a.package, a, tmp_path / "new")
    a.wait_serving("2")
    assert a.serves(2)
    no_way_back(world, a)
    tg.wait_for("it is kept", lambda: a.grant_file.read_bytes() == (tmp_path / "new").read_bytes())


def test_a_start_after_its_granter_was_revoked(world, author, stranger, tmp_path):
    """Its grant counts no more, and its package does: neither it nor an older one runs until another granter's is here."""
    store = tmp_path / "fleet.tgtrust"
    tg.cli("trust", "init", store, "--author", author / "signing.pub", "--granter", author / "signing.pub",
           "--granter", stranger / "signing.pub", "--platform", world.platform_pub)
    world.publisher(stranger)
    a = world.agent()
    argv = a.enrol_argv(world.token(), "--trust-store", store, "--json")
    i = argv.index("--trust")
    del argv[i:i + 2]
    a.id = json.loads(tg.run(*argv).stdout)["device_id"]
    a.start()
    for model in (1, 2):
        a.package = own(world, model)
        a.h = world.publish(a.package)
        world.cli("package", "grant", a.package, grant(world, a.package, a.state / "kem.pub", tmp_path / f"g{model}", stranger))
        a.deployment = world.deploy(a.h)
        world.wait_update(a.deployment, a.id, "running")
    tg.cli("trust", "remove", store, stranger / "signing.pub", "--signing-key", author / "signing.priv")
    tg.run(programs.path("tensorguard-agent"), "trust", "--state-dir", a.state, "--trust-store", store)
    a.poke()
    a.wait_serving("2")  # what serves, serves on
    a.stop()
    for _ in range(2):
        a.start()
        tells(a, "AUTH", "none is by a trusted key")
        tg.wait_for("it looked at the same one again", lambda: "agent.grant" in a.log_text())
        a.stop()
    a.start()
    tells(a, "AUTH")
    no_way_back(world, a)
    give(world, a.package, a, tmp_path / "new")
    a.wait_serving("2")
    assert a.serves(2)
    no_way_back(world, a)


# ---- superseded ----

def test_a_superseded_package_gets_its_grant(world):
    """Version 2 ran, its grant has lapsed on the disk and on the platform, and version 3 fails: version 2 it is, once the vault has
    made the grant anew, and no older one meanwhile."""
    a = world.agent().run_first()
    two = own(world, 2, vault=True)
    h = world.publish(two)
    deployment = world.deploy(h)
    world.wait_update(deployment, a.id, "running")
    a.stop()
    kept = lapse(world, a, two, h)
    bad = {**world.files(2), "golden/case0.logits.npy": world.files(1)["golden/case0.logits.npy"]}
    three = world.deploy(world.publish(world.build(3, files=bad)))
    assert world.update(deployment, a.id)["state"] == "superseded"
    a.start()
    assert "golden" in world.wait_update(three, a.id, "failed")["reason"]
    a.wait_serving("2")
    assert a.serves(2)
    log = a.log_text()
    assert "waiting=grant" in log and "agent.fallback" not in log
    assert {s["serving"]["header_sha256"] for s in [a.status()]} == {h}
    told = [e["detail"] for e in world.api.get(f"/api/v1/audit?package={h}&action=grant.vault").json["items"]]
    assert told == ["made by the vault", "made anew by the vault"]
    tg.wait_for("it took the old one's place", lambda: b"" != kept.read_bytes() and "2025-01-01" not in ends(kept))
    a.stop()
    a.start()  # and it is a grant to keep
    a.wait_serving("2")


def ends(path):
    text = json.loads(path.read_bytes())["grant"]
    return json.loads(base64.urlsafe_b64decode(text + "=="))["not_after"]
