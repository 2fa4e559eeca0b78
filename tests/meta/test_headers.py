"""Each header compiles alone, under the compiler's warnings."""
import concurrent.futures
import json
import os
import re
import subprocess

import pytest

import programs

SRC = programs.ROOT / "src"
HEADERS = sorted(str(p.relative_to(SRC)) for p in SRC.rglob("*.h"))


def include_flags():
    """Every -I and -isystem of the build, so that whatever a header needs is found."""
    flags = []
    for entry in json.loads((programs.BUILD / "compile_commands.json").read_text()):
        for kind, path in re.findall(r"(-I|-isystem)\s*'?([^ ']+)", entry["command"]):
            path = str((programs.BUILD / path).resolve())
            if [kind, path] not in flags:
                flags.append([kind, path])
    return [word for flag in flags for word in flag]


def compile_alone(text):
    return subprocess.run(
        ["gcc", "-std=c17", "-D_GNU_SOURCE", '-DTG_VERSION="0"', "-Wall", "-Wextra", "-Wpedantic", "-Werror",
         "-fsyntax-only", f"-I{SRC}", *include_flags(), "-x", "c", "-"],
        input=text, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def compiled():
    """Each header's, by all processors. Twice: the include guard is tried too."""
    texts = [f'#include "{h}"\n#include "{h}"\nint main(void) {{ return 0; }}\n' for h in HEADERS]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(HEADERS, pool.map(compile_alone, texts)))


@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone(compiled, header):
    assert compiled[header].returncode == 0, compiled[header].stderr


def test_a_header_that_leans_on_another_is_found():
    assert compile_alone("struct tg_bytes f(uint8_t x);\n").returncode != 0
