"""Who gets at a device's sockets, and a device whose certificate the platform does not take."""
import grp
import json
import os
import re
import sqlite3
import stat
import time

import pytest

import programs
import tg

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to any group")


# ---- a worker's memory ----

@pytest.mark.skipif(programs.sanitized(), reason="a sanitizer maps terabytes: there is no limit")
@pytest.mark.parametrize("options,most", [((), 4096), (("--memory-max", 512), 512)])
def test_a_workers_memory_is_bounded(world, options, most):
    """By its package's size, where nobody says otherwise; not by the machine's memory."""
    a = world.agent().run_first(*options)
    text = open(f"/proc/{a.status()['serving']['pid']}/limits").read()
    mib = int(re.search(r"Max address space +(\d+) ", text)[1]) >> 20
    shared, own = 4096, 256  # src/moai/sandbox.h, protect.h
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert min(most + own, machine) <= mib - shared <= most + own + 600, text  # libraries, stacks, tables


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


# ---- the certificate ----

def own_ca(folder):
    """A CA of somebody else's that calls itself as the platform's does."""
    ca, key = folder / "own-ca.crt", folder / "own-ca.key"
    tg.run(programs.openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
           "-out", ca, "-subj", "/CN=TensorGuard device CA", "-config", "/dev/null")
    return ca, key


def swap_certificate(agent, folder, begin, end):
    """Another key and certificate in the device's folder, for the days from begin to end, from now."""
    at = [time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400)) for days in (begin, end)]
    (agent.state / "device.key").unlink()
    request = folder / "own.csr"
    request.write_text(tg.make_csr(agent.state / "device.key", agent.id))
    (agent.state / "device.key").chmod(0o600)
    ca, key = own_ca(folder)
    tg.run(programs.openssl(), "x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-out", agent.state / "device.crt",
           "-not_before", at[0], "-not_after", at[1])


def expire_on_the_platform(world):
    db = sqlite3.connect(world.platform.dir / "platform.db")
    with db:
        db.execute("UPDATE certificates SET not_after = ?", (int(time.time()) - 1,))
    db.close()


AGAIN = "enroll --again, with a new token"


@pytest.mark.parametrize("how,status,code,words", [
    ("expired", 7, "EXPIRED", ["this device's certificate expired at 20", AGAIN]),
    ("foreign", 5, "AUTH", ["the platform does not take this device's certificate", AGAIN]),
    ("expired for the platform", 7, "EXPIRED", ["has expired: enrol again"]),
])
def test_a_certificate_the_platform_does_not_take(world, tmp_path, how, status, code, words):
    a = world.agent().enrol()
    _, one = world.ship(1)
    a.start()
    world.wait_update(one, a.id, "running")
    a.stop()
    if how == "expired for the platform":
        expire_on_the_platform(world)
    else:
        swap_certificate(a, tmp_path, *((-30, -1) if how == "expired" else (-1, 30)))
    done = a.once(ok=False)
    assert done.returncode == status and all(w in done.stderr for w in words), done.stderr
    seen = a.status()
    assert (seen["platform_code"], seen["online"]) == (code, False) and all(w in seen["platform_reason"] for w in words), seen
    told = tg.run(programs.path("tensorguard-agent"), "status", "--state-dir", a.state).stdout
    assert "offline" in told and all(w in told for w in words), told
    a.start()  # what it has serves on
    a.wait_serving("1")
    assert a.serves(1)
    s = a.wait_status("why it is offline", lambda s: not s["online"] and s.get("platform_code") == code)
    assert all(w in s["platform_reason"] for w in words), s
    a.stop()
    a.enrol("--again")  # what the text says to do
    a.start()
    a.wait_status("online again", lambda s: s["online"] and s["serving"]["state"] == "serving")
