"""A large file through `build`, `verify`, `open`, beside age and a plain hash of the same file."""
import json
import os
import shutil
import statistics

import measure as m
import programs


def big_file(path, mib):
    block = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for i in range(mib):
            f.write(i.to_bytes(8, "big") + block[8:])


def one_round(d, took, tg, age):
    """Everything once, in turn, so that a slow moment of the machine hits all alike."""
    shutil.rmtree(d / "restored", ignore_errors=True)
    for f in ("m.tgsp", "aes.tgsp", "m.age", "restored.age"):
        (d / f).unlink(missing_ok=True)
    key, author = d / "keys" / "encryption.priv", d / "keys" / "signing.pub"
    build = ["build", "--input-dir", d / "model", "--signing-key", d / "keys" / "signing.priv", "--model-name", "bench"]
    took["hash"].append(m.run(programs.openssl(), "dgst", "-sha256", d / "model" / "weights.bin"))
    if age:
        took["age"].append(m.run("age", "-e", "-r", (d / "age.pub").read_text().strip(), "-o", d / "m.age", d / "model" / "weights.bin"))
        took["age_sync"].append(m.run("sync", d / "m.age"))
    took["build"].append(m.run(tg, *build, "--out", d / "m.tgsp"))
    took["build_aes"].append(m.run(tg, *build, "--aead", "aes-256-gcm", "--out", d / "aes.tgsp"))
    if age:
        took["unage"].append(m.run("age", "-d", "-i", d / "age.key", "-o", d / "restored.age", d / "m.age"))
        took["unage_sync"].append(m.run("sync", d / "restored.age"))
    took["verify"].append(m.run(tg, "verify", d / "m.tgsp", "--trust", author))
    took["open"].append(m.run(tg, "open", d / "m.tgsp", "--key", key, "--trust", author, "--out-dir", d / "restored"))
    shutil.rmtree(d / "restored")
    took["open_aes"].append(m.run(tg, "open", d / "aes.tgsp", "--key", key, "--trust", author, "--out-dir", d / "restored"))


def warm(path):
    """Read it from the disk again: a file as written lies in small pages, which are slower to read (bench_container.c does
    the same with the packages)."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)


SUITES = (("ChaCha20-Poly1305", "m.tgsp"), ("AES-256-GCM", "aes.tgsp"))


def gb(figures):
    """Bytes per second, the middle one, in GB/s; None of none."""
    figures = list(figures)
    return statistics.median(figures) / 1e9 if figures else None


def both(a, b):
    return None if a is None else a + b


def engine_rows(results, suite, shots, age):
    """shots: what bench_container printed, round by round; age: its bytes per second beside each of them."""
    size, cores = shots[0]["bytes"], shots[0]["cores"]
    what = f"verify + decrypt to memory, {suite}"
    load = gb(size / s["load_all"] for s in shots)
    limit = gb(1 / (1 / s["hash_all"] + 1 / s["aead_all"]) for s in shots)
    core_limit = gb(1 / (1 / s["hash_core"] + 1 / s["aead_core"]) for s in shots)
    results.add(what, load, "GB/s", gb(age), "age -d to /dev/null")
    results.add(f"{what} / limit", load, "GB/s", limit, f"hash and AEAD alone, {cores} cores")
    whole = gb(1 / (1 / s["hash_all"] + 1 / s["aead_all"] + 1 / s["copy_all"]) for s in shots)
    results.add(f"{what} / limit with the file's copy", load, "GB/s", whole, f"hash, AEAD and read(2) from the page cache alone, {cores} cores")
    results.add(f"{what} / limit, processor time", gb(size / s["load_cpu"] for s in shots), "GB/s", core_limit,
                "hash and AEAD alone, 1 core")
    results.add(f"{what}, fresh pages", gb(size / s["load_fresh"] for s in shots), "GB/s", gb(age), "age -d to /dev/null")
    if cores >= 2:
        results.add(f"{what}, 2 cores", gb(size / s["load_two"] for s in shots), "GB/s", gb(size / s["load_one"] for s in shots),
                    "1 core")


def engine(results, d, args):
    """The engine alone, in one process (bench_container.c), and age, in turn."""
    tool = programs.BUILD / "tests" / "bench" / "bench_container"
    shots, age = {package: [] for _, package in SUITES}, []
    if not args.without_age:
        warm(d / "m.age")
    for _ in range(max(args.rounds, 3)):
        if not args.without_age:
            took = m.run("age", "-d", "-i", d / "age.key", "-o", "/dev/null", d / "m.age")
            age.append(args.size * 2**20 / took.wall)
        for _, package in SUITES:
            shots[package].append(json.loads(m.run(tool, d / package, d / "keys" / "encryption.priv", d / "keys" / "signing.pub", 1).out))
    for suite, package in SUITES:
        engine_rows(results, suite, shots[package], age)
    every = [s for package in shots.values() for s in package]
    results.add("chunk digest", gb(s["hash_core"] for s in every), "GB/s", gb(s["libcrypto_core"] for s in every),
                f"libcrypto's SHA-256 (ours: {every[0]['hash']})", {"by": every[0]["hash"]})


def mb_of(tooks):
    rss = m.median(tooks, "rss")
    return None if rss is None else rss / 1e6


def measure(results, d, args):
    tg = programs.path("tensorguard")
    (d / "model").mkdir()
    big_file(d / "model" / "weights.bin", args.size)
    m.run(tg, "keygen", "--type", "signing", "--out", d / "keys")
    m.run(tg, "keygen", "--type", "encryption", "--out", d / "keys")
    if not args.without_age:
        m.run("age-keygen", "-o", d / "age.key")
        (d / "age.pub").write_text(m.run("age-keygen", "-y", d / "age.key").out)
    took = {k: [] for k in ("hash", "age", "age_sync", "unage", "unage_sync", "build", "build_aes", "verify", "open", "open_aes")}
    for _ in range(args.rounds):
        one_round(d, took, tg, not args.without_age)
    t = {k: m.median(v) for k, v in took.items()}
    mb = args.size * 2**20 / 1e6

    def speed(seconds):
        return {"mb_per_s": mb / seconds}

    what = f"{args.size} MiB"
    results.add(f"build {what}", t["build"], "s", t["age"], "age -e", speed(t["build"]))
    results.add(f"build {what}, both on disk", t["build"], "s", both(t["age"], t["age_sync"]), "age -e, then sync", speed(t["build"]))
    results.add(f"build {what}, AES-256-GCM", t["build_aes"], "s", t["age"], "age -e", speed(t["build_aes"]))
    results.add(f"build {what} / hash", t["build"], "s", t["hash"], "openssl dgst -sha256", speed(t["build"]))
    results.add("verify + open, 1 file", t["open"], "s", t["unage"], "age -d", speed(t["open"]))
    results.add("verify + open, both on disk", t["open"], "s", both(t["unage"], t["unage_sync"]), "age -d, then sync", speed(t["open"]))
    results.add("verify + open, AES-256-GCM", t["open_aes"], "s", t["unage"], "age -d", speed(t["open_aes"]))
    results.add("verify + open / hash", t["open"], "s", t["hash"], "openssl dgst -sha256", speed(t["open"]))
    results.add("verify alone", t["verify"], "s", t["hash"], "openssl dgst -sha256", speed(t["verify"]))
    results.add("build, processor time", m.median(took["build"], "cpu"), "s", m.median(took["age"], "cpu"), "age -e")
    results.add("verify + open, processor time", m.median(took["open"], "cpu"), "s", m.median(took["unage"], "cpu"), "age -d")
    results.add("build, peak memory", mb_of(took["build"]), "MB", mb_of(took["age"]), "age -e")
    results.add("verify + open, peak memory", mb_of(took["open"]), "MB", mb_of(took["unage"]), "age -d")
    engine(results, d, args)
