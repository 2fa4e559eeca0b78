"""What the worker's process is like from outside: undumpable, locked, sandboxed, and clean."""
import base64
import json
import os
import pathlib
import random
import re
import resource
import shutil
import struct
import subprocess

import pytest

import programs
from moai_launcher import EXAMPLE, MODEL, Listener, Worker, binary_request, heldout, json_request, kit

LOCKED = pytest.mark.skipif(programs.protection() != "locked", reason="level any: RLIMIT_MEMLOCK leaves no room to lock memory")
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to look into another process or to change users")
PLAIN_BUILD = pytest.mark.skipif(programs.sanitized(), reason="a sanitizer keeps freed memory and files of its own")
MARKER = b"This text stands for a secret: " + bytes(range(1, 255))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("moai")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    model = d / "model"
    shutil.copytree(EXAMPLE / "model_v1", model)
    (model / "secret.txt").write_bytes(MARKER)  # ONNX Runtime never sees it
    kit("package", "--dir", d, "--input", model, "--out", d / "net.tgsp", "--model", MODEL)
    return d


@pytest.fixture
def worker(folder, tmp_path):
    listener = Listener(tmp_path)
    w = Worker(folder, folder / "net.tgsp", listener)
    w.facts = w.healthy()
    w.tell("serve")
    yield w
    w.stop()
    listener.close()


def status(pid, task=None):
    path = pathlib.Path(f"/proc/{pid}/status") if task is None else pathlib.Path(f"/proc/{pid}/task/{task}/status")
    return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)


class Mapping:
    def __init__(self, head):
        self.start, self.end = (int(x, 16) for x in head.split()[0].split("-"))
        self.mode = head.split()[1]
        self.path = head.split()[5] if len(head.split()) > 5 else ""
        self.flags = []


def mappings(pid):
    found = []
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            found.append(Mapping(line))
        elif line.startswith("VmFlags:"):
            found[-1].flags = line.split()[1:]
    return found


def find_in_memory(pid, *needles):
    """[(needle, mapping, address)] over everything that can be read."""
    hits = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for m in mappings(pid):
            if "r" not in m.mode or m.path.startswith("[v"):
                continue
            try:
                data = os.pread(mem.fileno(), m.end - m.start, m.start)
            except OSError:
                continue
            for needle in needles:
                at = data.find(needle)
                while at >= 0:
                    hits.append((needle, m, m.start + at))
                    at = data.find(needle, at + 1)
    return hits


@PLAIN_BUILD
def test_sandboxed_in_every_thread(worker):
    tasks = os.listdir(f"/proc/{worker.pid}/task")
    for task in tasks:
        facts = status(worker.pid, task)
        assert facts["Seccomp"] == "2" and facts["NoNewPrivs"] == "1", task
        assert int(facts["Seccomp_filters"]) >= 2


@ROOT_ONLY
@PLAIN_BUILD
def test_no_network_and_few_descriptors(worker):
    """Started by root it is in a network of its own, in which there is nothing; its sockets go on."""
    limits = pathlib.Path(f"/proc/{worker.pid}/limits").read_text()
    assert int(re.search(r"Max open files +(\d+)", limits)[1]) <= 64 + 2 * 1024
    assert re.search(r"Max address space +\d+", limits)
    if "network=none" in worker.log():
        assert os.readlink(f"/proc/{worker.pid}/ns/net") != os.readlink("/proc/self/ns/net")
        assert len(pathlib.Path(f"/proc/{worker.pid}/net/dev").read_text().splitlines()) == 3  # two of heading, and a loopback that is down
    assert re.search(r"moai.sandbox seccomp=list landlock=\d+ network=(none|forbidden)", worker.log())


def allowed_capabilities():
    """None; but where even root may not raise RLIMIT_MEMLOCK (a container), CAP_IPC_LOCK must stay."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    may_raise = int(status("self")["CapEff"], 16) >> 24 & 1
    return {0} if hard == resource.RLIM_INFINITY or may_raise else {0, 1 << 14}


def test_no_capabilities(worker):
    for task in os.listdir(f"/proc/{worker.pid}/task"):
        facts = status(worker.pid, task)
        assert int(facts["CapEff"], 16) in allowed_capabilities()
        assert int(facts["CapPrm"], 16) in allowed_capabilities()


@LOCKED
@PLAIN_BUILD
def test_locked_memory_covers_the_payload(worker):
    assert worker.facts["locked_bytes"] >= (EXAMPLE / "model_v1" / "model.onnx").stat().st_size
    assert int(status(worker.pid)["VmLck"].split()[0]) * 1024 >= worker.facts["locked_bytes"]


def region(worker):
    """The model's image: the one sealed piece."""
    return [m for m in mappings(worker.pid) if {"lo", "dd", "wf"} <= set(m.flags) and m.mode == "r--p"]


@ROOT_ONLY
@PLAIN_BUILD
def test_the_region_is_locked_sealed_fenced_and_left_out_of_dumps(worker):
    (m,) = region(worker)
    around = mappings(worker.pid)
    at = [x.start for x in around].index(m.start)
    for fence in (around[at - 1], around[at + 1]):
        assert fence.mode == "---p"
    assert around[at - 1].end == m.start and around[at + 1].start == m.end


@ROOT_ONLY
@PLAIN_BUILD
def test_no_page_can_be_swapped_where_there_is_no_limit(worker):
    """As root the limit is out of the way: what lies outside the region is locked as well."""
    text = worker.ask("GET", "/metrics")[2].decode()
    assert "\ntensorguard_all_memory_locked{" in text and re.search(r"\ntensorguard_all_memory_locked\{.*\} 1\n", text)
    loose = [m for m in mappings(worker.pid) if "w" in m.mode and "lo" not in m.flags and not m.path.startswith("[v")]
    assert not loose, [(hex(m.start), m.path) for m in loose]


@ROOT_ONLY
@PLAIN_BUILD
def test_plaintext_is_gone_where_it_is_not_needed(worker):
    """Once the model is loaded its image is all that is kept of the package; the rest was wiped."""
    assert region(worker.settled())
    assert not find_in_memory(worker.pid, MARKER)


def test_no_core_and_not_dumpable(worker):
    limits = pathlib.Path(f"/proc/{worker.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)


@ROOT_ONLY
def test_not_dumpable_even_for_its_own_user(folder, tmp_path):
    """Run as nobody: others of that user can't look in, and /proc shows the files as root's."""
    listener = Listener(tmp_path)
    w = Worker(folder, folder / "net.tgsp", listener, user="nobody")
    w.healthy()
    facts = status(w.pid)
    assert facts["Uid"].split() == ["65534"] * 4 and facts["Groups"].strip() == ""
    assert int(facts["CapEff"], 16) in allowed_capabilities()
    assert os.stat(f"/proc/{w.pid}/maps").st_uid == 0
    peek = ("import sys\nfor name in ('maps', 'mem', 'environ', 'auxv'):\n"
            f"    try:\n        open('/proc/{w.pid}/' + name, 'rb').read(1)\n        sys.exit(1)\n"
            "    except PermissionError:\n        pass\n")
    subprocess.run(["/usr/bin/python3", "-c", peek], check=True, user=65534, group=65534, extra_groups=[])
    w.stop()
    listener.close()


@ROOT_ONLY
@PLAIN_BUILD
@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not here")
def test_a_core_taken_by_root_does_not_hold_the_region(worker, tmp_path):
    core = tmp_path / "core"
    done = subprocess.run(["gdb", "-nx", "-batch", "-p", str(worker.pid), "-ex", f"generate-core-file {core}", "-ex", "detach"],
                          capture_output=True, text=True, timeout=300)
    assert core.exists(), done.stderr
    data = core.read_bytes()
    core.unlink()
    assert b"tensorguard-moai" in data and MARKER[:40] not in data
    assert MODEL.encode() not in data  # not even its name, which is on the heap
    assert worker.ask("GET", "/v2/health/live")[0] == 200


@ROOT_ONLY
@PLAIN_BUILD
def test_the_kem_key_is_gone_before_it_serves(folder, worker):
    pem = (folder / "device.priv").read_text()
    ders = [base64.b64decode("".join(block.split("-----")[0].split()))
            for block in pem.split("PRIVATE KEY-----")[1::2]]
    x25519 = ders[0][-32:]
    text_lines = [line.encode() for line in pem.splitlines() if len(line) == 64]
    needles = [x25519, ders[1][-64:], text_lines[2], text_lines[-3]]
    hits = find_in_memory(worker.pid, *needles)
    assert not hits, [(needles.index(n), hex(at), m.path or "anonymous") for n, m, at in hits]


@ROOT_ONLY
@PLAIN_BUILD
def test_inputs_and_outputs_do_not_stay(worker):
    dice = random.Random(7)
    shape, _, _ = heldout()
    image = [struct.unpack("<f", struct.pack("<f", dice.uniform(-1, 1)))[0] for _ in range(64)]
    body, headers = binary_request(shape, [image], id="a-rare-id-81723", parameters={"binary_data_output": True})
    _, headers, answer = worker.infer(body, headers)
    logits = answer[int(headers["Inference-Header-Content-Length"]):]
    _, _, text = worker.infer(json_request(shape, [image]))
    digits = json.dumps(image[3:7])[1:-1].encode()
    shown = text[text.index(b'"data":[') + 8:][:40]
    worker.ask("GET", "/v2/health/live")
    needles = {"input": struct.pack("<8f", *image[20:28]), "output": logits[:32], "input as text": digits,
               "output as text": shown, "id": b"a-rare-id-81723"}
    hits = find_in_memory(worker.pid, *needles.values())
    names = {v: k for k, v in needles.items()}
    assert not hits, [(names[n], hex(at), m.path or "anonymous") for n, m, at in hits]


@PLAIN_BUILD
@pytest.mark.skipif(os.geteuid() != 0, reason="only root's tracer can read the arguments of a process that can't be dumped")
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
def test_a_traced_worker_creates_no_file_and_opens_no_socket(folder, tmp_path, monkeypatch):
    """With CI unset in its environment, as an agent starts it (which hands on none of its own), whatever the tests run under."""
    monkeypatch.setenv("CI", "1")
    trace = tmp_path / "trace"
    listener = Listener(tmp_path, tcp=True)
    w = Worker(folder, folder / "net.tgsp", listener, before=["strace", "-f", "-qq", "-o", str(trace)])
    assert b"CI=" not in pathlib.Path(f"/proc/{w.pid}/environ").read_bytes()  # strace's, and so the worker's
    w.serve()
    shape, images, _ = heldout()
    assert w.infer(json_request(shape, images[:3]))[0] == 200
    w.infer("nonsense")
    w.tell("drain")
    assert w.receive()["event"] == "drained"
    assert w.wait() == 0
    listener.close()
    calls = [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines()]
    assert any(c.startswith("accept4(") for c in calls)
    own_sockets = [c for c in calls if re.match(r"(socket|socketpair|bind|connect|listen)\(", c)]
    assert not own_sockets, own_sockets
    bake = [c for c in calls if re.match(r'openat\(AT_FDCWD, "/proc/self/fd/\d+", O_WRONLY\|O_CREAT\|O_TRUNC, ', c)]
    assert len(bake) <= 1  # a pipe of its own, as ONNX Runtime hands out the optimized model
    hush = [c for c in calls if re.match(r'openat\(AT_FDCWD, "/dev/null", O_WRONLY\|O_CLOEXEC\)', c)]
    assert len(hush) <= 1  # for what Debian 13's ONNX Runtime writes past its logger
    calls = [c for c in calls if c not in bake + hush]
    writes = [c for c in calls if re.match(r"(open|openat|openat2|creat)\(", c)
              and re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|creat\(", c)]
    made = [c for c in calls if re.match(r"(mkdir|mkdirat|mknod|mknodat|link|linkat|symlink|symlinkat|rename\w*|unlink\w*|"
                                         r"truncate|ftruncate|memfd_create|memfd_secret|fallocate)\(", c)]
    assert not writes and not made, writes + made
    enter = next(i for i, c in enumerate(calls) if re.match(r"seccomp\(SECCOMP_SET_MODE_FILTER.*\{len=", c) and c.rstrip().endswith("= 0"))
    after = [c for c in calls[enter:] if re.match(r"(open|openat|openat2|creat|execve|fork|vfork|ptrace)\(", c)]
    assert not after, after
    assert sum("seccomp(SECCOMP_SET_MODE_FILTER" in c and "len=" in c for c in calls) >= 2
