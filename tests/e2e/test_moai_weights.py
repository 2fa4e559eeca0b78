"""Models whose weights lie in another file of the package."""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys

import pytest

import programs
from moai_launcher import Listener, Worker, kit

MAKE = programs.ROOT / "tests" / "bench" / "make_model.py"
WIDTH = 64


def make(folder, *options):
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, MAKE, "chain", folder / "model.onnx", "--width", str(WIDTH), *options], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("weights")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    return d


def package(folder, source):
    path = source.with_suffix(".tgsp")
    kit("package", "--dir", folder, "--out", path, "--input", source, "--model", "chain")
    return path


def answer(folder, path, tmp_path):
    listener = Listener(tmp_path)
    worker = Worker(folder, path, listener).serve()
    ask = {"inputs": [{"name": "input", "shape": [1, WIDTH], "datatype": "FP32", "data": [i / WIDTH for i in range(WIDTH)]}]}
    status, _, body = worker.infer(ask, model="chain")
    worker.stop()
    listener.close()
    assert status == 200, body
    return body


def test_external_data_answers_as_one_file_does(folder, tmp_path):
    """Below the model's folder, where the model is not at the top."""
    one = make(tmp_path / "one")
    two = tmp_path / "two"
    make(two / "net", "--external", "weights.bin")
    for d in "one", "two":
        (tmp_path / f"s{d}").mkdir()
    assert (two / "net" / "weights.bin").stat().st_size > 4 * 4096
    assert answer(folder, package(folder, one), tmp_path / "sone") == answer(folder, package(folder, two), tmp_path / "stwo")


def test_what_the_package_does_not_hold_is_not_looked_for(folder, tmp_path):
    """A missing file, one outside the package, one above the model's folder, and a file of this machine."""
    names = {"gone.bin": "gone.bin", "up": "../weights.bin", "abs": "/etc/passwd", "dots": "a/../weights.bin"}
    for key, name in names.items():
        d = make(tmp_path / key / "net", "--external", "weights.bin")
        model = d / "model.onnx"
        data = model.read_bytes()
        # same length, so that the protobuf around it stays as it is
        padded = (name + "x" * 32)[:len("weights.bin")] if len(name) < len("weights.bin") else None
        if padded is None:
            make(tmp_path / key / "again", "--external", "w" * len(name))
            model = tmp_path / key / "again" / "model.onnx"
            data = model.read_bytes().replace(b"w" * len(name), name.encode())
        else:
            data = data.replace(b"weights.bin", padded.encode())
        source = tmp_path / key / "pack"
        (source / "net").mkdir(parents=True)
        (source / "net" / "model.onnx").write_bytes(data)
        (source / "weights.bin").write_bytes((d / "weights.bin").read_bytes())
        code, reason, status = Worker(folder, package(folder, source)).failed()
        assert (code, status) == ("NOTFOUND", 3), (key, code, reason)
        assert "not in the package" in reason


def test_data_beyond_its_file_is_refused(folder, tmp_path):
    source = make(tmp_path / "cut", "--external", "weights.bin")
    data = (source / "weights.bin").read_bytes()
    (source / "weights.bin").write_bytes(data[:-4])
    code, reason, status = Worker(folder, package(folder, source)).failed()
    assert (code, status) == ("FORMAT", 4)
    assert "are asked for" in reason


LARGE = 17000  # two products of 17000 x 17000 floats are 2.31 GB: over protobuf's and FlatBuffers' 2 GiB


def room():
    """Why the large model can't be tried here, or None."""
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_AVPHYS_PAGES")
    if page * pages < 9 << 30:
        return "under 9 GiB of memory are free"
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY:
        return "memory for it can't be locked"
    return None


def plant(weights, layer, row, column, value):
    """One number of a matrix in a sparse file of them: an answer of zeros would also come from weights that were never read."""
    start = layer * (LARGE * LARGE * 4 + 4095) // 4096 * 4096
    with open(weights, "r+b") as f:
        f.seek(start + (row * LARGE + column) * 4)
        f.write(struct.pack("<f", value))


@pytest.mark.skipif(programs.sanitized(), reason="too large for a sanitizer")
@pytest.mark.skipif(room() is not None, reason=str(room()))
def test_a_model_over_two_gib_runs_without_a_bake(folder, tmp_path):
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("under 4 GiB of disk are free")
    source = make(tmp_path / "large", "--external", "weights.bin", "--sparse", "--width", str(LARGE), "--layers", "2")
    assert (source / "weights.bin").stat().st_size > 2 << 30
    last = LARGE - 1
    for where in ((0, 0, 5, 2.0), (0, last, last, -3.0), (1, 5, 1, 0.5), (1, last, 0, 4.0), (1, last, last, 0.25)):
        plant(source / "weights.bin", *where)
    path = package(folder, source)
    (tmp_path / "s").mkdir()
    listener = Listener(tmp_path / "s")
    worker = Worker(folder, path, listener, bake_out=tmp_path / "bake")
    try:
        worker.serve(timeout=300)
        ask = {"inputs": [{"name": "input", "shape": [1, LARGE], "datatype": "FP32", "data": [10] + [1] * last}]}
        status, _, body = worker.infer(ask, model="chain")
    finally:
        worker.stop()
        listener.close()
        path.unlink()
    assert status == 200
    # 10 * 2 into the fifth, 1 * -3 into the last; then from both
    assert json.loads(body)["outputs"][0]["data"] == [-12.0, 10.0] + [0.0] * (LARGE - 3) + [-0.75]
    assert (tmp_path / "bake").stat().st_size == 0 and "moai.bake state=none code=" in worker.log()
