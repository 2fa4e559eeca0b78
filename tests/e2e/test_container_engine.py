"""Reading packages: only what is asked for, and in bounded memory however large the file is."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

import pack
import programs

sys.path.insert(0, str(programs.ROOT / "tests" / "bench"))
import measure  # noqa: E402

CHUNK = 65536
STORED = CHUNK + 16
MIB = 1 << 20


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    return pack.Author(tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="module")
def good(author, tmp_path_factory):
    """Three folders of files; every byte says where it is."""
    d = tmp_path_factory.mktemp("parts")
    for i, name in enumerate(("a.bin", "b/one.bin", "b/two.txt", "c.bin", "d/e/deep.bin", "z.bin")):
        pack.write(d / "model" / name, bytes([i + 1]) * 300_000)
    pack.write(d / "model" / "b" / "empty")
    pack.build(author, d / "model", d / "m.tgsp", "--chunk-size", CHUNK)
    return d / "m.tgsp"


def chunks_of(package, *paths):
    """The chunks that hold these files, from the manifest."""
    files = {f["path"]: f for f in pack.Parts(package).json("manifest")["files"]}
    return {c for p in paths for c in range(files[p]["offset"] // CHUNK, -(-(files[p]["offset"] + files[p]["size"]) // CHUNK))}


def payload_reads(package, out, *args):
    """The stored chunks a command reads of a package, each as often as it is read, seen by strace."""
    off, n = pack.Parts(package).at["payload"]
    logs = pathlib.Path(tempfile.mkdtemp(dir=out))
    subprocess.run(["strace", "-ff", "-y", "-e", "trace=pread64,preadv,preadv2,read,readv,mmap,splice,copy_file_range", "-o", logs / "of",
                    programs.path("tensorguard"), *map(str, args)], check=True, capture_output=True, timeout=60)
    reads = []
    for line in "".join(log.read_text(errors="replace") for log in logs.iterdir()).splitlines():
        if f"<{package}>" not in line:
            continue
        call = re.search(r"pread64\(\d+<[^>]*>, .*, (\d+), (\d+)\) = (\d+)$", line)
        assert call and call[1] == call[3], f"the package is read in some other way: {line}"
        size, at = int(call[1]), int(call[2])
        if at + size <= off or at >= off + n:
            continue
        assert (at - off) % STORED == 0 and size <= STORED, line
        reads.append((at - off) // STORED)
    return sorted(reads)


@pytest.mark.parametrize("patterns,paths", [
    (["a.bin"], ["a.bin"]),
    (["*.bin"], ["a.bin", "c.bin", "z.bin"]),
    (["b"], ["b/one.bin", "b/two.txt", "b/empty"]),
    (["d/*/*.bin", "b/t*"], ["d/e/deep.bin", "b/two.txt"]),
])
def test_only_the_chunks_of_the_files_are_read(author, good, tmp_path, patterns, paths):
    files = [x for p in patterns for x in ("--files", p)]
    want = sorted(chunks_of(good, *paths))
    assert payload_reads(good, tmp_path, "verify", good, "--trust", author.pub, *files) == want
    out = tmp_path / "out"
    assert payload_reads(good, tmp_path, "open", good, "--key", author.key, "--trust", author.pub, "--out-dir", out, *files) == want
    assert sorted(k.decode() for k in pack.tree(out)) == sorted(paths)
    for p in paths:
        assert (out / p).read_bytes() == (good.parent / "model" / p).read_bytes()


def test_without_patterns_every_chunk_is_read_once(author, good, tmp_path):
    n = pack.Parts(good).json("manifest")["payload"]["chunks"]
    assert payload_reads(good, tmp_path, "verify", good, "--trust", author.pub) == list(range(n))


def test_the_answer_says_what_was_checked(author, good):
    r = pack.run("verify", good, "--trust", author.pub, "--files", "b", "--files", "a.bin", "--json").json
    assert r["verified"] and r["partial"]
    assert [f["path"] for f in r["checked_files"]] == ["a.bin", "b/empty", "b/one.bin", "b/two.txt"]
    assert r["checked_chunks"] == len(chunks_of(good, "a.bin", "b/one.bin", "b/two.txt"))
    assert "partial" not in pack.run("verify", good, "--trust", author.pub, "--json").json


def test_a_broken_chunk_matters_to_its_files_only(author, good, tmp_path):
    parts = pack.Parts(good)
    raw = bytearray(good.read_bytes())
    broken = max(chunks_of(good, "c.bin"))
    raw[parts.at["payload"][0] + broken * STORED + 7] ^= 1
    bad = pack.write(tmp_path / "bad.tgsp", bytes(raw))
    hit = [p for p in ("a.bin", "b/one.bin", "b/two.txt", "c.bin", "d/e/deep.bin", "z.bin") if broken in chunks_of(good, p)]
    assert hit[0] == "c.bin" and len(hit) == 2  # the file after it begins in the same chunk
    for name in ("a.bin", "b", "z.bin", *hit):
        rc = "AUTH" if name in hit else 0
        r = pack.run("verify", bad, "--trust", author.pub, "--files", name, rc=rc)
        pack.run("open", bad, "--key", author.key, "--trust", author.pub, "--out-dir", tmp_path / name.replace("/", "_"), "--files", name, rc=rc)
        if rc:
            assert f"chunk {broken}: its digest" in r.err
            assert not (tmp_path / name.replace("/", "_")).exists()
    pack.run("verify", bad, "--trust", author.pub, rc="AUTH")


@pytest.mark.parametrize("pattern", ["nothing", "a", "one.bin", ".tensorguard/*", ""])
def test_a_pattern_that_matches_nothing_is_an_error(author, good, tmp_path, pattern):
    for args in (["verify", good], ["open", good, "--key", author.key, "--out-dir", tmp_path / "out"]):
        r = pack.run(*args, "--trust", author.pub, "--files", "a.bin", "--files", pattern, rc="NOTFOUND")
        assert f"matches '{pattern}'" in r.err and "inspect" in r.err
    assert not (tmp_path / "out").exists()


def test_signatures_are_checked_whatever_is_asked_for(author, good, tmp_path):
    stranger = pack.Author(tmp_path / "stranger")
    pack.run("verify", good, "--trust", stranger.pub, "--files", "a.bin", rc="AUTH")
    raw = bytearray(good.read_bytes())
    raw[pack.Parts(good).at["manifest"][0] + 20] ^= 1
    bad = pack.write(tmp_path / "bad.tgsp", bytes(raw))
    pack.run("verify", bad, "--trust", author.pub, "--files", "a.bin", rc="AUTH")


# ---- memory ----

def sparse(author, folder, size, *args):
    """A package of `size` bytes of nearly nothing but zeros."""
    folder.mkdir()
    pack.write(folder / "model" / "w.bin")
    os.truncate(folder / "model" / "w.bin", size)
    pack.build(author, folder / "model", folder / "m.tgsp", *args, timeout=300)
    shutil.rmtree(folder / "model")
    return folder / "m.tgsp"


def manifest_size(package):
    return dict(pack.tgsp_reader.Package(str(package)).sections)["manifest"][1]


def peak(*args):
    return measure.run(programs.path("tensorguard"), *args).rss


@pytest.mark.parametrize("chunk", [1 << 20, 16 << 20])
def test_memory_does_not_grow_with_the_file(author, tmp_path, chunk):
    """verify and open stay within 24 MiB + 4 x manifest + threads x 2 chunks, and a large file takes what a small one does."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("needs 4 GiB of disk")
    threads = len(os.sched_getaffinity(0))
    peaks = {}
    for size in (64 * MIB, 1536 * MIB):
        package = sparse(author, tmp_path / str(size), size, "--chunk-size", chunk)
        manifest = manifest_size(package)
        limit = 24 * MIB + 4 * manifest + threads * 2 * chunk
        out = tmp_path / "out"
        peaks[size] = [peak("verify", package, "--trust", author.pub),
                       peak("open", package, "--key", author.key, "--trust", author.pub, "--out-dir", out)]
        assert min(peaks[size]) > 4 * MIB, "the figure is no process's"
        assert max(peaks[size]) <= limit, (peaks[size], limit)
        shutil.rmtree(out)
        os.unlink(package)
    small, large = peaks.values()
    assert all(b <= a + 4 * MIB for a, b in zip(small, large)), peaks


def working_threads(cpus, *args):
    """Of a run on these processors: the threads that used processor time worth mentioning, as /proc/PID/task has it."""
    child = subprocess.Popen([programs.path("tensorguard"), *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    ticks = {}
    while child.poll() is None:
        for task in pathlib.Path(f"/proc/{child.pid}/task").glob("*/stat"):
            try:
                fields = task.read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            ticks[task] = int(fields[11]) + int(fields[12])
        time.sleep(0.002)
    assert child.returncode == 0, child.stderr.read()
    return sum(n > max(ticks.values()) / 10 for n in ticks.values())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_every_processor_works(author, tmp_path):
    """build, verify and open use as many threads as processors they may run on."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("needs 4 GiB of disk")
    pack.write(tmp_path / "model" / "w.bin")
    os.truncate(tmp_path / "model" / "w.bin", 512 * MIB)
    package, out = tmp_path / "m.tgsp", tmp_path / "out"
    commands = {
        "build": ["--input-dir", tmp_path / "model", "--out", package, "--signing-key", author.sign, "--recipient", author.key_pub,
                  "--model-name", "m"],
        "verify": [package, "--trust", author.pub],
        "open": [package, "--key", author.key, "--trust", author.pub, "--out-dir", out],
    }
    for cpus in sorted(os.sched_getaffinity(0))[:1], sorted(os.sched_getaffinity(0))[:2]:
        package.unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        for command, args in commands.items():
            assert working_threads(cpus, command, *args) == len(cpus), (command, cpus)


def test_a_large_manifest_is_within_its_share(author, tmp_path):
    """32,768 chunk digests and 5,000 files: 1.9 MB of manifest."""
    pack.write(tmp_path / "model" / "w.bin")
    os.truncate(tmp_path / "model" / "w.bin", 2000 * MIB)
    for i in range(5000):
        pack.write(tmp_path / "model" / f"{i % 50:02}" / f"{'n' * 60}{i}", b"")
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("needs 4 GiB of disk")
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", "--chunk-size", CHUNK, timeout=300)
    manifest = manifest_size(tmp_path / "m.tgsp")
    assert manifest > 1_500_000
    got = peak("verify", tmp_path / "m.tgsp", "--trust", author.pub)
    assert got <= 24 * MIB + 4 * manifest + len(os.sched_getaffinity(0)) * 2 * CHUNK, (got, manifest)


def test_very_many_files_are_within_their_share(author, tmp_path):
    """65,000 files of a few bytes of manifest each, which as a tree of objects would take twenty times that."""
    (tmp_path / "model").mkdir()
    for i in range(65_000):
        (tmp_path / "model" / str(i)).touch()
    pack.build(author, tmp_path / "model", tmp_path / "m.tgsp", timeout=300)
    got = peak("verify", tmp_path / "m.tgsp", "--trust", author.pub)
    manifest = manifest_size(tmp_path / "m.tgsp")
    assert got <= 24 * MIB + 4 * manifest, (got, manifest)
