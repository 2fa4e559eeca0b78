"""Every process runs on one libcrypto, and on the one it was built with, whatever its libraries were built with."""
import os
import pathlib
import re
import subprocess

import pytest

import programs

# Loaded into the program, it writes down what is mapped when the program ends.
WITNESS = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((destructor)) static void copy_maps(void)
{
    const char *out = getenv("TENSORGUARD_TEST_MAPS");
    char buf[65536];
    if (out == NULL)
        return;
    int from = open("/proc/self/maps", O_RDONLY), to = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    for (ssize_t n; (n = read(from, buf, sizeof buf)) > 0;)
        if (write(to, buf, (size_t)n) != n)
            _exit(99);
}
"""


def libraries(maps, name):
    """The distinct files called lib<name>.so* that a process's maps show."""
    return {path for path in re.findall(r"(/\S+)$", maps, re.M) if pathlib.Path(path).name.startswith(f"lib{name}.so")}


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    folder = tmp_path_factory.mktemp("witness")
    (folder / "witness.c").write_text(WITNESS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "witness.so", folder / "witness.c"], check=True)
    return folder / "witness.so"


def maps_of(program, witness, out):
    environment = dict(os.environ, LD_PRELOAD=str(witness), TENSORGUARD_TEST_MAPS=str(out),
                       ASAN_OPTIONS="verify_asan_link_order=0")
    subprocess.run([program, "--help"], env=environment, check=True, capture_output=True, timeout=60)
    return out.read_text()


@pytest.mark.parametrize("name", ["tensorguard", "tensorguard-platform", "tensorguard-agent", "tensorguard-moai"])
def test_one_libcrypto(name, witness, tmp_path):
    maps = maps_of(programs.path(name), witness, tmp_path / "maps")
    private = programs.build_options()["openssl_private_libdir"]
    crypto = libraries(maps, "crypto")
    assert len(crypto) == 1, crypto
    assert len(libraries(maps, "ssl")) <= 1
    for library in crypto | libraries(maps, "ssl"):
        assert not private or os.path.samefile(os.path.dirname(library), private), library


def test_a_second_libcrypto_would_be_seen():
    maps = "7f00-7f01 r--p 0 08:01 1  /usr/lib/libcrypto.so.3\n7f02-7f03 r--p 0 08:01 2  /opt/lib/libcrypto.so.3\n"
    assert len(libraries(maps, "crypto")) == 2
