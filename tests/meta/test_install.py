"""make install: programs that run where they are installed, and make uninstall takes away what it put there."""
import os
import subprocess

import programs

NAMES = ["tensorguard", "tensorguard-agent", "tensorguard-moai", "tensorguard-platform"]


def install(*args, **environment):
    return subprocess.run([programs.ROOT / "tools" / "install.sh", *args, programs.BUILD], check=True, text=True,
                          capture_output=True, env=dict(os.environ, **environment)).stdout.splitlines()


def try_library(target, files, folder):
    """The examples of the C library build with nothing but what was installed."""
    (pc,) = [file for file in files if file.endswith("/tensorguard.pc")]
    assert any(file.endswith("man3/libtensorguard.3") for file in files)
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc), PKG_CONFIG_SYSROOT_DIR=str(target))
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "tensorguard"], env=env, check=True, capture_output=True,
                           text=True).stdout.split()
    for example, args in (("control-loop/control_loop.c", ["1"]), ("hand-over/hand_over.c", ["model.onnx"])):
        source, program = programs.ROOT / "examples" / example, folder / "example"
        subprocess.run(["gcc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", source, *flags, "-o", program], check=True)
        done = subprocess.run([program, folder / "nobody.sock", *args], capture_output=True, text=True,
                              env=dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(pc) + "/.."))
        assert done.returncode == 1 and "nobody.sock" in done.stderr
    subprocess.run(["g++", "-x", "c++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", header_only(folder), *flags],
                   check=True)
    (library,) = [file for file in files if file.endswith("libtensorguard.so.0")] or [None]
    names = subprocess.run(["nm", "-D", "--defined-only", "--with-symbol-versions", os.path.realpath(library)], check=True,
                           capture_output=True, text=True).stdout.split("\n")
    names = [line.split()[-1] for line in names if " T " in line]
    assert names and all(name.startswith("tg_") and name.endswith("@@TENSORGUARD_0.1") for name in names)


def header_only(folder):
    path = folder / "cxx.c"
    path.write_text("#include <tensorguard/tensorguard.h>\nint main() { tg_model_close(nullptr); }\n")
    return path


def test_installed_programs_run_on_the_same_libcrypto_and_can_be_removed(tmp_path):
    target = tmp_path / "target"
    (target / "usr").mkdir(parents=True)
    (target / "usr" / "not-ours").write_text("stays")
    files = install(DESTDIR=str(target))
    assert sorted(os.path.basename(file) for file in files if "/bin/" in file) == NAMES
    private = programs.build_options()["openssl_private_libdir"]
    for file in files:
        if "/bin/" not in file:
            continue
        loaded = subprocess.run(["ldd", file], check=True, capture_output=True, text=True).stdout
        assert "not found" not in loaded
        assert "libcrypto.so.3 => " + private in loaded
        assert subprocess.run([file, "--help"], capture_output=True).returncode == 0
    try_library(target, files, tmp_path)
    install("--uninstall")
    assert [p.name for p in target.rglob("*") if p.is_file()] == ["not-ours"]
