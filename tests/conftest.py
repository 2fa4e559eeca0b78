"""What every pytest here shares: the programs' paths and a missing build said plainly."""
import signal

import pytest

import programs


def pytest_sessionstart(session):
    # A run in a shell's background starts with SIGINT ignored, and so would every program under test.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not (programs.BUILD / "build.ninja").exists():
        pytest.exit(f"nothing is built in {programs.BUILD}: run make build, or set TENSORGUARD_BUILD", returncode=2)


@pytest.fixture(scope="session")
def tensorguard():
    return programs.path("tensorguard")


@pytest.fixture(scope="session")
def openssl():
    return programs.openssl()
