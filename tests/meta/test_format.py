"""The C sources are as clang-format 14 writes them (other releases write some things differently)."""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import programs

FILES = sorted(str(p.relative_to(programs.ROOT)) for folder in ("src", "tests") for p in (programs.ROOT / folder).rglob("*.[ch]"))


def clang_format():
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if path and re.search(r"version 14\.", subprocess.run([path, "--version"], capture_output=True, text=True).stdout):
            return path
    return None


@pytest.mark.skipif(clang_format() is None, reason="needs clang-format 14 (make check brings it)")
def test_sources_are_formatted():
    tool = clang_format()

    def differs(name):
        done = subprocess.run([tool, name], cwd=programs.ROOT, capture_output=True)
        if done.returncode:
            return f"{name}: clang-format failed; put the table it trips over between // clang-format off and on"
        return f"{name}: run {pathlib.Path(tool).name} -i" if done.stdout != (programs.ROOT / name).read_bytes() else None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [said for said in pool.map(differs, FILES) if said]
    assert not found, "\n".join(found)
