"""The platform: devices checking in, and its memory while a large package comes in and goes out."""
import json

import measure as m
import programs
import tg

LOAD = programs.BUILD / "tests" / "bench" / "bench_load"


def load(platform, devices, path, body, seconds):
    argv = [LOAD, platform.device_url.rsplit(":", 1)[1], platform.ca, path, body, seconds]
    for dev in devices:
        argv += [dev.cert, dev.key]
    before = m.cpu_seconds(platform.process.pid)
    got = json.loads(m.run(*argv).out)
    if got["not_200"]:
        raise RuntimeError(f"{got['not_200']} of {got['requests']} requests were not answered 200")
    return got, (m.cpu_seconds(platform.process.pid) - before) / got["requests"] * 1e6


def checkins(results, d, platform, args):
    body = d / "checkin.json"
    body.write_text(json.dumps({"agent_version": "0.1.0", "separation": False}))
    devices = [tg.Device(d / f"device-{i}", platform, "bench", f"device-{i}").enrol() for i in range(32)]
    for n in (1, 8, 32):
        got, cpu = load(platform, devices[:n], "/device/v1/checkin", body, args.seconds)
        bare, bare_cpu = load(platform, devices[:n], "/healthz", "-", args.seconds)
        many, instead = f"{n} device{'s at once' if n > 1 else ''}", "GET /healthz over the same TLS"
        results.add(f"check-ins, {many}", got["per_second"], "/s", bare["per_second"], instead, got)
        results.add(f"check-in p50, {many}", got["p50_ms"], "ms", bare["p50_ms"], instead)
        results.add(f"check-in p99, {many}", got["p99_ms"], "ms", bare["p99_ms"], instead)
        results.add(f"check-in, platform's processor time, {many}", cpu, "us", bare_cpu, instead)
    results.add("mTLS handshake, 32 devices at once", got["handshake_ms"], "ms")
    return devices[0]


def big_package(d, author, vault, mib):
    source = d / "big"
    source.mkdir()
    with open(source / "weights.bin", "wb") as f:
        f.truncate(mib << 20)
    out = d / "big.tgsp"
    tg.cli("build", "--input-dir", source, "--out", out, "--signing-key", author / "signing.priv", "--model-name", "big",
           "--recipient", vault, timeout=600)
    return out


def fetch(device, blob, size):
    """Download in one request, keeping nothing."""
    client = device.client()
    connection = client.connect()
    connection.request("GET", f"/device/v1/blobs/{blob}")
    answer = connection.getresponse()
    got = 0
    while piece := answer.read(1 << 20):
        got += len(piece)
    client.close()
    if answer.status != 200 or got != size:
        raise RuntimeError(f"download: {answer.status}, {got} of {size} bytes")


def transfer(results, d, platform, device, args):
    author, config = tg.make_author(d / "author"), d / "config"
    api, pid = platform.admin(), platform.process.pid
    api.post("/api/v1/publishers", {"name": "bench", "public_key": (author / "signing.pub").read_text()})
    (d / "token").write_text(platform.token + "\n")
    (d / "vault.pub").write_text(api.get("/api/v1/platform").json["vault_public_key"])
    tg.cli("login", "--server", platform.api_url, "--token-file", d / "token", "--ca", platform.ca, "--config", config)
    package = big_package(d, author, d / "vault.pub", args.size)
    size = package.stat().st_size
    rest = m.resident(pid)
    m.peak_reset(pid)
    took = m.run(programs.path("tensorguard"), "publish", package, "--config", config)
    up = m.peak(pid)
    api.post("/api/v1/deployments", {"package": tg.h_of(package), "fleet": "bench"})
    directive = device.checkin().json["deployments"][0]
    m.peak_reset(pid)
    fetch(device, directive["blob_sha256"], size)
    down = m.peak(pid)
    whole = size / 1e6
    results.add(f"platform: peak RSS while {args.size} MiB is uploaded", up / 1e6, "MB", whole, "the package itself")
    results.add(f"platform: peak RSS while {args.size} MiB is downloaded", down / 1e6, "MB", whole, "the package itself")
    results.add("platform: RSS at rest", rest / 1e6, "MB")
    results.add(f"publish {args.size} MiB", took.wall, "s", note={"mb_per_s": whole / took.wall})


def measure(results, d, args):
    platform = tg.Platform(d / "platform", poll=60, rate_limit=0).start()
    try:
        platform.admin().post("/api/v1/fleets", {"name": "bench"})
        device = checkins(results, d, platform, args)
        transfer(results, d, platform, device, args)
    finally:
        platform.stop()
