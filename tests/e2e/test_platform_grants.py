"""Whose grants a device gets: of what is deployed to it, and of what ran on it last; never of what it only claims."""
import sqlite3
import time

import pytest

import tg
from test_platform_devices import deploy, device, fleet, published, show  # noqa: F401 - fixtures


@pytest.fixture
def pair(platform, device, published):  # noqa: F811
    """Two packages, the first running on the device."""
    one, two = published(model_version="1"), published(model_version="2")
    first = deploy(platform, one, fleet="line-1").json
    device.checkin()
    run(device, first)
    return one, two, first


def run(device, deployment):  # noqa: F811
    device.report(deployment["id"], "downloading")
    device.report(deployment["id"], "running")


def grant(device, package, expect=200):  # noqa: F811
    return device.client().get(f"/device/v1/packages/{package['header_sha256']}/grant", expect=expect)


def expire(platform, package):
    with sqlite3.connect(platform.dir / "platform.db") as db:
        assert db.execute("UPDATE grants SET not_after = ? WHERE h = ?",
                          (int(time.time()) - 1, bytes.fromhex(package["header_sha256"]))).rowcount == 1


def made(platform, package):
    return [e["detail"] for e in platform.admin().get(f"/api/v1/audit?package={package['header_sha256']}&action=grant.vault").json["items"]]


def test_what_ran_last_keeps_its_grants(platform, device, pair):  # noqa: F811
    one, two, _ = pair
    first = grant(device, one).body
    second = deploy(platform, two, fleet="line-1").json
    assert grant(device, one).body == first  # before it heard of the newer one
    assert device.checkin().json["deployments"][0]["deployment_id"] == second["id"]
    assert grant(device, one).body == first and grant(device, two)
    device.client().get(f"/device/v1/blobs/{one['blob_sha256']}", expect=404)  # it has that
    expire(platform, one)
    grant(device, one, expect=404)
    device.checkin()  # the vault makes it anew, though it is about the other one
    assert grant(device, one).body != first
    assert made(platform, one) == ["made by the vault", "made anew by the vault"]
    device.report(second["id"], "failed", code="AUTH", reason="golden outputs differ")
    assert grant(device, one)
    run(device, second)
    grant(device, one, expect=404)  # now that one runs
    device.report(second["id"], "rolled_back", code="CLOSED", reason="crashed")
    assert grant(device, one)  # which went back to the first


def test_nothing_that_did_not_run_or_ran_elsewhere(platform, device, pair, tmp_path):  # noqa: F811
    one, two, _ = pair
    other = tg.Device(tmp_path / "other", platform, "line-1").enrol()
    other.checkin()  # is offered the first one, and no more
    second = deploy(platform, two, fleet="line-1").json
    third = deploy(platform, one, device=device.id).json
    for d in (other, device):
        d.checkin()
    grant(device, two, expect=404)  # pending was all that it came to
    assert device.report(second["id"], "running", expect=409).slug == "update-over"
    grant(device, two, expect=404)
    grant(other, one, expect=404)
    assert grant(other, two)
    other.report(third["id"], "running", expect=404)
    grant(other, one, expect=404)


@pytest.mark.parametrize("told, late, gets", [
    (["downloading", "loading"], "running", True),  # it was away when the newer one came
    ([], "running", False),  # it was offered it, and never took it
    (["downloading", "failed"], "running", False),
    (["downloading"], "loading", False),
    (["downloading", "running"], "rolled_back", False),
])
def test_what_a_device_tells_late(platform, device, published, told, late, gets):  # noqa: F811
    one, two = published(model_version="1"), published(model_version="2")
    first = deploy(platform, one, fleet="line-1").json
    device.checkin()
    for state in told:
        device.report(first["id"], state)
    deploy(platform, two, fleet="line-1")
    for _ in range(2):  # the same report again is the same answer
        assert device.report(first["id"], late, seq=9, expect=409).slug == "update-over"
    assert show(platform, first)["counts"]["superseded"] == 1
    grant(device, one, expect=200 if gets else 404)
    told = [e for e in platform.admin().get("/api/v1/audit?action=update.report").json["items"] if "told after it was superseded" in e["detail"]]
    assert len(told) == (1 if gets or late == "rolled_back" else 0)


@pytest.mark.parametrize("how", ["cancelled", "cancelled again", "revoked", "author only", "publisher removed", "expired"])
def test_withdrawn_is_withdrawn(platform, device, pair, published, how):  # noqa: F811
    one, two, first = pair
    admin = platform.admin()
    if how == "cancelled again":  # a second deployment of the same package, called off before the device knew of it
        admin.delete(f"/api/v1/deployments/{deploy(platform, one, fleet='line-1').json['id']}", expect=200)
    deploy(platform, two, fleet="line-1")
    if how == "cancelled":
        admin.delete(f"/api/v1/deployments/{first['id']}", expect=200)
    if how in ("cancelled", "cancelled again"):
        grant(device, one, expect=404)
    expire(platform, one)
    if how == "revoked":
        admin.post(f"/api/v1/devices/{device.id}/revoke", expect=200)
        assert device.checkin(expect=403).slug == "device-revoked"
        assert grant(device, one, expect=403).slug == "device-revoked"
        return
    if how == "author only":
        fresh = admin.get("/api/v1/fleets/line-1").headers["ETag"]
        admin.put("/api/v1/fleets/line-1", {"grants": "author"}, headers={"If-Match": fresh})
    if how == "publisher removed":
        [publisher] = admin.get("/api/v1/publishers").json["items"]
        admin.delete(f"/api/v1/publishers/{publisher['key_id']}")
    if how == "expired":
        with sqlite3.connect(platform.dir / "platform.db") as db:
            db.execute("UPDATE packages SET not_after = ? WHERE h = ?", (int(time.time()) - 1, bytes.fromhex(one["header_sha256"])))
    device.checkin()
    assert made(platform, one) == ["made by the vault"]
    grant(device, one, expect=404)
