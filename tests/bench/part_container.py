"""A large file through `build`, `verify`, `open`, beside age and a plain hash of the same file."""
import os
import shutil

import measure as m
import programs


def big_file(path, mib):
    block = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for i in range(mib):
            f.write(i.to_bytes(8, "big") + block[8:])


def one_round(d, took, tg):
    """Everything once, in turn, so that a slow moment of the machine hits all alike."""
    shutil.rmtree(d / "restored", ignore_errors=True)
    for f in ("m.tgsp", "aes.tgsp", "m.age", "restored.age"):
        (d / f).unlink(missing_ok=True)
    key, author = d / "keys" / "encryption.priv", d / "keys" / "signing.pub"
    build = ["build", "--input-dir", d / "model", "--signing-key", d / "keys" / "signing.priv", "--model-name", "bench"]
    took["hash"].append(m.run(programs.openssl(), "dgst", "-sha256", d / "model" / "weights.bin"))
    took["age"].append(m.run("age", "-e", "-r", (d / "age.pub").read_text().strip(), "-o", d / "m.age", d / "model" / "weights.bin"))
    took["age_sync"].append(m.run("sync", d / "m.age"))
    took["build"].append(m.run(tg, *build, "--out", d / "m.tgsp"))
    took["build_aes"].append(m.run(tg, *build, "--aead", "aes-256-gcm", "--out", d / "aes.tgsp"))
    took["unage"].append(m.run("age", "-d", "-i", d / "age.key", "-o", d / "restored.age", d / "m.age"))
    took["unage_sync"].append(m.run("sync", d / "restored.age"))
    took["verify"].append(m.run(tg, "verify", d / "m.tgsp", "--trust", author))
    took["open"].append(m.run(tg, "open", d / "m.tgsp", "--key", key, "--trust", author, "--out-dir", d / "restored"))
    shutil.rmtree(d / "restored")
    took["open_aes"].append(m.run(tg, "open", d / "aes.tgsp", "--key", key, "--trust", author, "--out-dir", d / "restored"))


def measure(results, d, args):
    tg = programs.path("tensorguard")
    (d / "model").mkdir()
    big_file(d / "model" / "weights.bin", args.size)
    m.run(tg, "keygen", "--type", "signing", "--out", d / "keys")
    m.run(tg, "keygen", "--type", "encryption", "--out", d / "keys")
    m.run("age-keygen", "-o", d / "age.key")
    (d / "age.pub").write_text(m.run("age-keygen", "-y", d / "age.key").out)
    took = {k: [] for k in ("hash", "age", "age_sync", "unage", "unage_sync", "build", "build_aes", "verify", "open", "open_aes")}
    for _ in range(args.rounds):
        one_round(d, took, tg)
    t = {k: m.median(v) for k, v in took.items()}
    mb = args.size * 2**20 / 1e6

    def speed(seconds):
        return {"mb_per_s": mb / seconds}

    what = f"{args.size} MiB"
    results.add(f"build {what}", t["build"], "s", t["age"], "age -e", speed(t["build"]))
    results.add(f"build {what}, both on disk", t["build"], "s", t["age"] + t["age_sync"], "age -e, then sync", speed(t["build"]))
    results.add(f"build {what}, AES-256-GCM", t["build_aes"], "s", t["age"], "age -e", speed(t["build_aes"]))
    results.add(f"build {what} / hash", t["build"], "s", t["hash"], "openssl dgst -sha256", speed(t["build"]))
    results.add("verify + open, 1 file", t["open"], "s", t["unage"], "age -d", speed(t["open"]))
    results.add("verify + open, both on disk", t["open"], "s", t["unage"] + t["unage_sync"], "age -d, then sync", speed(t["open"]))
    results.add("verify + open, AES-256-GCM", t["open_aes"], "s", t["unage"], "age -d", speed(t["open_aes"]))
    results.add("verify + open / hash", t["open"], "s", t["hash"], "openssl dgst -sha256", speed(t["open"]))
    results.add("verify alone", t["verify"], "s", t["hash"], "openssl dgst -sha256", speed(t["verify"]))
    results.add("build, processor time", m.median(took["build"], "cpu"), "s", m.median(took["age"], "cpu"), "age -e")
    results.add("verify + open, processor time", m.median(took["open"], "cpu"), "s", m.median(took["unage"], "cpu"), "age -d")
    results.add("build, peak memory", m.median(took["build"], "rss") / 1e6, "MB", m.median(took["age"], "rss") / 1e6, "age -e")
    results.add("verify + open, peak memory", m.median(took["open"], "rss") / 1e6, "MB", m.median(took["unage"], "rss") / 1e6,
                "age -d")
