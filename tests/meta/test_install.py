"""make install: programs that run where they are installed, and make uninstall takes away what it put there."""
import os
import subprocess

import programs

NAMES = ["tensorguard", "tensorguard-agent", "tensorguard-moai", "tensorguard-platform"]


def install(*args, **environment):
    return subprocess.run([programs.ROOT / "tools" / "install.sh", *args, programs.BUILD], check=True, text=True,
                          capture_output=True, env=dict(os.environ, **environment)).stdout.splitlines()


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
    install("--uninstall")
    assert [p.name for p in target.rglob("*") if p.is_file()] == ["not-ours"]
