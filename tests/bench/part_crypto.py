"""The hybrid operations beside their classical half alone and both halves bare (tests/bench/bench_crypto.c)."""
import json

import measure as m
import programs

ROWS = [("sign", "ed25519_sign", "Ed25519", "mldsa65_sign", "ML-DSA-65"),
        ("verify", "ed25519_verify", "Ed25519", "mldsa65_verify", "ML-DSA-65"),
        ("encap", "x25519_encap", "X25519", "mlkem768_encap", "ML-KEM-768"),
        ("decap", "x25519_decap", "X25519", "mlkem768_decap", "ML-KEM-768")]
WORDS = {"sign": "sign", "verify": "verify", "encap": "encapsulate", "decap": "decapsulate"}


def measure(results, d, args):
    us = json.loads(m.run(programs.BUILD / "tests" / "bench" / "bench_crypto", args.seconds * 0.4).out)
    for op, classic, classic_name, pqc, pqc_name in ROWS:
        ours = us["hybrid_" + op]
        results.add(f"hybrid {WORDS[op]}", ours, "us", us[classic], f"{classic_name} alone")
        results.add(f"hybrid {WORDS[op]} / halves", ours, "us", us[classic] + us[pqc], f"{classic_name} + {pqc_name}, bare libcrypto")
