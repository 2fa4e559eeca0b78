"""Every mark that was set out to be reached, in one table: the part and the row that shows it, the bound, and what a machine
must have to show it. Whether it has that is asked of the machine, never of the program that is measured: a row that is not
there, or no longer what it was, cannot take its mark along.
"""
import ctypes
import errno
import os
import pathlib
import typing

import programs

CORES = len(os.sched_getaffinity(0))
MEMFD_SECRET = 447  # the system call
AVX512 = {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}
SUITES = (("ChaCha20-Poly1305", 2.5), ("AES-256-GCM", 3.5))
SHAPES = {"resnet18": "ResNet-18", "vit-b16": "ViT-B/16"}
LEVELS = {"locked": 0.5, "secret": 0.8}  # seconds from start to ready


class Mark(typing.NamedTuple):
    part: str
    row: str
    what: str  # "ours", "ratio" or "difference" (ours - alternative)
    relation: str  # "<=" or ">="
    bound: float
    needs: tuple = ()  # keys of here()

    def holds(self, value):
        return value <= self.bound if self.relation == "<=" else value >= self.bound


# ---- sizes that are in the names of rows ----

def stream_mib(args):
    return min(256, args.size)


def tail_mib(args):
    """What is left to do when the last byte has come must not grow with these."""
    return sorted({max(1, args.size >> shift) for shift in (4, 2, 0)})


def chain(args):
    """Width and layers of the large model that an agent starts with, and its MB."""
    width, layers = (640 if args.quick else 2560), 4
    return width, layers, f"{4 * width * width * layers / 1e6:.0f} MB"


# ---- what the machine has ----

def cpu_flags(cpuinfo=pathlib.Path("/proc/cpuinfo")):
    """What every processor here can do."""
    lines = [set(line.split(":", 1)[1].split()) for line in cpuinfo.read_text().splitlines() if line.startswith("flags")]
    return set.intersection(*lines) if lines else set()


def secret_fd():
    """A file of memfd_secret, or None where the kernel has none to give; anything else that goes wrong is told."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(MEMFD_SECRET, 0)
    if fd < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        raise OSError(ctypes.get_errno(), "memfd_secret: " + os.strerror(ctypes.get_errno()))
    return fd if fd >= 0 else None


def no_secret():
    fd = secret_fd()
    if fd is None:
        return "the kernel has no memfd_secret (secretmem.enable=1)"
    os.close(fd)
    return None


def here(args):
    """What marks need: None where it is here, else why it is not."""
    locked = None if programs.protection() == "locked" else "no right to lock that much memory (LimitMEMLOCK)"
    lacks = sorted(AVX512 - cpu_flags())
    return {"avx512": f"no AVX-512 (the processor has no {lacks[0]})" if lacks else None,
            "two": None if CORES >= 2 else "one processor only",
            "age": "age was left out (--without-age)" if args.without_age else None,
            "locked": locked,
            "secret": locked or no_secret()}


def levels():
    """The levels of protection that can be had here beside none."""
    if programs.protection() != "locked":
        return []
    return ["locked"] if no_secret() else ["locked", "secret"]


# ---- the table ----

def container(_):
    for suite, bound in SUITES:
        what = f"verify + decrypt to memory, {suite}"
        yield Mark("container", what, "ratio", ">=", bound, ("avx512", "age"))
        yield Mark("container", f"{what} / limit", "ratio", ">=", 0.85)
        yield Mark("container", f"{what}, 2 cores", "ratio", ">=", 1.8, ("two",))
    yield Mark("container", "chunk digest", "ratio", ">=", 1.7, ("avx512",))


def crypto(_):
    yield Mark("crypto", "hybrid verify", "ours", "<=", 600)


def device(args):
    for way in ("loopback TLS", "TLS through at most 400 Mbit/s"):
        yield Mark("device", f"streamed load, {stream_mib(args)} MiB over {way}: offer to healthy", "ratio", "<=", 1.10)
    for mib in tail_mib(args)[1:]:
        yield Mark("device", f"streamed load, {mib} MiB: last byte to healthy", "ratio", "<=", 1.5)
    yield Mark("device", "agent: idle PSS", "ours", "<=", 12)


def native(_):
    yield Mark("native", "native call, worker sleeping: added p50", "ratio", "<=", 1.3)
    yield Mark("native", "native call, worker spinning: p50", "difference", "<=", 20)
    yield Mark("native", "native call, worker spinning: p99", "difference", "<=", 50)


def protect(args):
    for level, bound in LEVELS.items():
        for shape in SHAPES.values():
            yield Mark("protect", f"inference, protected heap ({level}), {shape}", "ratio", "<=", 1.05, (level,))
        yield Mark("protect", f"agent: start to ready, {chain(args)[2]} model cached ({level})", "ours", "<=", bound, (level,))


def bake(_):
    yield Mark("bake", "ResNet-18: load from sealed bake, after decryption", "ours", "<=", 25)
    for shape in SHAPES.values():
        yield Mark("bake", f"{shape}: memory once loaded and run", "ratio", "<=", 1.3)
        yield Mark("bake", f"{shape}: inference, paired", "ratio", "<=", 1.05)
        for level in LEVELS:
            for threads in sorted({1, CORES}):
                yield Mark("bake", f"{shape}: inference, all of ours ({level}), threads: {threads}", "ratio", "<=", 1.05, (level,))


def every(args):
    """All of them, for a run with these arguments."""
    return [mark for part in (container, crypto, device, native, protect, bake) for mark in part(args)]


def held(marks, rows, parts, failed, have):
    """What became of each mark. rows: by name; parts: which were run; failed: which of them broke; have: as here()."""
    out = []
    for mark in marks:
        lacking = next((have[need] for need in mark.needs if have[need]), None)
        row = rows.get(mark.row)
        value = row[mark.what] if row else None
        if mark.part not in parts:
            state, why = "left out", "this part was not asked for (--only)"
        elif lacking:
            state, why = "not measured here", lacking
        elif value is None:
            state = "unanswered"
            why = f"part '{mark.part}' failed" if mark.part in failed else f"its row has no {mark.what}" if row else "no such row"
        else:
            state, why = "met" if mark.holds(value) else "NOT met", None
        out.append({**mark._asdict(), "needs": list(mark.needs), "state": state, "why": why})
    return out
