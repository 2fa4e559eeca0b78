"""make deps: quiet and quick when nothing is missing, plain about what is, and never fooled about what it fetched."""
import os
import re
import shutil
import subprocess

import pytest

import programs

SCRIPT = programs.ROOT / "tools" / "deps.sh"
MIRROR = "http://mirror.example"


def bash(text, **environment):
    return subprocess.run(["bash", "-c", f"source {SCRIPT}\n{text}"], capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, **environment))


def test_nothing_missing_is_quick_and_silent(tmp_path):
    """Quick: nothing that fetches, installs or builds is started."""
    slow, started = tmp_path / "bin", tmp_path / "started"
    slow.mkdir()
    for name in ("apt-get", "apt-cache", "apt", "dpkg-source", "npm", "curl", "sudo", "make", "perl", "cc", "gcc"):
        (slow / name).write_text(f"#!/bin/sh\necho {name} >>{started}\nexit 1\n")
        (slow / name).chmod(0o755)
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=60, env=dict(os.environ, PATH=f"{slow}:{os.environ['PATH']}"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not started.exists(), started.read_text()


def test_env_names_an_openssl_that_is_new_enough():
    done = subprocess.run([SCRIPT, "env"], capture_output=True, text=True, check=True)
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    said = subprocess.run([told["TG_OPENSSL_BIN"], "version"], capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, re.match(r"OpenSSL (\d+)\.(\d+)", said).groups())) >= (3, 5)


def test_prefixes_override(tmp_path):
    (tmp_path / "lib" / "pkgconfig").mkdir(parents=True)
    (tmp_path / "lib" / "pkgconfig" / "libcrypto.pc").write_text("")
    done = subprocess.run([SCRIPT, "env"], capture_output=True, text=True, check=True,
                          env=dict(os.environ, OPENSSL_PREFIX=str(tmp_path), ONNXRUNTIME_PREFIX="/opt/ort"))
    assert f"TG_OPENSSL_LIBDIR={tmp_path}/lib" in done.stdout
    assert "TG_ORT_PREFIX=/opt/ort" in done.stdout


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")
@pytest.mark.parametrize(argnames="name,text", ids=["one-line", "deb822"], argvalues=[
    ("a.list", f"deb {MIRROR}/debian oldrelease main contrib\ndeb {MIRROR}/debian oldrelease-updates main\n"
               f"deb [arch=amd64,arm64] {MIRROR}/debian-security oldrelease-security main\ndeb {MIRROR}/other else main\n"),
    ("a.sources", f"Types: deb\nURIs: {MIRROR}/debian\nSuites: oldrelease oldrelease-updates\nComponents: main contrib\n\n"
                  f"Types: deb\nURIs: {MIRROR}/debian-security\nSuites: oldrelease-security\nComponents: main\n"),
])
def test_the_mirror_is_read_from_either_format(tmp_path, name, text):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / name).write_text(text)
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{tmp_path}/parts";\n')
    done = bash("donor_sources oldrelease", APT_CONFIG=str(config))
    lines = [re.sub(r" \[signed-by=/\S+\]", "", line).replace("/ ", " ") for line in done.stdout.splitlines()]
    assert sorted(lines) == sorted(
        f"{kind} {MIRROR}/debian{security} trixie{security} main" for kind in ("deb", "deb-src") for security in ("", "-security"))
    assert all("[signed-by=/" in line for line in done.stdout.splitlines())


def test_an_archive_with_another_hash_is_refused(tmp_path):
    done = bash("""
        private_apt_setup() { :; }
        npm() { echo changed >onnxruntime-node-1.27.0.tgz; }
        arch=amd64; fetch_ort""", TENSORGUARD_DEPS=str(tmp_path))
    assert done.returncode == 1
    assert "not the one pinned" in done.stderr
    assert not list(tmp_path.glob("onnxruntime-*"))


LISTED = "3.0.14-1~deb12u1 3.5.9-1~deb13u1 4.0.1-1 3.5.7-1~deb13u3 3.5.10-1~deb13u1 3.5.7-1~deb13u2"


def fake_mirror(hands_out):
    return f"""private_apt() {{
        case $2 in
        showsrc) printf 'Package: openssl\\nVersion: %s\\n\\n' {LISTED} ;;
        source) [ "${{@: -1}}" = "openssl={hands_out}" ] && touch openssl_given.dsc ;;
        esac
    }}
    fetch_openssl "$TENSORGUARD_DEPS" """


@pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg")
def test_a_mirror_behind_its_own_lists_gives_the_newest_it_has(tmp_path):
    done = bash(fake_mirror("3.5.7-1~deb13u2"), TENSORGUARD_DEPS=str(tmp_path))
    assert done.returncode == 0
    assert re.findall(r"OpenSSL (\S+) and does not", done.stderr) == ["3.5.10-1~deb13u1", "3.5.9-1~deb13u1", "3.5.7-1~deb13u3"]
    assert [path.name for path in tmp_path.iterdir()] == ["openssl_given.dsc"]


@pytest.mark.skipif(not shutil.which("dpkg"), reason="needs dpkg")
def test_neither_an_old_nor_an_incompatible_openssl_is_taken(tmp_path):
    for version in ("3.0.14-1~deb12u1", "4.0.1-1"):
        assert bash(fake_mirror(version), TENSORGUARD_DEPS=str(tmp_path)).returncode == 1
        assert not list(tmp_path.iterdir())


def test_without_root_the_exact_line_is_printed(tmp_path):
    done = bash("find_root() { return 1; }; install_packages meson ninja-build", TENSORGUARD_DEPS=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get update && apt-get install --no-install-recommends -y meson ninja-build" in done.stderr


def test_what_is_missing_is_named_by_package():
    done = bash("""needs_some='
cmd:bash | bash
cmd:no-such-command | the-package
file:/no/such/header.h | the-dev-package
glob:/no/such/* /etc/os-rel* | not-this'
missing_packages some""")
    assert done.stdout.split() == ["the-package", "the-dev-package"]
