"""The test kit of tests/vectors/testkit, one fault each: the independent reader, the C library and the program say the
same of every vector, and nothing comes out that the vector does not allow."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("OPENSSL", programs.openssl())
sys.path[:0] = [str(ROOT / "tests" / "reader"), str(ROOT / "tests" / "vectors")]
import testkit  # noqa: E402

UNIT = programs.BUILD / "tests" / "unit" / "tgsp"


@pytest.fixture(scope="module")
def kit():
    vectors = {p.stem: testkit.load(p) for p in sorted(testkit.FOLDER.glob("*.vec"))}
    assert len(vectors) >= 200
    return vectors


@pytest.fixture(scope="module")
def c_says():
    env = dict(os.environ, TG_VECTORS=str(ROOT / "tests" / "vectors"), TG_TESTKIT=str(UNIT / "testkit.bin"))
    r = subprocess.run([UNIT / "test_tgsp_testkit", "print"], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return {name: tuple(rest) for name, *rest in map(str.split, r.stdout.splitlines())}


def test_both_readers_agree_on_every_vector(kit, c_says):
    assert set(c_says) == set(kit)
    wrong = []
    for name, v in kit.items():
        code, released, chunks, words = testkit.run(v)
        ours = (code, released, chunks or "-")
        wanted = (v.one("expect"), v.one("released"), v.one("chunks-released", "-"))
        if not ours == c_says[name] == wanted:
            wrong.append(f"{name}: wanted {wanted}, Python {ours} ({words}), C {c_says[name]}")
    assert not wrong, "\n".join(wrong)


def test_vectors_release_nothing_before_their_fault(kit):
    nothing = hashlib.sha256().hexdigest()
    for name, v in kit.items():
        assert v.one("expect") == "OK" or v.one("released") == nothing, name


def expressible(v):
    """What `tensorguard open` can be told: no clock, no device, no documents but the package."""
    return (list(v.parts) == ["package"] and v.all("trust") == ["author author,granter"] and v.one("key") == "device"
            and not {"threshold", "fleet", "agent"} & {n for n, _ in v.header})


def test_the_program_agrees(kit, tensorguard, tmp_path):
    key = tmp_path / "device.priv"
    shutil.copy(testkit.FOLDER / "keys" / "device.priv", key)
    key.chmod(0o600)
    tried = 0
    for name, v in kit.items():
        if not expressible(v) or name.startswith("policy-"):
            continue
        package, out = tmp_path / "v.tgsp", tmp_path / name
        package.write_bytes(v.parts["package"])
        r = subprocess.run([tensorguard, "open", str(package), "--trust", str(testkit.FOLDER / "keys" / "author.pub"), "--key",
                            str(key), "--out-dir", str(out)], capture_output=True, text=True)
        assert r.returncode == int(v.one("exit")), (name, r.stderr)
        assert out.exists() == (r.returncode == 0), name
        tried += 1
        left = {p.name for p in tmp_path.iterdir()} - {"device.priv", "v.tgsp", name}
        assert not left, (name, left)  # no temporary folder stays behind
        shutil.rmtree(out, ignore_errors=True)
    assert tried >= 200


def test_the_kit_is_what_its_generator_makes(kit):
    """A sample of it, made afresh, byte for byte; `make check` makes all of it."""
    import kit_sections
    import kit_trust
    import make_testkit
    cases = [*kit_sections.all_cases(), *kit_trust.all_cases()]
    assert {c["name"] for c in cases} == set(kit)
    step = 1 if os.environ.get("TG_FULL") else 23
    for c in cases[::step]:
        made = testkit.dump(make_testkit.vector(c))
        again, there = testkit.load(testkit.FOLDER / f"{c['name']}.vec"), make_testkit.vector(c)
        assert again.parts == there.parts, c["name"]
        head = made.partition(b"\n\n")[0]
        assert (testkit.FOLDER / f"{c['name']}.vec").read_bytes().partition(b"\n\n")[0] == head, c["name"]


def test_index_names_what_is_there(kit):
    lines = (testkit.FOLDER / "index.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(kit)
    for line in lines:
        sha, name, expect, comment = line.split("  ", 3)
        assert hashlib.sha256((testkit.FOLDER / name).read_bytes()).hexdigest() == sha
        v = kit[name[:-4]]
        assert (v.one("expect"), v.one("comment")) == (expect, comment)
