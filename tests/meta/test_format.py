"""The C sources are as clang-format 14 writes them (other releases write some things differently)."""
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
    # All in one process, which starts slowly: the replacements it would make, each under its file's name.
    done = subprocess.run([tool, "--dry-run", *FILES], cwd=programs.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, ("clang-format failed; put the table it trips over between // clang-format off and on; "
                                  f"it had come after {done.stderr[-300:]}")
    found = sorted(set(re.findall(r"^(\S+?):\d+:\d+: ", done.stderr, re.M)))
    assert not found, "\n".join(f"{name}: run {pathlib.Path(tool).name} -i" for name in found)


@pytest.mark.skipif(clang_format() is None, reason="needs clang-format 14 (make check brings it)")
def test_a_source_that_is_not_is_found(tmp_path):
    (tmp_path / "a.c").write_text("int  f(void){return 1;}\n")
    done = subprocess.run([clang_format(), "--dry-run", tmp_path / "a.c"], capture_output=True, text=True)
    assert re.findall(r"^(\S+?):\d+:\d+: ", done.stderr, re.M)
