"""What the worker refuses: the code and the reason over the control channel, and the exit status."""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, kit, npy_save

V1 = EXAMPLE / "model_v1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("moai")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    return d


@pytest.fixture(scope="module")
def package(folder):
    """package(name, **options of the kit) -> path, made once."""
    def make(name, **options):
        path = folder / f"{name}.tgsp"
        if not path.exists():
            words = {"input": V1, "model": MODEL, **options}
            kit("package", "--dir", folder, "--out", path, *[w for k, v in words.items() for w in (f"--{k}", v)])
        return path
    return make


def refused(folder, path, **how):
    return Worker(folder, path, **how).failed()


def test_the_good_package_is_taken(folder, package):
    w = Worker(folder, package("good"))
    w.healthy()
    w.stop()


# ---- the package ----

def test_tampered_anywhere(folder, package):
    data = package("good").read_bytes()
    for at in (0, 5, 9, 200, 3000, len(data) // 4, len(data) // 2, len(data) - 9000, len(data) - 2000, len(data) - 1):
        bad = folder / "tampered.tgsp"
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
        code, reason, status = refused(folder, bad)
        assert (code, status) in {("AUTH", 5), ("FORMAT", 4), ("UNSUPPORTED", 11), ("LIMIT", 10)}, (at, code, reason)
        assert reason
    payload_at = data.rindex(b'{"recipients"') + 40000
    bad.write_bytes(data[:payload_at] + bytes([data[payload_at] ^ 0x80]) + data[payload_at + 1:])
    code, reason, status = refused(folder, bad)
    assert (code, status) == ("AUTH", 5) and "chunk" in reason


def test_cut_and_trailing(folder, package):
    data = package("good").read_bytes()
    for n in (0, 3, 6, 10, 500, len(data) // 2, len(data) - 1):
        (folder / "cut.tgsp").write_bytes(data[:n])
        code, _, status = refused(folder, folder / "cut.tgsp")
        assert (code, status) == ("FORMAT", 4)
    (folder / "cut.tgsp").write_bytes(data + b"x")
    code, _, status = refused(folder, folder / "cut.tgsp")
    assert (code, status) == ("FORMAT", 4)


def test_signed_by_a_stranger(folder, package):
    code, reason, status = refused(folder, package("stranger", signer="stranger"))
    assert (code, status) == ("AUTH", 5) and "sign" in reason


def test_signed_by_the_platform_only(folder, package):
    code, _, status = refused(folder, package("platform", signer="platform"))
    assert (code, status) in {("DENIED", 8), ("AUTH", 5)}


def test_expired_and_not_for_this_fleet(folder, package):
    code, reason, status = refused(folder, package("expired", age=1000, lifetime=500))
    assert (code, status) == ("EXPIRED", 7) and "not_after" in reason
    code, reason, status = refused(folder, package("fleet", fleet="other-fleet"))
    assert (code, status) == ("DENIED", 8) and "fleet" in reason


# ---- keys and grants ----

def test_wrong_kem_key(folder, package):
    code, reason, status = refused(folder, package("good"), key=folder / "other.priv")
    assert (code, status) == ("NOTFORKEY", 6) and "no grant" in reason


def test_key_file_of_another_kind(folder, package):
    code, reason, status = refused(folder, package("good"), key=folder / "author.priv")
    assert (code, status) == ("FORMAT", 4) and "KEM key" in reason


def grant(folder, path, name, *options):
    out = folder / f"{name}.tgrant"
    kit("grant", "--dir", folder, "--package", path, "--out", out, *options)
    return out


def test_grants(folder, package):
    path = package("for-other", recipient="other")
    good = grant(folder, path, "good")
    w = Worker(folder, path, grant=good)
    w.healthy()
    w.stop()
    code, _, status = refused(folder, path)
    assert (code, status) == ("NOTFORKEY", 6)
    code, _, status = refused(folder, path, grant=grant(folder, path, "late", "--age", 5000, "--lifetime", 1000))
    assert (code, status) == ("EXPIRED", 7)
    code, _, status = refused(folder, path, grant=grant(folder, path, "forged", "--signer", "stranger"))
    assert (code, status) == ("AUTH", 5)
    code, _, status = refused(folder, path, grant=grant(folder, path, "role", "--signer", "platform"))
    assert (code, status) == ("DENIED", 8)
    code, _, status = refused(folder, path, grant=grant(folder, path, "elsewhere", "--recipient", "other"))
    assert (code, status) == ("NOTFORKEY", 6)
    other = package("for-other-too", recipient="other", sequence=11)
    code, _, status = refused(folder, other, grant=good)
    assert code in ("AUTH", "DENIED", "FORMAT") and status in (4, 5, 8)
    text = good.read_text()
    (folder / "bent.tgrant").write_text(text.replace('"sig_classic":"', '"sig_classic":"B', 1))
    code, _, status = refused(folder, path, grant=folder / "bent.tgrant")
    assert (code, status) in {("FORMAT", 4), ("AUTH", 5)}


# ---- rollback and deployments ----

def record(folder, path, name, **options):
    out = folder / f"{name}.rollback"
    kit("rollback", "--dir", folder, "--package", path, "--model", MODEL, "--out", out,
        *[w for k, v in options.items() for w in (f"--{k}", v)])
    return out


def deployment(folder, path, name, *options):
    out = folder / f"{name}.tgdeploy"
    defaults = [word for pair in (("--signer", "platform"), ("--fleet", "F")) if pair[0] not in options for word in pair]
    kit("deployment", "--dir", folder, "--package", path, "--out", out, *defaults, *options)
    return out


def test_rollback(folder, package):
    old, new = package("good"), package("newer", sequence=20, floor=5)
    ran_new = record(folder, new, "ran-new", sequence=20, floor=5)
    code, reason, status = refused(folder, old, rollback=ran_new)
    assert (code, status) == ("ROLLBACK", 7) and "20" in reason
    allowed = deployment(folder, old, "back", "--allow-rollback")
    w = Worker(folder, old, rollback=ran_new, deployment=allowed)
    w.healthy()
    w.stop()
    code, _, status = refused(folder, old, rollback=ran_new, deployment=deployment(folder, old, "plain"))
    assert (code, status) == ("ROLLBACK", 7)
    ran_floor = record(folder, new, "ran-floor", sequence=20, floor=15)
    code, reason, status = refused(folder, old, rollback=ran_floor, deployment=allowed)
    assert (code, status) == ("ROLLBACK", 7) and "floor" in reason  # a deployment does not go below the floor


def test_same_sequence_another_package(folder, package):
    twin = package("twin", version="other")
    code, _, status = refused(folder, twin, rollback=record(folder, package("good"), "ran-good", sequence=10))
    assert (code, status) == ("ROLLBACK", 7)


def test_deployments_must_be_for_this_device_and_package(folder, package):
    good = package("good")
    rows = [
        (deployment(folder, package("newer", sequence=20, floor=5), "elsewhere"), {"DENIED", "AUTH"}),
        (deployment(folder, good, "fleet", "--fleet", "G"), {"DENIED"}),
        (deployment(folder, good, "device", "--device", "another"), {"DENIED"}),
        (deployment(folder, good, "late", "--age", 9000, "--lifetime", 100), {"EXPIRED"}),
        (deployment(folder, good, "forged", "--signer", "stranger"), {"AUTH"}),
        (deployment(folder, good, "author", "--signer", "author"), {"DENIED"}),
    ]
    for path, codes in rows:
        code, reason, _ = refused(folder, good, deployment=path)
        assert code in codes, (path.name, code, reason)


def test_a_broken_record_or_store_is_not_a_fresh_one(folder, package):
    (folder / "nothing").write_bytes(b"")
    code, reason, status = refused(folder, package("good"), rollback=folder / "nothing")
    assert (code, status) == ("FORMAT", 4) and "rollback record" in reason
    code, reason, status = refused(folder, package("good"), trust=folder / "nothing")
    assert (code, status) == ("FORMAT", 4) and "trust store" in reason


# ---- the model ----

def model_dir(folder, name, files):
    d = folder / name
    d.mkdir(exist_ok=True)
    for path, data in files.items():
        (d / path).parent.mkdir(exist_ok=True)
        (d / path).write_bytes(data)
    return d


def test_golden_outputs_must_match(folder, package):
    d = folder / "wrong-golden"
    shutil.copytree(V1, d)
    npy_save(d / "golden" / "case1.logits.npy", "<f4", [1, 10], [0.0] * 10)
    code, reason, status = refused(folder, package("wrong-golden", input=d))
    assert (code, status) == ("STATE", 9) and "golden case 1" in reason and "logits" in reason
    npy_save(d / "golden" / "case1.logits.npy", "<f4", [10], [0.0] * 10)
    assert "the golden file holds FP32 [10]" in refused(folder, package("golden-shape", input=d))[1]
    (d / "golden" / "case1.logits.npy").unlink()
    code, reason, _ = refused(folder, package("golden-missing", input=d))
    assert code == "NOTFOUND" and "case1.logits.npy" in reason
    text = (V1 / "golden" / "golden.json").read_text()
    (d / "golden" / "golden.json").write_text(text.replace("case1.input.npy", "../model.onnx"))
    assert "holds '/'" in refused(folder, package("golden-path", input=d))[1]
    (d / "golden" / "golden.json").write_text(text.replace('"logits"', '"nothing"'))
    assert "no output 'nothing'" in refused(folder, package("golden-name", input=d))[1]


def test_models_that_cannot_be_run(folder, package):
    model = (V1 / "model.onnx").read_bytes()
    rows = [
        ("no-onnx", {"readme.txt": b"x"}, {}, "FORMAT", "no .onnx file"),
        ("two-onnx", {"a.onnx": model, "b.onnx": model}, {}, "FORMAT", "2 .onnx files"),
        ("broken", {"model.onnx": model[:-1000]}, {}, "FORMAT", "not valid protobuf"),
        ("noise", {"model.onnx": b"\x0a\x03abc" * 100}, {}, "FORMAT", "ONNX"),
        ("empty", {"model.onnx": b""}, {}, "FORMAT", ""),
        ("pytorch", {"model.pt": b"PK"}, {"format": "pytorch"}, "UNSUPPORTED", "'pytorch'"),
    ]
    for name, files, options, want, why in rows:
        code, reason, _ = refused(folder, package(name, input=model_dir(folder, f"in-{name}", files), **options))
        assert code == want and why in reason, (name, code, reason)
    two = model_dir(folder, "in-two-onnx", {})
    w = Worker(folder, package("named", input=two, **{"model-file": "b.onnx"}))
    w.healthy()
    w.stop()


# ---- locked memory ----

@pytest.mark.skipif(programs.sanitized(), reason="the sanitizer's own memory is far over any limit")
def test_memory_that_cannot_be_locked_is_a_clear_refusal(folder, package):
    def unprivileged():
        """Without CAP_IPC_LOCK, also for root. Not another user: that one may not reach the program's folder."""
        pr_capbset_drop, cap_ipc_lock = 24, 14
        if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(pr_capbset_drop, cap_ipc_lock, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")

    code, reason, status = refused(folder, package("good"), memlock=16384, preexec=unprivileged, protection="locked")
    assert (code, status) == ("NOMEM", 12)
    assert "--protection locked: can't lock" in reason
    for remedy in ("RLIMIT_MEMLOCK is 16384", "LimitMEMLOCK", "ulimit -l", "CAP_IPC_LOCK"):
        assert remedy in reason
    for limit in (16384, 8 << 20):
        w = Worker(folder, package("good"), memlock=limit, preexec=unprivileged, protection="any")
        w.healthy()
        w.stop()
        assert re.search(r"moai.memory .*protection=none", w.log()), w.log()


def test_an_unknown_level_is_a_usage_error(folder, package):
    w = Worker(folder, package("good"), protection="most")
    assert w.wait() == 2 and "--protection: secret, locked or any" in w.log()


# ---- what it is started with ----

def test_tcp_needs_a_token_and_loopback(folder, package, tmp_path):
    listener = Listener(tmp_path, tcp=True)
    code, reason, status = refused(folder, package("good"), listener=listener, no_token=True)
    assert (code, status) == ("DENIED", 8) and "--token-fd" in reason
    code, reason, status = refused(folder, package("good"), listener=listener, token_text="ABC")
    assert (code, status) == ("FORMAT", 4) and "64 lower-case hex" in reason
    listener.tcp.close()
    listener.sockets[1] = socket.create_server(("0.0.0.0", 0))
    code, reason, status = refused(folder, package("good"), listener=listener)
    assert (code, status) == ("DENIED", 8) and "loopback only" in reason
    listener.close()


def test_usage():
    moai = programs.path("tensorguard-moai")
    for words, why in [(["worker"], "--package-fd"), (["worker", "--package-fd", "x"], "whole number"), ([], "--make-key"),
                       (["worker", "--nonsense"], "unknown option")]:
        done = subprocess.run([moai, *words], capture_output=True, text=True)
        assert done.returncode == 2 and why in done.stderr, done.stderr
    assert subprocess.run([moai, "--help"], capture_output=True).returncode == 0
    assert b"--control-fd" in subprocess.run([moai, "worker", "--help"], capture_output=True).stdout


def test_a_lost_agent_ends_a_loading_worker(folder, package):
    w = Worker(folder, package("good"))
    w.control.close()
    assert w.wait(20) == 3


def test_nonsense_on_the_channel_ends_the_worker(folder, package, tmp_path):
    listener = Listener(tmp_path)
    w = Worker(folder, package("good"), listener).serve()
    w.control.send(b'{"command":"format-disk"}')
    message = w.receive()
    assert message["event"] == "failed" and message["code"] == "FORMAT" and w.wait(20) == 4
    listener.close()


# ---- the device's key ----

def test_make_key(tmp_path, openssl):
    moai = programs.path("tensorguard-moai")
    out = tmp_path / "a" / "kem"
    subprocess.run([moai, "--make-key", "--out", out], check=True)
    private, public = out / "kem.priv", out / "kem.pub"
    assert private.stat().st_mode & 0o777 == 0o600 and out.stat().st_mode & 0o777 == 0o700
    assert private.stat().st_uid == os.geteuid()
    assert public.read_text().count("BEGIN PUBLIC KEY") == 2
    before = private.read_bytes()
    done = subprocess.run([moai, "--make-key", "--out", out], capture_output=True, text=True)
    assert done.returncode == 3 and "already" in done.stderr and private.read_bytes() == before


def test_make_key_for_the_agent(tmp_path):
    """In the current folder, public half to stdout; the same again for a key that is there."""
    run = lambda: subprocess.run([programs.path("tensorguard-moai"), "--make-key"], cwd=tmp_path, capture_output=True,
                                 check=True).stdout
    first = run()
    assert first.count(b"BEGIN PUBLIC KEY") == 2 and (tmp_path / "kem.priv").stat().st_mode & 0o777 == 0o600
    assert run() == first
    (tmp_path / "kem.priv").chmod(0o644)
    done = subprocess.run([programs.path("tensorguard-moai"), "--make-key"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 8 and "chmod" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_make_key_as_another_user(tmp_path):
    os.chmod(tmp_path, 0o755)
    os.chown(tmp_path, 65534, 65534)
    subprocess.run([programs.path("tensorguard-moai"), "--make-key", "--user", "nobody"], cwd=tmp_path, check=True,
                   stdout=subprocess.DEVNULL)
    assert (tmp_path / "kem.priv").stat().st_uid == 65534
