"""Models from their sealed bakes, beside ONNX Runtime with its default settings on the plain file, on one thread."""
import json
import sys

import measure as m
import programs

BAKE = programs.BUILD / "tests" / "bench" / "bench_bake"
MAKE = programs.ROOT / "tests" / "bench" / "make_model.py"
MODELS = {"resnet18": ("ResNet-18", 12), "vit-b16": ("ViT-B/16", 1.5)}  # runs in a second, about
MIB = 1 << 20


def measure(results, d, args):
    for kind, (name, pace) in MODELS.items():
        model, sealed = d / f"{kind}.onnx", d / f"{kind}.bake"
        m.run(sys.executable, MAKE, kind, model)
        weights = model.stat().st_size
        words = (BAKE, model, sealed, 1, max(10, int(4 * args.seconds * pace)), 1, 3, 224, 224)
        m.run(*words)  # makes the bake
        got = json.loads(m.run(*words).out)
        results.add(f"{name}: load from sealed bake, after decryption", got["load_ms"], "ms", got["plain_load_ms"],
                    "CreateSessionFromArray", mark=("ours", "<=", 25) if kind == "resnet18" else None)
        results.add(f"{name}: decrypt the sealed bake", got["unseal_ms"], "ms")
        results.add(f"{name}: memory once loaded and run", got["memory_kb"] * 1024 / MIB, "MiB", weights / MIB, "the weights",
                    mark=("ratio", "<=", 1.3))
        # the median of the pairs' ratios, not the ratio of the medians
        results.add(f"{name}: inference, paired", got["pair_ratio"], "x", 1.0, "ONNX Runtime, default settings",
                    note={"ours_p50_ms": got["ours_p50_ms"], "plain_p50_ms": got["plain_p50_ms"]}, mark=("ratio", "<=", 1.05))
        model.unlink()
        sealed.unlink()
