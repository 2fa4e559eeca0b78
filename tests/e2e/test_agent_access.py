"""Who gets at a device's sockets."""
import grp
import json
import os
import stat

import pytest

import tg_agent

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to any group")


@pytest.fixture
def world(tmp_path, author):
    w = tg_agent.World(tmp_path, author)
    yield w
    w.stop()


# ---- the sockets' group ----

def other_group():
    return next(g for g in grp.getgrall() if g.gr_gid not in (0, os.getegid()))


@ROOT_ONLY
def test_both_sockets_belong_to_the_group_and_to_nobody_else(world):
    group = other_group()
    a = world.agent().enrol("--socket-group", group.gr_name)
    world.ship(1)
    a.start()
    a.wait_serving("1")
    for path in (a.socket, f"{a.socket}.native"):
        st = os.stat(path)
        assert stat.S_ISSOCK(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o660, path
        assert (st.st_uid, st.st_gid) == (0, group.gr_gid), path
    assert a.serves(1)


def test_without_the_option_it_is_the_agents_own_group(world):
    a = world.agent().enrol().start()
    a.wait_status("online", lambda s: s["online"])
    for path in (a.socket, f"{a.socket}.native"):
        st = os.stat(path)
        assert (stat.S_IMODE(st.st_mode), st.st_gid) == (0o660, os.getegid()), path


def test_an_unknown_group_is_refused_before_the_token_is_spent(world):
    a, token = world.agent(), world.token()
    for name, text in (("no-such-group", "--socket-group: group 'no-such-group': no such group on this machine"),
                       ("g" * 64, "--socket-group: a group's name has at most 63 bytes")):
        done = a.enrol("--socket-group", name, token=token, ok=False)
        assert done.returncode == (3 if "no such" in text else 10) and text in done.stderr, done.stderr
        assert not (a.state / "agent.json").exists()
    a.enrol(token=token)


def test_a_group_that_went_away_is_named_at_the_start(world):
    a = world.agent().enrol()
    settings = json.loads((a.state / "agent.json").read_text())
    settings["socket_group"] = "no-such-group"
    (a.state / "agent.json").write_text(json.dumps(settings))
    done = a.once(ok=False)
    assert done.returncode == 3 and "group 'no-such-group': no such group on this machine" in done.stderr, done.stderr
    assert not a.socket.exists()
