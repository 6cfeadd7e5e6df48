"""Has cargo build the extension and the program, and puts both into the wheel.

Both are linked from one build of the library, that which `cargo build --release` makes. Where
CKPTFS_CARGO names another command, such as `cargo zigbuild --target x86_64-unknown-linux-gnu.2.17`, that is used.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version, build_data):
        if version == "editable":
            build_data["artifacts"].append("ckptfs/_native.abi3.so")
            return
        program, extension = build(Path(self.root))
        build_data["pure_python"] = False
        build_data["tag"] = f"cp310-abi3-{platform_tag([program, extension])}"
        build_data["force_include"][str(extension)] = "ckptfs/_native.abi3.so"
        build_data["shared_scripts"][str(program)] = "ckptfs"


def build(root: Path) -> tuple[Path, Path]:
    """The program and the extension."""
    workspaces = root / "workspace", root.parent
    manifest = next(path / "Cargo.toml" for path in workspaces if (path / "Cargo.lock").exists())
    command = shlex.split(os.environ.get("CKPTFS_CARGO", "cargo build"))
    command += ["--release", "--locked", "--package", "ckptfs", "--package", "ckptfs-python", "--lib", "--bins",
                "--message-format", "json-render-diagnostics", "--manifest-path", str(manifest)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    built = [message for message in messages if message["reason"] == "compiler-artifact"]
    [program] = [message["executable"] for message in built if message["executable"]]
    [extension] = [name for message in built if message["target"]["name"] == "ckptfs_native"
                   for name in message["filenames"] if name.endswith(".so")]
    return Path(program), Path(extension)


# What an ELF file says at these places: e_machine.
MACHINES = {62: "x86_64", 183: "aarch64"}


def platform_tag(files: list[Path]) -> str:
    """The oldest platform on which all of `files` run: they name the versions of the C library that they need."""
    contents = [path.read_bytes() for path in files]
    versions = [int(version) for content in contents for version in re.findall(rb"GLIBC_2\.(\d+)", content)]
    [machine] = {MACHINES[int.from_bytes(content[18:20], "little")] for content in contents}
    return f"manylinux_2_{max(versions)}_{machine}"
