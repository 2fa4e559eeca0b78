"""The file system, while a model serves and after: its weights are in no file of the device, of the platform, of temporary folders, of
memory file systems, and behind no descriptor. They are made for this test: what others do on this machine meanwhile does not matter."""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import programs
import tg
import tg_agent

MAKE = programs.ROOT / "tests" / "bench" / "make_model.py"
WIDTH = 96
PIECES, PIECE = 16, 24
SECONDS = 30  # for files that are not ours; the smallest first


class Search:
    """Pieces of the weights, and the places where they may not be: what changed there since the test began."""

    def __init__(self, ours, weights):
        self.ours, self.since = [pathlib.Path(p) for p in ours], time.time() - 1
        steps = [i * (len(weights) - PIECE) // (PIECES - 1) for i in range(PIECES)]
        self.pieces = [weights[at:at + PIECE] for at in steps]
        assert all(len(set(p)) > PIECE // 2 for p in self.pieces)
        places = [*(os.environ[v] for v in ("TMPDIR", "XDG_RUNTIME_DIR") if os.environ.get(v)), "/tmp", "/var/tmp", "/dev/shm", "/run"]
        self.others = sorted({os.path.realpath(p) for p in places if os.path.isdir(p)})

    def holds(self, path):
        tail = b""
        with open(path, "rb") as f:
            while block := f.read(4 << 20):
                window = tail + block
                if any(p in window for p in self.pieces):
                    return True
                tail = window[1 - PIECE:]
        return False

    def changed(self, folders):
        """(size, path) of regular files, the smallest first."""
        done = subprocess.run(["find", *map(str, folders), "-xdev", "-type", "f", "-newerct", f"@{self.since:.3f}", "-print0"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        found = set()
        for path in filter(None, done.stdout.split(b"\0")):
            try:
                found.add((os.lstat(path).st_size, os.fsdecode(path)))
            except OSError:
                pass  # gone
        return sorted(found)

    def files(self):
        """Where the weights are found; every file of ours must be readable."""
        found = [path for _, path in self.changed(self.ours) if self.holds(path)]
        until = time.monotonic() + SECONDS
        for _, path in self.changed(self.others):
            if time.monotonic() > until:
                break
            try:
                if self.holds(path):
                    found.append(path)
            except OSError:
                pass  # gone, or another user's
        return sorted(set(found))

    def descriptors(self, pid):
        """Descriptors of a process behind which the weights are found, and how many were read."""
        found, read = [], 0
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith(("socket:", "anon_inode:", "pipe:", "/dev/", "/proc/")) or os.path.isdir(fd):
                continue
            read += 1
            if self.holds(fd):
                found.append(target)
        return found, read


def chain(folder):
    """A model nobody else has: (its bytes, its weights)."""
    folder.mkdir()
    subprocess.run([sys.executable, MAKE, "chain", folder / "model.onnx", "--width", str(WIDTH), "--layers", "3", "--external", "w",
                    "--seed", str(random.SystemRandom().randrange(1 << 30))], check=True, timeout=120)
    files = {name: (folder / name).read_bytes() for name in ("model.onnx", "w")}
    shutil.rmtree(folder)
    return files


def predict(agent):
    ask = {"inputs": [{"name": "input", "shape": [1, WIDTH], "datatype": "FP32", "data": [i / WIDTH for i in range(WIDTH)]}]}
    connection = tg_agent.UnixConnection(agent.socket)
    connection.request("POST", "/v2/models/perception-net/infer", json.dumps(ask))
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def processes(world, agent):
    yield world.platform.process.pid
    yield agent.process.pid
    yield from tg_agent.worker_pids(agent.process.pid) if os.geteuid() == 0 else ()  # a worker shows its descriptors to root alone


def nothing(search, world, agent, running):
    assert search.files() == []
    assert list((agent.dir / "tmp").iterdir()) == []
    seen = [search.descriptors(pid) for pid in processes(world, agent)] if running else [([], 1)]
    assert [found for found, _ in seen if found] == [] and sum(read for _, read in seen) > 0


def test_no_file_and_no_descriptor_holds_weights(world, tmp_path):
    files = chain(tmp_path / "made")
    agent = world.agent()
    (agent.dir / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(agent.dir / "tmp")}
    search = Search([tmp_path], files["w"])
    package = world.build(files=files)
    assert search.files() != []  # the author's folder: the search finds what is there
    shutil.rmtree(package.with_suffix(""))
    agent.enrol()
    deployment = world.deploy(world.publish(package), agent.id)
    agent.start(env=environment)
    world.wait_update(deployment, agent.id, "running")
    predict(agent)
    nothing(search, world, agent, True)
    # the bake of this start is read by the next one
    agent.stop()
    nothing(search, world, agent, False)
    agent.start(env=environment)
    agent.wait_serving()
    predict(agent)
    nothing(search, world, agent, True)
    worker = agent.status()["serving"]["pid"]
    agent.kill()
    tg.wait_for("the worker's end", lambda: not os.path.exists(f"/proc/{worker}"))
    nothing(search, world, agent, False)
    control = pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) / f"tg-control-{os.getpid()}"
    try:
        control.write_bytes(b"x" * 5000 + files["w"][:len(files["w"]) // 2])
        assert search.files() == [str(control)]
    finally:
        control.unlink()
