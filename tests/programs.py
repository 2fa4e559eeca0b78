"""Where the built programs are. tests/ is on Python's path (conftest.py lives here): `import programs`."""
import functools
import json
import os
import pathlib
import re
import resource

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("TENSORGUARD_BUILD", ROOT / "build")).resolve()

_FOLDER = {"tensorguard": "cli", "tensorguard-platform": "platform", "tensorguard-agent": "agent",
           "tensorguard-moai": "moai"}


def path(name):
    """The path of a program that was built, e.g. path("tensorguard-agent")."""
    return str(BUILD / "src" / _FOLDER[name] / name)


@functools.lru_cache(None)
def build_options():
    """Meson's options of the build folder, by name."""
    text = (BUILD / "meson-info" / "intro-buildoptions.json").read_text()
    return {option["name"]: option["value"] for option in json.loads(text)}


def openssl():
    """The openssl >= 3.5 command that belongs to the libcrypto the programs run on."""
    return build_options()["openssl_program"]


def sanitized():
    """True when the programs carry AddressSanitizer (slower, much larger, no seccomp allow-list)."""
    return build_options()["b_sanitize"] != "none"


@functools.lru_cache(None)
def protection():
    """The level of memory that a worker can have here: "locked" as root or without a tight limit, else "any"."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    status = pathlib.Path("/proc/self/status").read_text()
    capable = int(re.search(r"CapEff:\s*([0-9a-f]+)", status)[1], 16) >> 14 & 1
    return "locked" if capable or hard == resource.RLIM_INFINITY or hard >= 1 << 30 else "any"
