#!/usr/bin/python3
"""Takes the small subsets in this folder out of published vector files (see README.md for where they come from):

    extract.py ACVP-DIR WYCHEPROOF-DIR

ACVP-DIR holds ml-kem-key-gen.json, ml-kem-encap-decap.json, ml-dsa-key-gen.json, ml-dsa-sig-gen.json and
ml-dsa-sig-ver.json (the "internal projection" files); WYCHEPROOF-DIR is testvectors_v1 of a checkout. Each output is a text of
blocks of `name = hex` lines, an empty line between two; `result` is valid or invalid."""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def load(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def write(name, source, blocks):
    with open(os.path.join(HERE, name), "w", encoding="ascii") as f:
        f.write(f"# {source}\n")
        for block in blocks:
            f.write("\n")
            for key, value in block.items():
                f.write(f"{key} = {str(value).lower()}\n")
    print(name, len(blocks))


def groups(data, parameter_set, **want):
    return [g for g in data["testGroups"] if g["parameterSet"] == parameter_set
            and all(g.get(k) == v for k, v in want.items())]


def acvp(folder):
    src = "NIST ACVP-Server 65370b8, gen-val/json-files; public domain (README.md)"
    kg = groups(load(folder, "ml-kem-key-gen.json"), "ML-KEM-768")[0]["tests"][:5]
    write("acvp_mlkem768_keygen.txt", src, [{"id": t["tcId"], "d": t["d"], "z": t["z"], "ek": t["ek"]} for t in kg])
    ed = load(folder, "ml-kem-encap-decap.json")
    en = groups(ed, "ML-KEM-768", function="encapsulation")[0]["tests"][:5]
    write("acvp_mlkem768_encap.txt", src,
          [{"id": t["tcId"], "ek": t["ek"], "m": t["m"], "c": t["c"], "k": t["k"]} for t in en])
    de = groups(ed, "ML-KEM-768", function="decapsulation")[0]
    write("acvp_mlkem768_decap.txt", src,
          [{"id": t["tcId"], "dk": de["dk"], "c": t["c"], "k": t["k"]} for t in de["tests"][:6]])
    kg = groups(load(folder, "ml-dsa-key-gen.json"), "ML-DSA-65")[0]["tests"][:5]
    write("acvp_mldsa65_keygen.txt", src, [{"id": t["tcId"], "seed": t["seed"], "pk": t["pk"]} for t in kg])
    # The internal interface of that version: the message as given, no context, deterministic.
    sg = groups(load(folder, "ml-dsa-sig-gen.json"), "ML-DSA-65", deterministic=True)[0]["tests"]
    sg = sorted(sg, key=lambda t: len(t["message"]))[:3]
    write("acvp_mldsa65_siggen.txt", src,
          [{"id": t["tcId"], "sk": t["sk"], "message": t["message"], "signature": t["signature"]} for t in sg])
    sv = groups(load(folder, "ml-dsa-sig-ver.json"), "ML-DSA-65")[0]
    write("acvp_mldsa65_sigver.txt", src,
          [{"id": t["tcId"], "pk": sv.get("pk", t.get("pk")), "message": t["message"], "signature": t["signature"],
            "result": "valid" if t["testPassed"] else "invalid"} for t in sv["tests"][:8]])


def pick(data, per_flag, keys, wanted=lambda g, t: True):
    """The first per_flag tests of every (flag, result), with group fields mixed in."""
    seen, blocks = {}, []
    for g in data["testGroups"]:
        for t in g["tests"]:
            if not wanted(g, t):
                continue
            marks = [(f, t["result"]) for f in (t.get("flags") or ["-"])]
            if all(seen.get(m, 0) >= per_flag for m in marks):
                continue
            for m in marks:
                seen[m] = seen.get(m, 0) + 1
            block = {"id": t["tcId"]}
            for key in keys:
                block[key] = t[key] if key in t else g[key]
            block["result"] = t["result"]
            blocks.append(block)
    return blocks


def wycheproof(folder):
    src = "C2SP/wycheproof dac1dd47, testvectors_v1/%s; Apache-2.0 (README.md)"

    def one(out, name, per_flag, keys, wanted=lambda g, t: True):
        write(out, src % name, pick(load(folder, name), per_flag, keys, wanted))

    one("wycheproof_x25519.txt", "x25519_test.json", 6, ["public", "private", "shared"])
    data = load(folder, "ed25519_test.json")
    for g in data["testGroups"]:
        g["pk"] = g["publicKey"]["pk"]
    write("wycheproof_ed25519.txt", src % "ed25519_test.json", pick(data, 6, ["pk", "msg", "sig"]))
    small = lambda g, t: len(t["msg"]) <= 600 and g["keySize"] == 256 and g["ivSize"] == 96 and g["tagSize"] == 128  # noqa: E731
    one("wycheproof_chacha20_poly1305.txt", "chacha20_poly1305_test.json", 8, ["key", "iv", "aad", "msg", "ct", "tag"], small)
    one("wycheproof_aes_256_gcm.txt", "aes_gcm_test.json", 8, ["key", "iv", "aad", "msg", "ct", "tag"], small)
    one("wycheproof_hkdf_sha256.txt", "hkdf_sha256_test.json", 6, ["ikm", "salt", "info", "size", "okm"],
        lambda g, t: t["size"] <= 255)
    one("wycheproof_hmac_sha256.txt", "hmac_sha256_test.json", 6, ["key", "msg", "tag"],
        lambda g, t: g["tagSize"] == 256)
    one("wycheproof_mlkem768.txt", "mlkem_768_test.json", 5, ["seed", "ek", "c", "K"],
        lambda g, t: len(t["c"]) == 2176 and len(t["seed"]) == 128)
    one("wycheproof_mlkem768_encaps.txt", "mlkem_768_encaps_test.json", 4, ["m", "ek", "c", "K"],
        lambda g, t: len(t["ek"]) == 2368)
    one("wycheproof_mldsa65_verify.txt", "mldsa_65_verify_test.json", 1, ["publicKey", "msg", "sig"],
        lambda g, t: len(t["sig"]) == 6618 and "ctx" not in t and len(g["publicKey"]) == 3904)


def main():
    acvp(sys.argv[1])
    wycheproof(sys.argv[2])


if __name__ == "__main__":
    main()
