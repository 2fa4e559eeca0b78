"""Packages on their way in: parts out of order, repeated, missing, lying; strangers; co-signed copies; downloads by range."""
import hashlib
import os
import sqlite3
import threading

import pytest

import tg

PART = 65536


@pytest.fixture
def publisher(platform, author):
    """A publisher's client, with the author's key registered."""
    platform.admin().post("/api/v1/publishers", {"name": "author", "public_key": (author / "signing.pub").read_text()})
    return platform.role("publisher")


@pytest.fixture(scope="module")
def package(tmp_path_factory, author):
    return tg.make_package(tmp_path_factory.mktemp("package"), author, model_version="1.0")


def begin(client, data, part_size=PART, **more):
    body = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "part_size": part_size, **more}
    return client.post("/api/v1/uploads", body).json


def put(client, upload, n, part, digest_of=None, **kw):
    headers = tg.digest_header(part if digest_of is None else digest_of)
    return client.put(f"/api/v1/uploads/{upload['id']}/parts/{n}", part, headers=headers, **kw)


def parts_of(data, size=PART):
    return [data[i:i + size] for i in range(0, len(data), size)]


def test_upload_and_show(platform, publisher, package, author):
    data = package.read_bytes()
    made = tg.upload(publisher, package).json
    assert made["header_sha256"] == tg.h_of(package)
    assert made["blob_sha256"] == hashlib.sha256(data).hexdigest() and made["blob_size"] == len(data)
    assert made["model"]["name"] == "net" and made["model"]["version"] == "1.0"
    assert made["recipients"] == 1 and made["vault"] is False and len(made["signers"]) == 1
    blob = platform.dir / "blobs" / made["blob_sha256"][:2] / made["blob_sha256"]
    assert blob.read_bytes() == data
    assert not list((platform.dir / "uploads").iterdir())
    viewer = platform.role("viewer")
    assert viewer.get(f"/api/v1/packages/{made['header_sha256']}").json == made
    assert [p["header_sha256"] for p in viewer.get("/api/v1/packages?model=net").json["items"]] == [made["header_sha256"]]
    assert viewer.get("/api/v1/packages?model=other").json["items"] == []
    rows = viewer.get(f"/api/v1/audit?package={made['header_sha256']}").json["items"]
    assert [r["action"] for r in rows] == ["package.accept"]


def test_parts_in_any_order_in_parallel_repeated(platform, publisher, package):
    data = package.read_bytes()
    upload, parts = begin(publisher, data), parts_of(data)
    assert upload["parts"] == len(parts) > 3
    failures = []

    def send(numbers):
        client = platform.client(publisher.token)
        for n in numbers:
            answer = put(client, upload, n, parts[n], expect=None)
            if answer.status != 200:
                failures.append(answer)

    numbers = list(range(len(parts)))[::-1]
    threads = [threading.Thread(target=send, args=(numbers,)) for _ in range(4)]  # everyone sends everything
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert put(publisher, upload, 0, parts[0]).json["repeated"] is True
    state = publisher.get(f"/api/v1/uploads/{upload['id']}").json
    assert state["missing"] == [] and state["received"] == len(parts)
    first = publisher.post(f"/api/v1/uploads/{upload['id']}/complete").json
    again = publisher.post(f"/api/v1/uploads/{upload['id']}/complete", expect=200).json
    assert first == again, "an answer that was lost can be asked for again"
    assert publisher.get(f"/api/v1/uploads/{upload['id']}").json["state"] == "done"
    assert put(publisher, upload, 0, parts[0], expect=409).slug == "conflict"


def test_missing_parts_are_named(publisher, package):
    data = package.read_bytes()
    upload, parts = begin(publisher, data), parts_of(data)
    put(publisher, upload, 1, parts[1])
    answer = publisher.post(f"/api/v1/uploads/{upload['id']}/complete", expect=409)
    assert answer.slug == "upload-incomplete"
    assert f"{len(parts) - 1} of {len(parts)}" in answer.json["detail"] and "missing: 0, 2-" in answer.json["detail"]
    state = publisher.get(f"/api/v1/uploads/{upload['id']}").json
    assert state["missing"] == [{"first": 0, "last": 0}, {"first": 2, "last": len(parts) - 1}]


def test_lying_parts(platform, publisher, package):
    data = package.read_bytes()
    upload, parts = begin(publisher, data), parts_of(data)
    lie = put(publisher, upload, 0, parts[0], digest_of=parts[1], expect=422)
    assert lie.slug == "digest-mismatch"
    assert publisher.get(f"/api/v1/uploads/{upload['id']}").json["received"] == 0
    url = f"/api/v1/uploads/{upload['id']}/parts/0"
    assert "Content-Digest" in publisher.put(url, parts[0], expect=400).json["detail"]
    publisher.put(url, parts[0], headers={"Content-Digest": "md5=:AAAA:"}, expect=400)
    assert "bytes" in put(publisher, upload, 0, parts[0][:-1], expect=400).json["detail"]
    put(publisher, upload, len(parts), parts[0], expect=400)
    put(publisher, upload, 0, parts[0])
    other = bytes(PART)
    assert put(publisher, upload, 0, other, expect=409).slug == "exists"
    refused = [r for r in platform.admin().get("/api/v1/audit?action=upload.part").json["items"]
               if r["outcome"] == "refused"]
    assert any("SHA-256" in r["detail"] and r["target"] == f"upload:{upload['id']}" for r in refused)


def test_lying_about_the_whole_file(platform, publisher, package):
    data = package.read_bytes()
    upload = begin(publisher, data, sha256="00" * 31 + "01")
    for n, part in enumerate(parts_of(data)):
        put(publisher, upload, n, part)
    answer = publisher.post(f"/api/v1/uploads/{upload['id']}/complete", expect=422)
    assert answer.slug == "digest-mismatch"
    publisher.get(f"/api/v1/uploads/{upload['id']}", expect=404)
    assert not list((platform.dir / "uploads").iterdir()) and not list((platform.dir / "blobs").rglob("*.*"))
    assert publisher.get("/api/v1/packages").json["items"] == []


def test_unfit_uploads_are_refused_at_once(publisher):
    for body in ({"size": 0}, {"part_size": PART - 1}, {"part_size": (8 << 20) + 1}, {"size": 1 << 43}, {"sha256": "ab"}):
        publisher.post("/api/v1/uploads", {"size": 10, "sha256": "ab" * 32, "part_size": PART, **body}, expect=400)
    uploads = [begin(publisher, os.urandom(10)) for _ in range(16)]
    assert publisher.post("/api/v1/uploads", {"size": 10, "sha256": "ab" * 32, "part_size": PART}, expect=409).slug == "conflict"
    publisher.delete(f"/api/v1/uploads/{uploads[0]['id']}")
    publisher.delete(f"/api/v1/uploads/{uploads[0]['id']}", expect=404)
    begin(publisher, os.urandom(10))


def test_uploads_belong_to_their_token(platform, publisher, package):
    upload = begin(publisher, package.read_bytes())
    other = platform.role("publisher", "other")
    assert other.get(f"/api/v1/uploads/{upload['id']}", expect=403).slug == "forbidden"
    other.post(f"/api/v1/uploads/{upload['id']}/complete", expect=403)
    platform.admin().get(f"/api/v1/uploads/{upload['id']}")


def test_an_upload_that_expires_leaves_its_row(platform, publisher, package):
    data = package.read_bytes()
    upload, other = begin(publisher, data), begin(publisher, b"x" * PART)
    put(publisher, upload, 0, parts_of(data)[0])
    done = begin(publisher, data)
    for i, part in enumerate(parts_of(data)):
        put(publisher, done, i, part)
    publisher.post(f"/api/v1/uploads/{done['id']}/complete")
    part = platform.dir / "uploads" / f"{upload['id']}.part"
    assert part.exists()
    platform.stop()
    db = sqlite3.connect(platform.dir / "platform.db")
    with db:
        db.execute("UPDATE uploads SET expires_at = 1 WHERE id IN (?, ?)", (upload["id"], done["id"]))
    db.close()
    admin = platform.start().admin()
    rows = tg.wait_for("the row", lambda: admin.get("/api/v1/audit?action=upload.expire").json["items"])
    parts = -(-len(data) // PART)
    assert [(r["target"], r["actor"], r["outcome"]) for r in rows] == [(f"upload:{upload['id']}", "platform", "ok")]
    assert f"1 of {parts} parts had been received" in rows[0]["detail"] and "of token:" in rows[0]["detail"]
    assert not part.exists()
    client = platform.client(publisher.token)
    client.get(f"/api/v1/uploads/{upload['id']}", expect=404)
    client.get(f"/api/v1/uploads/{other['id']}")
    assert admin.get("/api/v1/audit/verify").json["ok"] is True


def test_oversized_part(platform, publisher, package):
    upload = begin(publisher, package.read_bytes())
    big = bytes((8 << 20) + 1)
    client = platform.client(publisher.token)
    try:
        answer = put(client, upload, 0, big, expect=None)
        assert answer.status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up while we were still sending: the body was not taken
    assert publisher.get(f"/api/v1/uploads/{upload['id']}").json["received"] == 0


def refused(publisher, tmp_path, data, slug):
    path = tmp_path / "bad.tgsp"
    path.write_bytes(data)
    answer = tg.upload(publisher, path, expect=None)
    assert answer.status == 422 and answer.slug == slug, answer
    return answer.json["detail"]


def test_strangers_and_broken_packages(platform, publisher, package, stranger, tmp_path):
    foreign = tg.make_package(tmp_path, stranger)
    assert tg.upload(publisher, foreign, expect=422).slug == "publisher-unknown"
    data = package.read_bytes()
    for at in (0, 3, 40, len(data) // 2, len(data) - 20):
        broken = bytearray(data)
        broken[at] ^= 1
        path = tmp_path / f"broken-{at}"
        path.write_bytes(broken)
        answer = tg.upload(publisher, path, expect=422)
        assert answer.slug in ("package-invalid", "publisher-unknown"), answer
    refused(publisher, tmp_path, data[:-1], "package-invalid")
    refused(publisher, tmp_path, data + b"x", "package-invalid")
    refused(publisher, tmp_path, os.urandom(100_000), "package-invalid")
    assert publisher.get("/api/v1/packages").json["items"] == []
    rows = platform.admin().get("/api/v1/audit?action=package.refuse").json["items"]
    assert len(rows) == 9 and all(r["outcome"] == "refused" for r in rows)


def test_publisher_may_be_limited_to_models(platform, author, tmp_path):
    admin = platform.admin()
    made = admin.post("/api/v1/publishers", {"name": "limited", "models": ["eyes"],
                                             "public_key": (author / "signing.pub").read_text()}).json
    assert made["models"] == ["eyes"]
    tg.upload(admin, tg.make_package(tmp_path, author, name="eyes"))
    answer = tg.upload(admin, tg.make_package(tmp_path, author, name="ears"), expect=422)
    assert answer.slug == "publisher-unknown" and "ears" in answer.json["detail"]
    assert admin.post("/api/v1/publishers", {"name": "twice", "public_key": (author / "signing.pub").read_text()},
                      expect=409).slug == "exists"
    assert admin.post("/api/v1/publishers", {"name": "junk", "public_key": "no key"}, expect=400).slug == "bad-request"
    admin.delete(f"/api/v1/publishers/{made['key_id']}")
    assert admin.get("/api/v1/publishers").json["items"] == []
    tg.upload(admin, tg.make_package(tmp_path, author, name="eyes"), expect=422)


def test_cosigned_copy_replaces(platform, publisher, package, stranger, tmp_path):
    first = tg.upload(publisher, package).json
    second_author = platform.admin().post("/api/v1/publishers", {
        "name": "second", "public_key": (stranger / "signing.pub").read_text()}).json
    copy = tmp_path / "copy.tgsp"
    copy.write_bytes(package.read_bytes())
    tg.cli("sign", copy, "--signing-key", stranger / "signing.priv")
    made = tg.upload(publisher, copy).json
    assert made["header_sha256"] == first["header_sha256"] and made["blob_sha256"] != first["blob_sha256"]
    assert set(made["signers"]) == set(first["signers"]) | {second_author["key_id"]}
    assert [f.name for f in (platform.dir / "blobs").rglob("*") if f.is_file()] == [made["blob_sha256"]]
    publisher.get(f"/api/v1/blobs/{first['blob_sha256']}", expect=404)
    # The older copy lacks a signature that the stored one has.
    answer = tg.upload(publisher, package, expect=409)
    assert "second" in answer.json["detail"]
    actions = [r["action"] for r in platform.admin().get(f"/api/v1/audit?package={made['header_sha256']}").json["items"]]
    assert actions == ["package.accept", "package.replace"]


def test_download_by_ranges(publisher, package):
    data = package.read_bytes()
    made = tg.upload(publisher, package).json
    url = f"/api/v1/blobs/{made['blob_sha256']}"
    whole = publisher.get(url)
    assert whole.body == data and whole.headers["Accept-Ranges"] == "bytes"
    etag = whole.headers["ETag"]
    assert etag == f'"{made["blob_sha256"]}"'
    part = publisher.get(url, headers={"Range": "bytes=100-199"}, expect=206)
    assert part.body == data[100:200] and part.headers["Content-Range"] == f"bytes 100-199/{len(data)}"
    assert publisher.get(url, headers={"Range": "bytes=-5"}, expect=206).body == data[-5:]
    assert publisher.get(url, headers={"Range": "bytes=5-", "If-Range": etag}, expect=206).body == data[5:]
    assert publisher.get(url, headers={"Range": "bytes=5-", "If-Range": '"old"'}).body == data
    assert publisher.get(url, headers={"Range": f"bytes={len(data)}-"}, expect=416).headers["Content-Range"] == f"bytes */{len(data)}"
    publisher.get(url, headers={"If-None-Match": etag}, expect=304)
