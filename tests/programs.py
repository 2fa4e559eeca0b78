"""Where the built programs are. tests/ is on Python's path (conftest.py lives here): `import programs`."""
import functools
import json
import os
import pathlib

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
