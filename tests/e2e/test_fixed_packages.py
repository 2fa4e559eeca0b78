"""The independent reader over the fixed packages of tests/vectors: it opens them, it refuses them changed, and the programs
agree with it. Any change of the format shows here first."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "tests" / "vectors" / "packages"
READER = ROOT / "tests" / "reader" / "tgsp_reader.py"
NOW = "1770000000"
SUITES = ["chacha20-poly1305", "aes-256-gcm"]


def reader(*args):
    env = dict(os.environ, OPENSSL=programs.openssl())
    return subprocess.run([sys.executable, str(READER), *map(str, args)], capture_output=True, text=True, env=env)


def check_files(out):
    """The list inside the payload, as sha256sum reads it."""
    lines = (out / ".tensorguard" / "inputs.sha256").read_text(encoding="utf-8").splitlines()
    assert [line[66:] for line in lines] == ["README", "empty", "ordner/gewichte-ä.bin"]
    for line in lines:
        assert hashlib.sha256((out / line[66:]).read_bytes()).hexdigest() == line[:64]


@pytest.mark.parametrize("suite", SUITES)
def test_reader_opens(suite, tmp_path):
    r = reader("open", PACKAGES / f"{suite}.tgsp", "--trust", PACKAGES / "author.pub", "--key", PACKAGES / "device.priv",
               "--out-dir", tmp_path / "out", "--now", NOW)
    assert r.returncode == 0, r.stderr
    check_files(tmp_path / "out")


def test_reader_opens_by_grant(tmp_path):
    args = ["open", PACKAGES / "chacha20-poly1305.tgsp", "--trust", PACKAGES / "author.pub", "--key", PACKAGES / "other.priv",
            "--out-dir", tmp_path / "out", "--now", NOW]
    assert reader(*args).returncode == 6
    r = reader(*args, "--grant", PACKAGES / "other.tgrant")
    assert r.returncode == 0, r.stderr
    check_files(tmp_path / "out")


@pytest.mark.parametrize("suite", SUITES)
def test_both_say_the_same_of_the_identity(suite, tensorguard):
    theirs = json.loads(reader("verify", PACKAGES / f"{suite}.tgsp", "--trust", PACKAGES / "author.pub", "--now", NOW).stdout)
    ours = subprocess.run([tensorguard, "inspect", str(PACKAGES / f"{suite}.tgsp"), "--json"], capture_output=True, text=True)
    assert ours.returncode == 0, ours.stderr
    assert theirs["header_sha256"] in ours.stdout


def sections(data):
    """[(first byte of the length field, first byte, end)] of the five sections."""
    pos, out = 6, []
    for k in (4, 4, 4, 8, 4):
        n = int.from_bytes(data[pos:pos + k], "big")
        out.append((pos, pos + k, pos + k + n))
        pos += k + n
    return out


def test_both_refuse_the_same(tensorguard, tmp_path):
    """A bit in each section, cut at each border, a byte too many: neither program takes it, both say format or authenticity."""
    data = (PACKAGES / "tiny.tgsp").read_bytes()
    bad = {"trailing": data + b"\0"}
    for i, (length, start, end) in enumerate(sections(data)):
        middle = (start + end) // 2
        bad[f"bit-{i}"] = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:]
        bad[f"cut-{i}"] = data[:start]
        bad[f"length-{i}"] = data[:length] + b"\xff" * (start - length) + data[start:]
    key = tmp_path / "device.priv"
    shutil.copy(PACKAGES / "device.priv", key)
    key.chmod(0o600)
    for name, changed in bad.items():
        path = tmp_path / f"{name}.tgsp"
        path.write_bytes(changed)
        args = ["open", path, "--trust", PACKAGES / "author.pub", "--key", key, "--out-dir", tmp_path / "out"]
        theirs = reader(*args, "--now", NOW)
        ours = subprocess.run([tensorguard, *map(str, args)], capture_output=True, text=True)
        assert theirs.returncode in (4, 5), (name, theirs.stderr)
        assert ours.returncode == theirs.returncode, (name, ours.stderr, theirs.stderr)
        assert not (tmp_path / "out").exists(), name
