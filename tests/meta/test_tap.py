"""What cmocka of Debian 12 says about a skipped test is understood; a failed test still fails."""
import subprocess

import pytest

import programs

TAP = programs.ROOT / "tools" / "tap.sh"


@pytest.mark.parametrize("said,heard", [
    ("not ok 2 # SKIP older_threads", "ok 2 - older_threads # SKIP"),
    ("not ok 2 - older_threads", "not ok 2 - older_threads"),
    ("ok 2 # SKIP older_threads", "ok 2 # SKIP older_threads"),
    ("# not ok 2 # SKIP in a comment", "# not ok 2 # SKIP in a comment"),
])
def test_skipped_is_not_failed(said, heard):
    assert subprocess.run([TAP, "echo", said], capture_output=True, text=True, check=True).stdout == heard + "\n"


@pytest.mark.parametrize("script,status", [("exit 0", 0), ("exit 3", 3), ("kill -SEGV $$", 139)])
def test_the_status_is_the_programs(script, status):
    assert subprocess.run([TAP, "bash", "-c", script], capture_output=True).returncode == status
