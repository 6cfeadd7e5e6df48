"""A process with torch and safetensors that does what it is told (see `torch_worker`, `loader_worker`)."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


class Torch:
    def __init__(self, python: Path, worker: str = "torch_worker.py", environment: Mapping[str, str] = os.environ):
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Threads that wait must not spin where other processes want the cores.
            env=dict(environment) | {"OMP_WAIT_POLICY": "passive"},
            start_new_session=True,  # an interrupt is ours to handle
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def __call__(self, function: str, **arguments) -> float:
        """What the function of the worker gives: seconds, mostly."""
        call = {"function": function, "arguments": arguments}
        print(json.dumps(call, default=str), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"torch: {function} ended the process")
        result = json.loads(answer)
        if "error" in result:
            raise RuntimeError(f"torch: {function}: {result['error']}")
        return result["value"]
