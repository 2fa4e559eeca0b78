"""An author's own grant, end to end and without the vault: `tensorguard grant`, `tensorguard package grant`, and the device runs
a package that was encrypted to the author alone."""
import json

import pytest

import pack
import tg
import tg_agent


@pytest.fixture
def world(tmp_path, author):
    w = tg_agent.World(tmp_path, author)
    yield w
    w.stop()


def grant(world, package, recipient, out, author=None):
    author = author or world.author
    tg.cli("grant", package, "--key", world.author / "encryption.priv", "--signing-key", author / "signing.priv", "--recipient",
           recipient, "--out", out, *([] if author is world.author else ["--trust", world.author / "signing.pub"]))
    return out


def own(world, model=1):
    """A package that its author alone can open."""
    return tg.make_package(world.dir, world.author, "perception-net", world.files(model), [world.author / "encryption.pub"],
                           model_version=str(model))


def test_grant_deliver_run(world, tmp_path):
    a = world.agent().enrol()
    package = own(world)
    h = world.publish(package)
    deployment = world.deploy(h)
    a.start()
    u = world.wait_update(deployment, a.id, "failed", "waiting", "pending", "offered")  # nothing opens it yet
    assert u["state"] != "running"
    g = grant(world, package, a.state / "kem.pub", tmp_path / "d.tgrant")
    said = json.loads(world.cli("package", "grant", package, g, "--json").stdout)
    assert said["device"] == a.id and said["package"] == h and said["name"] == a.dir.name
    listed = json.loads(world.cli("package", "grants", package, "--json").stdout)["grants"]
    assert [x["kem_key_id"] for x in listed] == [said["kem_key_id"]] and listed[0]["granter"] == said["granter"] and not listed[0]["vault"]
    if u["state"] == "failed":
        deployment = world.deploy(h)
    world.wait_update(deployment, a.id, "running")
    assert a.serves(1)


def refused(world, code, *args):
    done = world.cli("package", "grant", *args, "--json", ok=False)
    said = json.loads(done.stdout)
    assert said["error"] == code and done.returncode == pack.EXIT[code] and done.stderr.count("\n") == 1, said
    return said["message"]


def test_a_grant_finds_its_device_or_says_why_not(world, stranger, tmp_path):
    one, two = (tg.Device(tmp_path / name, world.platform, "robots", name).enrol() for name in ("one", "two"))
    package, other = own(world), own(world, 2)
    h = world.publish(package)
    world.publish(other)
    g = grant(world, package, one.dir / "encryption.pub", tmp_path / "g")
    lost = grant(world, package, stranger / "encryption.pub", tmp_path / "lost")
    assert "no active device" in refused(world, "NOTFOUND", package, lost)
    assert one.kem_key_id in refused(world, "NOTFORKEY", package, g, "--device", two.id)
    assert h in refused(world, "NOTFORKEY", other, g)
    refused(world, "NOTFOUND", package, g, "--device", "0" * 32)
    unknown = own(world)
    refused(world, "NOTFOUND", unknown, grant(world, unknown, one.dir / "encryption.pub", tmp_path / "g2"))
    refused(world, "NOTFOUND", package, tmp_path / "none")
    refused(world, "FORMAT", package, pack.write(tmp_path / "bad", b"{}"))
    foreign = grant(world, package, one.dir / "encryption.pub", tmp_path / "foreign", stranger)
    assert "none is by a trusted key" in refused(world, "AUTH", package, foreign)
    assert json.loads(world.cli("package", "grants", h, "--json").stdout)["grants"] == []
    # The same key enrolled a second time: two devices have it until one is revoked.
    again = tg.Device(one.dir, world.platform, "robots", "one-again")
    again.make_keys = lambda: None
    again.csr, again.kem_public_key, again.kem_key_id = tg.make_csr(one.key, "x"), one.kem_public_key, one.kem_key_id
    again.enrol()
    assert again.id != one.id and "2 active devices" in refused(world, "USAGE", package, g)
    said = json.loads(world.cli("package", "grant", h[:12], g, "--device", one.id, "--json").stdout)
    assert said["device"] == one.id and said["kem_key_id"] == one.kem_key_id
    world.cli("device", "revoke", one.id)
    assert "revoked" in refused(world, "STATE", package, g, "--device", one.id)
    assert "one-again" in world.cli("package", "grant", package, g).stdout
