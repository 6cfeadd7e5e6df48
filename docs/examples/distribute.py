#!/usr/bin/env python3
"""Writes a view in parts on the machines of a Ray or Dask cluster.

    distribute.py ray --parts 64 -- --base A --fp8 --out s3://bucket/A-FP8
    distribute.py dask --address tcp://scheduler:8786 --parts 64 -- --base A --fp8 --out /shared/A-FP8

What follows -- is for `ckptfs materialize`. All machines have ckptfs, and the same sources and destination
under the same names. A part that a machine did not complete is tried again, by any of them; what is complete
of it stays. Ends with the exit code of ckptfs, and prints what it said.
"""

import argparse
import subprocess
import sys
from functools import partial

TRY_AGAIN = 75  # the exit code of ckptfs for what may work later


class TryAgain(Exception):
    """A part that may work later."""


def write(arguments, share):
    """Runs ckptfs on the machine that this is called on; returns its exit code and what it said."""
    command = ["ckptfs", "materialize", *arguments, "--yes", "--quiet", *share]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode == TRY_AGAIN or done.returncode < 0 or done.returncode > 128:
        raise TryAgain(f"{' '.join(share)}: exit code {done.returncode}: {done.stderr}")
    return done.returncode, done.stderr


def on_ray(given):
    import ray

    ray.init(address=given.address, log_to_driver=False)
    task = ray.remote(write).options(num_cpus=given.cpus, scheduling_strategy="SPREAD",
                                     max_retries=given.retries, retry_exceptions=[TryAgain])
    return task.remote, ray.get


def on_dask(given):
    from distributed import Client

    client = Client(given.address)
    return partial(client.submit, write, retries=given.retries, pure=False), client.gather


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["ray", "dask"])
    parser.add_argument("--address", help="of the cluster; without it, one is started on this machine")
    parser.add_argument("--parts", type=int, required=True)
    parser.add_argument("--retries", type=int, default=5, help="of each part")
    parser.add_argument("--cpus", type=int, default=1, help="processors that a part takes")
    parser.add_argument("arguments", nargs="+", help="those of ckptfs materialize, after --")
    given = parser.parse_args()
    shared = [*given.arguments, "--jobs", str(given.cpus)]
    begin, result = (on_ray if given.engine == "ray" else on_dask)(given)
    parts = [begin(shared, ["--part", f"{i}/{given.parts}"]) for i in range(1, given.parts + 1)]
    failed = [done for done in map(result, parts) if done[0]]
    code, said = failed[0] if failed else result(begin(shared, ["--finish"]))
    sys.stderr.write(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
