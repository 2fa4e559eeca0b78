"""Running a command and knowing what it took."""
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time


class Took:
    def __init__(self, wall, cpu, rss, out):
        self.wall, self.cpu, self.rss, self.out = wall, cpu, rss, out  # seconds, seconds, bytes, stdout


class Watch(threading.Thread):
    """Peak resident memory of a process, asked for again and again while it lives. (wait4's figure begins with the memory
    of the process that started it.)"""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0
        self.start()

    def run(self):
        while True:
            try:
                self.peak = max(self.peak, _status(self.pid, "VmHWM"))
            except (OSError, KeyError):  # gone, or about to be
                return
            time.sleep(0.01)


def run(*argv):
    """Run to the end, which must be good."""
    with tempfile.TemporaryFile() as words:  # a pipe that nobody empties would stop it
        start = time.monotonic()
        child = subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=words)
        watch = Watch(child.pid)
        out = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - start
        watch.join()
        child.stdout.close()
        if child.returncode != 0:
            words.seek(0)
            raise RuntimeError(f"{' '.join(map(str, argv))}: exit {child.returncode}\n{words.read().decode(errors='replace')}")
    return Took(wall, usage.ru_utime + usage.ru_stime, watch.peak, out.decode(errors="replace"))


def median(tooks, what="wall"):
    """None of none."""
    return statistics.median(getattr(t, what) for t in tooks) if tooks else None


def _status(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def peak_reset(pid):
    """Let the peak of resident memory start over (proc(5), clear_refs)."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid):
    return _status(pid, "VmHWM")


def resident(pid):
    return _status(pid, "VmRSS")


def pss(pid):
    """Proportional set size: shared pages counted by share."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise KeyError("Pss")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

