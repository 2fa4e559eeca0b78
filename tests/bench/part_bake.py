"""Models from their sealed bakes, beside ONNX Runtime with its default settings on the plain file."""
import json
import statistics
import sys

import marks
import measure as m
import part_protect
import programs

BAKE = programs.BUILD / "tests" / "bench" / "bench_bake"
MAKE = programs.ROOT / "tests" / "bench" / "make_model.py"
PACE = {"resnet18": 12, "vit-b16": 1.5}  # runs in a second, about
MIB = 1 << 20
PAIRS = 5
SHAPE = (1, 3, 224, 224)


def whole(results, name, files, threads, count, pairs_n):
    """Everything of ours beside nothing of ours: the bake in the protected heap, and a process with the C library's malloc that
    runs the plain file with default settings (its threads spin where ours sleep). By turns; the median pair counts."""
    model, sealed = files
    for level in marks.levels():
        pairs = []
        for _ in range(pairs_n):
            plain = json.loads(m.run(part_protect.BENCH / "bench_heap_plain", model, threads, count, "input", "logits", *SHAPE).out)
            ours = json.loads(m.run(BAKE, "--alone", model, sealed, threads, count, *SHAPE, f"--protection={level}").out)
            assert plain["level"] == "plain" and ours["level"] == level
            pairs.append((ours["p50_ms"] / plain["p50_ms"], ours["p50_ms"], plain["p50_ms"]))
        _, ours_ms, plain_ms = sorted(pairs)[pairs_n // 2]
        results.add(f"{name}: inference, all of ours ({level}), threads: {threads}", ours_ms, "ms", plain_ms,
                    "ONNX Runtime, default settings, in a process without ours")


def measure(results, d, args):
    pairs_n, least = (1, (2, 1)) if args.quick else (PAIRS, (10, 5))
    for kind, name in marks.SHAPES.items():
        model, sealed, pace = d / f"{kind}.onnx", d / f"{kind}.bake", PACE[kind]
        m.run(sys.executable, MAKE, kind, model, *["--small"] * args.quick)
        weights = model.stat().st_size
        words = (BAKE, model, sealed, 1, max(least[0], int(4 * args.seconds * pace)), *SHAPE)
        m.run(*words)  # makes the bake
        got = json.loads(m.run(*words).out)
        first = [json.loads(m.run(BAKE, "--alone", model, sealed, marks.CORES, 1, *SHAPE).out) for _ in range(pairs_n)]
        results.add(f"{name}: load from sealed bake, after decryption", statistics.median(f["load_ms"] for f in first), "ms",
                    got["plain_load_ms"], "CreateSessionFromArray", {"again_ms": got["again_ms"]})
        results.add(f"{name}: decrypt the sealed bake", statistics.median(f["unseal_ms"] for f in first), "ms")
        results.add(f"{name}: memory once loaded and run", got["memory_kb"] * 1024 / MIB, "MiB", weights / MIB, "the weights")
        # the median of the pairs' ratios, not the ratio of the medians
        results.add(f"{name}: inference, paired", got["pair_ratio"], "x", 1.0, "ONNX Runtime, default settings",
                    note={"ours_p50_ms": got["ours_p50_ms"], "plain_p50_ms": got["plain_p50_ms"]})
        for threads in sorted({1, marks.CORES}):
            whole(results, name, (model, sealed), threads, max(least[1], int(args.seconds * pace)), pairs_n)
        model.unlink()
        sealed.unlink()
