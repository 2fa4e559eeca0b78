"""The worker serves the Open Inference Protocol, and answers what PyTorch and plain ONNX Runtime answer."""
import http.client
import json
import pathlib
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

import programs
from moai_launcher import (EXAMPLE, MODEL, Listener, Unix, Worker, binary_request, close_to, heldout, json_request, kit,
                           npy_load, npy_save)

PLAIN_ORT = str(programs.BUILD / "tests" / "unit" / "moai" / "plain_ort")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    d = tmp_path_factory.mktemp("moai")
    kit("keys", "--dir", d)
    kit("rollback", "--out", d / "empty.rollback")
    kit("package", "--dir", d, "--input", EXAMPLE / "model_v1", "--out", d / "net.tgsp", "--model", MODEL)
    kit("deployment", "--dir", d, "--package", d / "net.tgsp", "--signer", "platform", "--fleet", "F",
        "--out", d / "net.tgdeploy")
    return d


@pytest.fixture(scope="module")
def worker(folder):
    (folder / "serve").mkdir()
    listener = Listener(folder / "serve", tcp=True)
    w = Worker(folder, folder / "net.tgsp", listener, deployment=folder / "net.tgdeploy")
    facts = w.healthy()
    assert facts["model"] == MODEL and facts["version"] == "1" and facts["sequence"] == 10
    assert facts["golden_cases"] == 2 and len(facts["header_sha256"]) == 64
    assert [m["state"] for m in w.messages[:-1]] == ["verifying", "decrypting", "loading", "checking"]
    w.tell("serve")
    yield w
    w.stop()
    listener.close()


@pytest.fixture(scope="module")
def images():
    return heldout()


# ---- predictions ----

def test_json_predictions_are_pytorchs(worker, images):
    shape, x, want = images
    status, headers, body = worker.infer(json_request(shape, x, id="a-1"))
    answer = json.loads(body)
    assert status == 200 and headers["Content-Type"] == "application/json"
    assert answer["model_name"] == MODEL and answer["model_version"] == "1" and answer["id"] == "a-1"
    (out,) = answer["outputs"]
    assert (out["name"], out["datatype"], out["shape"]) == ("logits", "FP32", [len(x), 10])
    assert close_to(out["data"], [v for row in want for v in row])


def test_binary_predictions_are_pytorchs(worker, images):
    shape, x, want = images
    body, headers = binary_request(shape, x, parameters={"binary_data_output": True})
    status, headers, answer = worker.infer(body, headers)
    n = int(headers["Inference-Header-Content-Length"])
    head = json.loads(answer[:n])
    assert status == 200 and headers["Content-Type"] == "application/octet-stream"
    assert head["outputs"][0]["parameters"]["binary_data_size"] == len(answer) - n == len(x) * 40
    assert close_to(struct.unpack(f"<{len(x) * 10}f", answer[n:]), [v for row in want for v in row])


def test_binary_in_json_out_and_the_other_way(worker, images):
    shape, x, want = images
    body, headers = binary_request(shape, x[:1])
    status, headers, answer = worker.infer(body, headers)
    assert status == 200 and "Inference-Header-Content-Length" not in headers
    assert close_to(json.loads(answer)["outputs"][0]["data"], want[0])
    request = json_request(shape, x[:1], outputs=[{"name": "logits", "parameters": {"binary_data": True}}])
    status, headers, answer = worker.infer(request)
    assert close_to(struct.unpack("<10f", answer[int(headers["Inference-Header-Content-Length"]):]), want[0])


def test_nested_json_data_and_reordered_members(worker, images):
    shape, x, want = images
    rows = [x[0][i * 8:(i + 1) * 8] for i in range(8)]
    body = {"parameters": {"whatever": [1, {"a": None}]}, "outputs": [{"name": "logits"}],
            "inputs": [{"data": [[rows]], "parameters": {"p": "q"}, "datatype": "FP32", "shape": [1, *shape],
                        "name": "input"}]}
    status, _, answer = worker.infer(body)
    assert status == 200 and close_to(json.loads(answer)["outputs"][0]["data"], want[0])


def test_same_as_plain_onnx_runtime_on_random_inputs(worker, folder):
    dice = random.Random(2)
    shape = [1, 8, 8]
    images = [[struct.unpack("<f", struct.pack("<f", dice.uniform(-3, 3)))[0] for _ in range(64)] for _ in range(200)]
    npy_save(folder / "random.npy", "<f4", [len(images), *shape], [v for image in images for v in image])
    subprocess.run([PLAIN_ORT, EXAMPLE / "model_v1" / "model.onnx", folder / "random.npy", folder / "plain.npy"],
                   check=True, stdout=subprocess.DEVNULL)
    _, _, want = npy_load(folder / "plain.npy")
    body, headers = binary_request(shape, images, parameters={"binary_data_output": True})
    _, headers, answer = worker.infer(body, headers)
    got = struct.unpack("<2000f", answer[int(headers["Inference-Header-Content-Length"]):])
    assert close_to(got, want, 1e-6)


# ---- the other routes ----

def test_health_and_metadata(worker):
    assert json.loads(worker.ask("GET", "/v2/health/live")[2]) == {"live": True}
    assert json.loads(worker.ask("GET", "/v2/health/ready")[2]) == {"ready": True}
    assert "binary_tensor_data" in json.loads(worker.ask("GET", "/v2")[2])["extensions"]
    for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/1"):
        about = json.loads(worker.ask("GET", path)[2])
        assert about["name"] == MODEL and about["versions"] == ["1"]
        assert about["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        assert about["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}]
    assert json.loads(worker.ask("GET", f"/v2/models/{MODEL}/ready")[2])["ready"] is True


def test_metrics_count(worker, images):
    shape, x, _ = images
    before = worker.metrics()
    worker.infer(json_request(shape, x[:1]))
    worker.infer("{}")
    after = worker.metrics()
    assert after["tensorguard_inference_request_success"] == before["tensorguard_inference_request_success"] + 1
    assert after["tensorguard_inference_request_failure"] == before["tensorguard_inference_request_failure"] + 1
    assert after["tensorguard_inference_request_duration_us"] > before["tensorguard_inference_request_duration_us"]
    assert after["tensorguard_memory_used_bytes"] > 50000 and after["tensorguard_model_ready"] == 1
    assert after["tensorguard_native_call_success"] == after["tensorguard_handover_count"] == 0  # it has no native socket
    locked = programs.protection() == "locked"
    assert after["tensorguard_memory_protection"] == locked
    assert (after["tensorguard_locked_bytes"] > 50000) == locked


@pytest.mark.parametrize("method,path,status", [
    ("GET", "/", 404), ("GET", "/v2/models/other", 404), ("GET", f"/v2/models/{MODEL}/versions/2", 404),
    ("GET", f"/v2/models/{MODEL}/infer", 405), ("POST", "/v2/health/live", 405), ("GET", "/v2/models/", 404),
    ("DELETE", f"/v2/models/{MODEL}", 405), ("GET", f"/v2/repository/models/{MODEL}/load", 404)])
def test_wrong_paths_and_methods(worker, method, path, status):
    got, headers, body = worker.ask(method, path)
    assert got == status and json.loads(body)["error"]
    assert status != 405 or headers["Allow"]


# ---- bad bodies: each is told what is wrong, and nobody else is harmed ----

def variant(**change):
    tensor = {"name": "input", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
    tensor.update(change)
    return {"inputs": [{k: v for k, v in tensor.items() if v is not None}]}


BAD = [
    ("", "expected an object"),
    ("[]", "expected an object"),
    ("{", "expected a member name"),
    ("{}", "'inputs' is required"),
    ('{"inputs":[]}', "input 'input' is missing"),
    (variant(name="nope"), "no input 'nope'"),
    (variant(name=None), "required"),
    (variant(shape=[1, 1, 8, 7], data=[0.5] * 56), "has shape [-1,1,8,8] (-1 takes any size), not [1,1,8,7]"),
    (variant(shape=[64]), "not [64]"),
    (variant(shape=[1, 1, 8, 9]), "72 elements"),
    (variant(shape=[-1, 1, 8, 8]), "whole number"),
    (variant(shape=[4294967296, 4294967296, 8, 8]), "too many elements"),
    (variant(datatype="FP64"), "is FP32, not FP64"),
    (variant(datatype="FLOAT"), "datatype: unknown"),
    (variant(data=None), "either data or"),
    (variant(data=[0.5] * 63), "64 elements"),
    (variant(data=[0.5] * 65), "64 elements"),
    (variant(data=["a"] * 64), "data[0]"),
    (variant(data=[1e39] * 64), "data[0]: outside the range"),
    (json.dumps(variant(data=[float("nan")] * 64)), "not a JSON value"),
    (json.dumps(variant(data=[float("inf")] * 64)), "not a JSON value"),
    ({"inputs": variant()["inputs"] * 2}, "same name"),
    ({**variant(), "outputs": [{"name": "nope"}]}, "no output 'nope'"),
    ({"inputs": variant(parameters={"binary_data_size": 256}, data=None)["inputs"]}, "0 bytes are left"),
    (json.dumps(variant()) + "x", "text after"),
    ('{"x":' + "[" * 5000, "too deep"),
    ('{"id":"\\u0000","inputs":[]}', "id must be a string"),
    (b'{"id":"\xff","inputs":[]}', "id must be a string"),
]


@pytest.mark.parametrize("body,why", BAD, ids=range(len(BAD)))
def test_bad_bodies(worker, images, body, why):
    status, _, answer = worker.infer(body)
    assert status in (400, 413) and why in json.loads(answer)["error"]
    shape, x, want = images
    assert close_to(json.loads(worker.infer(json_request(shape, x[:1]))[2])["outputs"][0]["data"], want[0])


@pytest.mark.parametrize("header", ["-1", "x", "99999999", "0x10", "", "18446744073709551616"])
def test_lying_header_lengths(worker, images, header):
    body, _ = binary_request(*images[:1], images[1][:1])
    status, _, answer = worker.infer(body, {"Inference-Header-Content-Length": header})
    assert status == 400 and b"error" in answer


def test_binary_bodies_that_do_not_fit(worker, images):
    shape, x, _ = images
    body, headers = binary_request(shape, x[:1])
    for cut in (1, 100, 255):
        status, _, answer = worker.infer(body[:-cut], headers)
        assert status == 400 and "bytes are left" in json.loads(answer)["error"]
    status, _, answer = worker.infer(body + b"x", headers)
    assert status == 400 and "belong to no tensor" in json.loads(answer)["error"]


def test_oversized_body_is_refused_before_it_is_sent(worker):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(worker.listener.path)
    s.sendall(f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode())
    assert b" 413 " in s.recv(4096).split(b"\r\n")[0] + b" "
    s.close()


@pytest.mark.parametrize("request_text,status", [
    ("POST {infer} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
    ("POST {infer} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
    ("GET /v2 HTTP/1.1\r\n\r\n", 400),
    ("GET /v2 HTTP/1.0\r\nHost: x\r\n\r\n", 505),
    ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", 400),
])
def test_what_no_handler_sees_is_refused_in_the_protocols_form(worker, request_text, status):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(worker.listener.path)
    s.sendall(request_text.format(infer=f"/v2/models/{MODEL}/infer").encode())
    r = http.client.HTTPResponse(s)
    r.begin()
    answer = json.loads(r.read())
    assert r.status == status and r.headers["Content-Type"] == "application/json"
    assert list(answer) == ["error"] and answer["error"]
    s.close()


def test_half_a_request_blocks_nobody(worker, images):
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(worker.listener.path)
    slow.sendall(f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    shape, x, want = images
    assert worker.infer(json_request(shape, x[:1]))[0] == 200
    slow.close()
    assert worker.infer(json_request(shape, x[:1]))[0] == 200


# ---- loopback TCP ----

def tcp(worker, token):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", worker.listener.port, timeout=30)
    c.request("GET", "/v2/health/ready", headers={"Authorization": token} if token else {})
    r = c.getresponse()
    r.read()
    return r.status, r.headers.get("WWW-Authenticate")


def test_tcp_needs_the_token(worker):
    assert tcp(worker, f"Bearer {worker.listener.token}")[0] == 200
    for wrong in (None, "Bearer ", "Bearer nope", f"Basic {worker.listener.token}", f"Bearer {worker.listener.token}x",
                  f"Bearer {worker.listener.token[:-1]}"):
        assert tcp(worker, wrong) == (401, "Bearer"), wrong


# ---- predict ----

@pytest.fixture
def predict(tensorguard):
    if not shutil.which(tensorguard):
        pytest.skip("the command line is not built")
    return lambda *args: subprocess.run([tensorguard, "predict", *map(str, args)], capture_output=True, text=True,
                                        timeout=60)


def test_predict_npy(worker, predict, images, folder):
    shape, x, want = images
    npy_save(folder / "x.npy", "<f4", [4, *shape], [v for image in x[:4] for v in image])
    done = predict("--socket", worker.listener.path, "--model", MODEL, "--input", folder / "x.npy",
                   "--output", folder / "y.npy")
    assert done.returncode == 0, done.stderr
    _, got_shape, got = npy_load(folder / "y.npy")
    assert tuple(got_shape) == (4, 10) and close_to(got, [v for row in want[:4] for v in row])
    assert "largest at" in done.stdout
    done = predict("--socket", worker.listener.path, "--model", MODEL, "--input", f"input={folder / 'x.npy'}", "--json")
    reply = json.loads(done.stdout)["reply"]
    assert close_to(reply["outputs"][0]["data"], [v for row in want[:4] for v in row])


def test_predict_json_over_tcp(worker, predict, images, folder):
    shape, x, want = images
    (folder / "x.json").write_text(json.dumps(json_request(shape, x[:1])))
    (folder / "token").write_text(worker.listener.token + "\n")
    url = f"http://127.0.0.1:{worker.listener.port}"
    done = predict("--url", url, "--token-file", folder / "token", "--model", MODEL, "--input", folder / "x.json", "--json")
    assert done.returncode == 0, done.stderr
    assert close_to(json.loads(done.stdout)["reply"]["outputs"][0]["data"], want[0])
    done = predict("--url", url, "--model", MODEL, "--input", folder / "x.json")
    assert done.returncode == 5 and "token" in done.stderr


def test_predict_says_what_is_wrong(worker, predict, folder):
    npy_save(folder / "bad.npy", "<f4", [1, 3], [1, 2, 3])
    done = predict("--socket", worker.listener.path, "--model", MODEL, "--input", folder / "bad.npy")
    assert done.returncode == 4 and "has shape [-1,1,8,8]" in done.stderr
    done = predict("--socket", worker.listener.path, "--model", "other", "--input", folder / "bad.npy")
    assert done.returncode == 3 and "unknown model" in done.stderr
    done = predict("--model", MODEL, "--input", folder / "bad.npy")
    assert done.returncode == 2 and "either --socket or --url" in done.stderr
    done = predict("--socket", folder / "nobody.sock", "--model", MODEL, "--input", folder / "bad.npy")
    assert done.returncode == 3 and done.stderr


# ---- swapping ----

def hammer(listener, body, stop, failures, counts, keep):
    connection = None
    while not stop.is_set():
        try:
            connection = connection or Unix(listener.path)
            connection.request("POST", f"/v2/models/{MODEL}/infer", body=body)
            r = connection.getresponse()
            answer = r.read()
            if r.status != 200:
                failures.append((r.status, answer))
            counts.append(json.loads(answer)["model_version"])
            if not keep or r.headers.get("Connection", "").lower() == "close":
                connection.close()
                connection = None
        except Exception as e:  # any failed request fails the test
            failures.append(repr(e))
            connection = None


def test_a_swap_under_load_loses_no_request(folder, images):
    (folder / "swap").mkdir()
    kit("package", "--dir", folder, "--input", EXAMPLE / "model_v2", "--out", folder / "v2.tgsp", "--model", MODEL,
        "--version", "2", "--sequence", 11)
    listener = Listener(folder / "swap")
    old = Worker(folder, folder / "net.tgsp", listener).serve()
    body = json.dumps(json_request(images[0], images[1][:1]))
    stop, failures, counts = threading.Event(), [], []
    threads = [threading.Thread(target=hammer, args=(listener, body, stop, failures, counts, keep))
               for keep in (True, True, False, False)]
    for t in threads:
        t.start()
    time.sleep(0.5)
    new = Worker(folder, folder / "v2.tgsp", listener)
    new.healthy()
    assert set(counts) == {"1"}  # nobody is served by the new one before it is told to
    new.tell("serve")
    old.tell("drain")
    assert old.receive()["event"] == "drained" and old.wait() == 0
    before = len(counts)
    time.sleep(0.5)
    stop.set()
    for t in threads:
        t.join()
    assert not failures, failures[:3]
    assert before > 20 and len(counts) > before and counts[-1] == "2"
    new.stop()
    listener.close()


def test_drain_finishes_what_is_in_flight(folder, images):
    (folder / "drain").mkdir()
    listener = Listener(folder / "drain")
    w = Worker(folder, folder / "net.tgsp", listener).serve()
    body = json.dumps(json_request(images[0], images[1][:1])).encode()
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(listener.path)
    s.sendall(f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:50])
    time.sleep(0.2)
    w.tell("drain")
    time.sleep(0.2)
    s.sendall(body[50:])
    answer = s.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
    assert w.receive()["event"] == "drained" and w.wait() == 0
    listener.close()


def test_sigterm_drains(folder):
    (folder / "term").mkdir()
    listener = Listener(folder / "term")
    w = Worker(folder, folder / "net.tgsp", listener).serve()
    w.process.terminate()
    assert w.receive()["event"] == "drained" and w.wait() == 0
    listener.close()


@pytest.mark.skipif(programs.sanitized(), reason="a sanitizer maps terabytes: there is no limit")
def test_a_limit_on_memory(folder):
    model = folder / "roomy"
    shutil.copytree(EXAMPLE / "model_v1", model)
    (model / "filler.bin").write_bytes(bytes(300 << 20))
    (folder / "roomy-run").mkdir()
    kit("package", "--dir", folder, "--input", model, "--out", folder / "roomy.tgsp", "--model", MODEL)
    listener = Listener(folder / "roomy-run")
    code, reason, _ = Worker(folder, folder / "roomy.tgsp", listener, memory_max=16).failed()
    assert code == "NOMEM" and re.search(r"\d+ bytes do not fit into .*--memory-max", reason), reason
    w = Worker(folder, folder / "roomy.tgsp", listener, memory_max=1024).serve()
    limits = pathlib.Path(f"/proc/{w.pid}/limits").read_text()
    most = int(re.search(r"Max address space +(\d+) ", limits)[1])  # with 4 GiB for what is shared with clients
    assert 5 << 30 < most < 6 << 30, limits
    w.stop()
    listener.close()


def test_many_chunks_on_many_threads(folder, images):
    """Decryption starts threads inside the sandbox; the region holds far more than one chunk."""
    model = folder / "large"
    shutil.copytree(EXAMPLE / "model_v1", model)
    filler = random.Random(3).randbytes(9 << 20)
    (model / "filler.bin").write_bytes(filler)
    (folder / "large-run").mkdir()
    kit("package", "--dir", folder, "--input", model, "--out", folder / "large.tgsp", "--model", MODEL, "--chunk", 65536)
    listener = Listener(folder / "large-run")
    for threads in (1, 4):
        w = Worker(folder, folder / "large.tgsp", listener, threads=threads)
        said = w.healthy()
        assert said["protection"] == {"locked": "locked", "any": "none"}[programs.protection()]
        assert said["locked_bytes"] > len(filler) or said["protection"] == "none"
        w.tell("serve")
        status, _, body = w.infer(json_request(images[0], images[1][:1]))
        assert status == 200 and close_to(json.loads(body)["outputs"][0]["data"], images[2][0])
        w.stop()
    listener.close()


def test_closing_the_channel_ends_the_worker_at_once(folder):
    (folder / "gone").mkdir()
    listener = Listener(folder / "gone")
    w = Worker(folder, folder / "net.tgsp", listener).serve()
    start = time.monotonic()
    w.control.close()
    w.wait(10)
    assert time.monotonic() - start < 3
    listener.close()
