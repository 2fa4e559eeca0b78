"""What is checked in names no machine: no package mirror, no folder of whoever wrote it, no secret by accident."""
import re
import shutil
import subprocess

import pytest

import programs

MIRRORS = ["debian" + ".org/debian", "deb." + "debian.org", "ftp." + "debian.org", "snapshot." + "debian.org",
           "security." + "debian.org", "registry." + "npmjs", "registry." + "yarnpkg", "pypi." + "org"]
MACHINE_PATH = re.compile(r"(?<![\w$}.*-])/(tmp/tg|work|root|home)/\w")
PRIVATE_KEY = "PRIVATE" + " KEY-----\n"
KEYS_FOR_TESTS = ("tests/vectors/", "tests/fuzz/corpus/")


def tracked():
    if not shutil.which("git") or not (programs.ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=programs.ROOT, capture_output=True, check=True)
    names = listed.stdout.decode().split("\0")
    return [name for name in names if name and (programs.ROOT / name).is_file()]


def texts():
    for name in tracked():
        data = (programs.ROOT / name).read_bytes()
        if b"\0" not in data:
            yield name, data.decode("utf-8", "replace")


def machine_mirrors():
    """The hosts this machine's apt really uses, whatever they are called."""
    if not shutil.which("apt-get"):
        return []
    sites = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True).stdout
    return [re.sub(r"^\w+://|/.*", "", site) for site in set(sites.split()) if "://" in site]


def test_no_mirror_is_named():
    hosts = MIRRORS + machine_mirrors()
    found = [f"{name}: {host}" for name, text in texts() for host in hosts if host in text]
    assert not found, "\n".join(found)


def test_no_folder_of_one_machine_is_named():
    found = [f"{name}: {match[0]}" for name, text in texts() for match in MACHINE_PATH.finditer(text)
             if not name.startswith(KEYS_FOR_TESTS)]
    assert not found, "\n".join(found)


def test_private_keys_are_test_vectors_only():
    found = [name for name, text in texts() if PRIVATE_KEY in text and not name.startswith(KEYS_FOR_TESTS)]
    assert not found, "\n".join(found)


def test_nothing_big_is_checked_in():
    big = [name for name in tracked() if (programs.ROOT / name).stat().st_size > 1 << 20]
    assert not big


def test_each_source_folder_explains_itself():
    for folder in (programs.ROOT / "src").iterdir():
        if folder.is_dir():
            readme = folder / "README.md"
            assert readme.exists(), f"{readme} is missing"
            assert len(readme.read_text().splitlines()) <= 40, f"{readme} is longer than 40 lines"
