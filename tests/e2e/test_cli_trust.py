"""tensorguard trust: making and changing trust stores, and what a store decides."""
import pytest

import pack


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return [pack.Author(tmp_path_factory.mktemp("p")) for _ in range(3)]


@pytest.fixture
def package(people, tmp_path):
    pack.write(tmp_path / "model" / "w")
    pack.build(people[0], tmp_path / "model", tmp_path / "m.tgsp")
    return tmp_path / "m.tgsp"


def roles(shown):
    return {k["key_id"]: k["roles"] for k in shown["keys"]}


def test_a_store_says_whose_packages_count(people, package, tmp_path):
    a, b, _ = people
    store = tmp_path / "s.tgtrust"
    shown = pack.run("trust", "init", store, "--author", a.pub, "--granter", a.pub, "--platform", b.pub, "--label", "team A", "--json").json
    assert shown["version"] == 1
    assert roles(shown) == {a.key_id.hex(): ["author", "granter"], b.key_id.hex(): ["platform"]}
    assert pack.run("trust", "show", store, "--json").json == shown
    assert "team A" in pack.run("trust", "show", store).out
    pack.run("verify", package, "--trust-store", store)
    other = tmp_path / "o.tgtrust"
    pack.run("trust", "init", other, "--author", b.pub)
    pack.run("verify", package, "--trust-store", other, rc="AUTH")
    pack.run("verify", package, "--trust-store", store, "--trust", a.pub, rc="USAGE")
    # The right person under the wrong role, the right role for another model.
    pack.run("trust", "init", other, "--author", b.pub, "--granter", a.pub, "--force")
    assert pack.run("verify", package, "--trust-store", other, rc=None).rc in (pack.EXIT["AUTH"], pack.EXIT["DENIED"])
    pack.run("trust", "init", other, "--author", a.pub, "--model", "another", "--force")
    assert "m" in pack.run("verify", package, "--trust-store", other, rc="DENIED").err
    pack.run("trust", "init", other, "--author", a.pub, "--model", "m", "--force")
    pack.run("verify", package, "--trust-store", other)


def test_init_refuses_what_makes_no_sense(people, tmp_path):
    a, b, _ = people
    store = tmp_path / "s.tgtrust"
    assert "--author" in pack.run("trust", "init", store, "--platform", a.pub, rc="USAGE").err
    pack.run("trust", "init", store, "--author", a.sign, rc="FORMAT")
    pack.run("trust", "init", store, "--author", a.key_pub, rc="FORMAT")
    pack.run("trust", "init", store, "--author", a.pub, "--threshold", "0", rc=None)
    assert not store.exists() or pack.run("trust", "show", store, "--json").json["threshold"] >= 1
    pack.run("trust", "init", store, "--author", a.pub, "--force")
    pack.run("trust", "init", store, "--author", b.pub, rc="EXISTS")


def test_thresholds(people, package, tmp_path):
    a, b, _ = people
    store = tmp_path / "s.tgtrust"
    pack.run("trust", "init", store, "--author", a.pub, "--author", b.pub, "--threshold", "m=2")
    r = pack.run("verify", package, "--trust-store", store, rc="DENIED")
    assert "2" in r.err
    pack.run("sign", package, "--signing-key", b.sign)
    pack.run("verify", package, "--trust-store", store)


def test_changes_are_versions_signed_by_the_store_before(people, package, tmp_path):
    a, b, c = people
    store = tmp_path / "s.tgtrust"
    pack.run("trust", "init", store, "--author", a.pub)
    first = store.read_bytes()
    r = pack.run("trust", "add", store, "--author", b.pub, rc="USAGE")
    assert "--signing-key" in r.err
    r = pack.run("trust", "add", store, "--author", b.pub, "--signing-key", b.sign, rc="DENIED")  # can't vote himself in
    assert store.read_bytes() == first
    shown = pack.run("trust", "add", store, "--author", b.pub, "--signing-key", a.sign, "--json").json
    assert shown["version"] == 2 and len(shown["keys"]) == 2
    pack.run("trust", "add", store, "--author", b.pub, "--signing-key", a.sign, rc="EXISTS")
    # A removed author's packages stop verifying.
    pack.run("verify", package, "--trust-store", store)
    shown = pack.run("trust", "remove", store, a.key_id.hex(), "--signing-key", b.sign, "--json").json
    assert shown["version"] == 3 and roles(shown) == {b.key_id.hex(): ["author"]}
    pack.run("verify", package, "--trust-store", store, rc="AUTH")
    pack.run("trust", "remove", store, c.pub, "--signing-key", b.sign, rc="NOTFOUND")
    r = pack.run("trust", "add", store, "--signing-key", b.sign, rc="USAGE")
    assert "nothing" in r.err


def test_limits_are_shown_and_ones_nobody_can_meet_are_told(people, tmp_path):
    a, b, _ = people
    store = tmp_path / "s.tgtrust"
    r = pack.run("trust", "init", store, "--author", a.pub, "--threshold", "m=2", "--json")
    assert r.json["limits"] == [{"model": "m", "threshold": 2, "resets": 0}]
    assert r.err == ""
    pack.run("trust", "add", store, "--reset", "m", "--reset", "other", "--signing-key", a.sign)
    shown = pack.run("trust", "add", store, "--reset", "m", "--signing-key", a.sign, "--json").json
    assert shown["limits"] == [{"model": "m", "threshold": 2, "resets": 2}, {"model": "other", "threshold": 1, "resets": 1}]
    text = pack.run("trust", "show", store).out
    assert "By model" in text and "other" in text
    r = pack.run("trust", "init", store, "--author", a.pub, "--threshold", 2, "--change-threshold", 2, "--force")
    assert "none will run" in r.err and "nobody can change it" in r.err
    r = pack.run("trust", "init", store, "--author", a.pub, "--author", b.pub, "--threshold", 2, "--change-threshold", 2, "--force")
    assert r.err == ""


def test_a_change_that_needs_two(people, tmp_path):
    a, b, c = people
    store = tmp_path / "s.tgtrust"
    pack.run("trust", "init", store, "--author", a.pub, "--author", b.pub, "--change-threshold", 2)
    r = pack.run("trust", "add", store, "--author", c.pub, "--signing-key", a.sign, "--out", tmp_path / "n.tgtrust")
    assert "won't take it yet" in r.err and "trust sign" in r.err
    pack.run("trust", "sign", tmp_path / "n.tgtrust", "--signing-key", b.sign)
    pack.run("trust", "sign", tmp_path / "n.tgtrust", "--signing-key", b.sign, rc="EXISTS")
    r = pack.run("trust", "add", store, "--author", c.pub, "--signing-key", a.sign, "--signing-key", b.sign)
    assert r.err == ""


def test_a_store_that_was_tampered_with(people, tmp_path):
    store = tmp_path / "s.tgtrust"
    pack.run("trust", "init", store, "--author", people[0].pub)
    raw = store.read_bytes()
    for bad in (raw[:-2], raw + b"x", b"{}", b""):
        pack.write(store, bad)
        pack.run("trust", "show", store, rc="FORMAT")
