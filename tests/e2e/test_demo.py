"""make demo, as a user runs it: it passes, fails when something is wrong, and leaves nothing behind."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

import programs
import tg

DEMO = programs.ROOT / "examples" / "perception-net" / "demo.py"


@pytest.fixture
def folder():
    """Short, because the devices' sockets lie in it."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="tgd-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def environment(folder, **more):
    """A home and a temporary folder of its own, so that the rest of this test run is not searched."""
    home, tmp = folder / "home", folder / "tmp"
    home.mkdir()
    tmp.mkdir()
    return {**os.environ, "TENSORGUARD_BUILD": str(programs.BUILD), "HOME": str(home), "TMPDIR": str(tmp), **more}


def left_behind(folder):
    """Files of the demo, and processes whose command line names its folder."""
    found = [str(p) for p in (folder / "tmp").iterdir()]
    for p in pathlib.Path("/proc").iterdir():
        if p.name.isdigit():
            try:
                line = (p / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder / "tmp") in line and int(p.name) != os.getpid():
                found.append(line)
    return found


def assert_passed(done):
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    found = re.fullmatch(r"demo: (\d+) checks passed, 0 failed", last)
    assert found and int(found[1]) >= 30, last


@pytest.mark.skipif(programs.sanitized(), reason="a worker under AddressSanitizer has no sandbox to show")
def test_the_demo_passes(folder):
    done = subprocess.run([sys.executable, str(DEMO)], env=environment(folder), capture_output=True, text=True, timeout=400,
                          check=False)
    assert_passed(done)
    assert "\x1b" not in done.stdout  # colours are for terminals
    assert left_behind(folder) == []


MEMLOCK = 8 << 20  # what a distribution gives an ordinary user


def as_user():
    """How to become an ordinary user with an ordinary limit, or the reason why that can't be tried."""
    if os.geteuid() != 0:
        return None, "needs root, to become somebody else"
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "prlimit", f"--memlock={MEMLOCK}:{MEMLOCK}"]
    try:
        subprocess.run([*become, programs.path("tensorguard-moai"), "--help"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None, f"an ordinary user can't reach or run what is in {programs.BUILD}"
    return become, None


@pytest.mark.skipif(programs.sanitized(), reason="a worker under AddressSanitizer has no sandbox to show")
def test_the_demo_passes_as_an_ordinary_user(folder):
    become, why = as_user()
    if why:
        pytest.skip(why)
    env = environment(folder)
    folder.chmod(0o755)
    for name in ("home", "tmp"):
        os.chown(folder / name, 65534, 65534)
    done = subprocess.run([*become, sys.executable, str(DEMO)], env=env, capture_output=True, text=True, timeout=400, check=False)
    assert_passed(done)
    assert "protection level none" in done.stdout
    assert left_behind(folder) == []


def test_a_failing_check_fails_the_demo(folder):
    """Against logits that are not the model's: the demo must notice."""
    example = folder / "perception-net"
    tg.run("cp", "-r", DEMO.parent, example)
    (example / "heldout" / "logits_v1.npy").write_bytes((example / "heldout" / "logits_v2.npy").read_bytes())
    done = subprocess.run([sys.executable, str(example / "demo.py")], env=environment(folder), capture_output=True, text=True,
                          timeout=180, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"demo: \d+ checks passed, [1-9]\d* failed", done.stdout.strip().splitlines()[-1]), done.stdout[-3000:]
    assert "✗ robot-1: 360 held-out images" in done.stdout
    assert left_behind(folder) == []


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_what_it_started(folder, sig):
    p = subprocess.Popen([sys.executable, "-u", str(DEMO)], env=environment(folder), stdout=subprocess.PIPE, text=True)
    seen = ""
    while "two devices enrolled" not in seen:
        line = p.stdout.readline()
        assert line, seen
        seen += line
    p.send_signal(sig)
    out, _ = p.communicate(timeout=60)
    assert p.returncode == 130, out
    assert "interrupted" in out
    assert left_behind(folder) == []


def test_without_programs_it_says_what_to_do(folder):
    done = subprocess.run([sys.executable, str(DEMO)], env={**environment(folder), "TENSORGUARD_BUILD": str(folder)},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "make build" in done.stdout and done.stdout.strip().endswith("1 failed")
