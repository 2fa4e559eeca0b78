"""On a terminal the command line draws a bar while something takes more than a second, and takes it away; nowhere else does it
draw anything. The programs are stopped and let go in turn: time passes for them while hardly any work is done, so that a bar is
due however fast the machine is."""
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

import pack
import programs
import tg

SIZE = 512 << 20


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="module")
def work(author, tmp_path_factory):
    """A large model that takes no room, and its package."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "model").mkdir()
    with open(folder / "model" / "w.bin", "wb") as f:
        f.truncate(SIZE)
    pack.build(author, folder / "model", folder / "m.tgsp", "--recipient", author.key_pub)
    yield folder
    (folder / "m.tgsp").unlink()


def drain(fd, seen):
    while select.select([fd], [], [], 0)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:  # the other side is closed
            return
        if not data:
            return
        seen += data


def on_a_terminal(argv, until=b"%", **more):
    """(exit status, what the terminal saw, standard output) of a program that is stopped a quarter of a second after every few
    milliseconds, until it has drawn."""
    master, slave = pty.openpty()
    seen = bytearray()
    p = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, **more)
    os.close(slave)
    try:
        while p.poll() is None and until not in seen:
            time.sleep(0.005)
            p.send_signal(signal.SIGSTOP)
            time.sleep(0.25)
            drain(master, seen)
            p.send_signal(signal.SIGCONT)
        p.send_signal(signal.SIGCONT)
        while p.poll() is None:
            drain(master, seen)
            time.sleep(0.01)
        drain(master, seen)
        return p.returncode, bytes(seen), p.stdout.read()
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
        os.close(master)


def commands(author, work, out):
    tool = programs.path("tensorguard")
    return {
        "building": [tool, "build", "--input-dir", work / "model", "--out", out / "b.tgsp", "--signing-key", author.sign, "--recipient",
                     author.key_pub, "--model-name", "m"],
        "verifying": [tool, "verify", work / "m.tgsp", "--trust", author.pub],
        "opening": [tool, "open", work / "m.tgsp", "--trust", author.pub, "--key", author.key, "--out-dir", out / "o"],
        "signing": [tool, "sign", work / "m.tgsp", "--signing-key", author.sign, "--out", out / "s.tgsp"],
    }


@pytest.fixture(scope="module")
def cosigner(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("cosigner"))


@pytest.mark.parametrize("label", ["building", "verifying", "opening", "signing"])
def test_a_bar_on_a_terminal_only(author, cosigner, work, tmp_path, label):
    argv = commands(author, work, tmp_path)[label]
    if label == "signing":
        argv[argv.index(author.sign)] = cosigner.sign
    rc, seen, out = on_a_terminal(argv)
    assert rc == 0, seen
    assert label.encode() in seen and b"MiB/s" in seen and b"[" in seen, seen
    assert seen.endswith(b"\r\x1b[K"), "the line is cleared at the end"
    assert b"\x1b" not in out
    for made in tmp_path.iterdir():  # again, into files: not a byte
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    quiet = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert quiet.returncode == 0 and quiet.stderr == b"", quiet.stderr
    for made in tmp_path.iterdir():
        shutil.rmtree(made) if made.is_dir() else made.unlink()


def test_a_bar_before_packing(author, tmp_path):
    """The checksums of a PyTorch archive are computed, and the archive converted, before the first byte is packed."""
    corpus = programs.ROOT / "tests" / "fuzz" / "corpus" / "torch" / "torch-views.pt"
    model = pack.write(tmp_path / "model" / "w.pt", corpus.read_bytes()).parent
    enlarge(model / "w.pt", SIZE)
    argv = [programs.path("tensorguard"), "build", "--input-dir", model, "--out", tmp_path / "b.tgsp", "--signing-key", author.sign,
            "--recipient", author.key_pub, "--model-name", "m"]
    rc, seen, _ = on_a_terminal(argv)
    assert rc == 0 and b"checking" in seen, seen


def enlarge(path, size):
    """Adds an entry of zeros that no tensor uses to an archive."""
    import zipfile
    with zipfile.ZipFile(path, "a") as z:
        top = z.namelist()[0].split("/")[0]
        with z.open(zipfile.ZipInfo(f"{top}/data/99999"), "w", force_zip64=True) as entry:
            for _ in range(size >> 20):
                entry.write(bytes(1 << 20))


def test_the_platforms_checks_are_announced(platform, author, tmp_path):
    """What the platform does after the last part cannot be measured from here: a line says that it is at it."""
    config = ["--config", tmp_path / "config"]
    pack.run("login", "--server", platform.api_url, "--token-file", platform.dir / "admin.token", "--ca", platform.ca, *config)
    pack.run("publisher", "add", "--name", "a", "--key", author.pub, *config)
    pack.write(tmp_path / "model" / "w", b"w")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--recipient", author.key_pub)
    argv = [programs.path("tensorguard"), "publish", tmp_path / "m.tgsp", *config]
    rc, seen, out = on_a_terminal(argv, until=b"checks")
    assert rc == 0 and b"the platform checks the package" in seen and seen.endswith(b"\r\x1b[K"), seen
    assert tg.h_of(tmp_path / "m.tgsp").encode() in out
    assert pack.run("publish", tmp_path / "m.tgsp", *config).err == ""
