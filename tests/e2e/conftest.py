"""Fixtures of the end-to-end tests; the work is in tg.py."""
import pytest

import tg
import tg_agent


def finished_well(platform):
    """It exits 0 (a leak would not), and no sanitizer had anything to say."""
    assert platform.stop() == 0, platform.log_text()
    assert "runtime error" not in platform.log_text(), platform.log_text()


@pytest.fixture
def platform(tmp_path):
    """A running platform of its own."""
    p = tg.Platform(tmp_path / "platform").start()
    yield p
    finished_well(p)


@pytest.fixture(scope="module")
def shared_platform(tmp_path_factory):
    """One for a whole file: for tests that leave nothing behind that others would notice."""
    p = tg.Platform(tmp_path_factory.mktemp("shared") / "platform").start()
    yield p
    finished_well(p)


@pytest.fixture(scope="session")
def author(tmp_path_factory):
    """An author's keys: made once, they are slow to make and never change."""
    return tg.make_author(tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    return tg.make_author(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def world(tmp_path, author):
    w = tg_agent.World(tmp_path, author)
    yield w
    w.stop()


@pytest.fixture
def proxied(world, request):
    """A world, a proxy in front of its devices' listener, and an agent that goes through it, enrolled with the parameter."""
    proxy = tg_agent.Proxy(world.platform.device_url)
    a = world.agent()
    a.server = proxy.url
    a.enrol(*getattr(request, "param", []))
    yield world, proxy, a
    proxy.close()
