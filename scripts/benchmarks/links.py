"""A network that is slower than this machine: a namespace at the other end of a link of a given rate."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

NAMESPACE, HERE, THERE = f"ckptfs-{os.getpid()}", f"ck{os.getpid() % 10**8}a", f"ck{os.getpid() % 10**8}b"
# Of the networks that are kept for benchmarks (RFC 2544).
NEAR, FAR = "198.18.213.1", "198.18.213.2"


def missing() -> str | None:
    """Why there can be none."""
    if os.geteuid() != 0:
        return "only root can make a link"
    programs = [program for program in ("ip", "tc") if not shutil.which(program)]
    return f"there is no {programs[0]} (package iproute2)" if programs else None


@contextmanager
def link(megabits: int) -> Iterator[list[str]]:
    """What to put before a command so that it runs at FAR, whose bytes come at that rate."""
    there = ["ip", "-netns", NAMESPACE]
    within = ["ip", "netns", "exec", NAMESPACE]
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE, "netns", NAMESPACE)
        run("ip", "addr", "add", f"{NEAR}/30", "dev", HERE)
        run("ip", "link", "set", HERE, "up")
        run(*there, "addr", "add", f"{FAR}/30", "dev", THERE)
        run(*there, "link", "set", THERE, "up")
        shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "4mb", "latency", "20ms"]
        run(*within, "tc", "qdisc", "add", "dev", THERE, *shape)
        yield within
    finally:
        # At once, where the end of a namespace takes its links later.
        subprocess.run(["ip", "link", "del", HERE], capture_output=True)
        run("ip", "netns", "del", NAMESPACE)


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
