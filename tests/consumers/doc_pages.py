"""The commands in README.md and docs/, carried out as they are written.

In a block of ```console, a line that begins with `$ ` is a command (a line behind a `\\` belongs to
it, and so do lines that begin with `> `), and what follows is its output: `…` stands for any text in a
line, a line of `…` alone for any lines. Output that begins with `ckptfs: ` is that of a command that fails. What a page leaves
out as output is not compared.

Blocks of ```bash are for what takes a cluster, a daemon or another machine: their syntax is checked.

A code span in a table of README.md that begins with `ckptfs ` is a command as well. `ckptfs diff` may find
differences.

A page runs in one shell, from /srv/models, in a root directory of its own: an overlay in which it may
write and mount wherever it likes, and which ends with it, as do the processes that it leaves.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = "/srv/models"
SEPARATOR = "\x1e"
ENTER = r"""
set -euo pipefail
scratch=$1 models=$2 repository=$3 script=$4
# Copies of the mounts of other tests, which would not end before the page does.
awk '$3 == "fuse.ckptfs" { print $2 }' /proc/self/mounts | while read -r mountpoint; do
    umount --lazy "$(printf '%b' "$mountpoint")" || true
done
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
# Devices of its own: what is installed may change their modes, also those of /dev/null.
mount -t tmpfs -o mode=755 none "$scratch/root/dev"
cp -a /dev/{null,zero,full,random,urandom,tty,fuse} "$scratch/root/dev/"
mkdir "$scratch/root"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=666 none "$scratch/root/dev/pts"
ln -s pts/ptmx "$scratch/root/dev/ptmx"
ln -s /proc/self/fd "$scratch/root/dev/fd"
mount --rbind /sys "$scratch/root/sys"
mount -t proc proc "$scratch/root/proc"
for directory in "$repository" "$TARGET"; do
    mkdir -p "$scratch/root/$directory"
    mount --bind "$directory" "$scratch/root/$directory"
done
mkdir -p "$scratch/root/srv/models"
mount --bind "$models" "$scratch/root/srv/models"
exec chroot "$scratch/root" bash -c 'cd /srv/models; . <(printf "%s" "$1")' bash "$script"
"""


@dataclass
class Command:
    """One command of a page, with the output that the page shows for it."""

    line: int
    text: str
    output: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        return bool(self.output) and self.output[0].startswith("ckptfs: ")


def in_console_blocks(page: str) -> list[Command]:
    commands: list[Command] = []
    inside = continued = False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            commands.append(Command(number, line[2:]))
            continued = line.endswith("\\")
        elif inside and line.startswith("> ") and not commands[-1].output:
            commands[-1].text += "\n" + line[2:]
        elif inside and continued:
            commands[-1].text += "\n" + line
            continued = line.endswith("\\")
        elif inside and commands:
            commands[-1].output.append(line)
    for command in commands:
        while command.output and not command.output[-1].strip():
            command.output.pop()
    return commands


def blocks(page: str, language: str) -> list[str]:
    """The texts of the blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def in_tables(page: str) -> list[Command]:
    return [
        Command(number, span.replace("\\|", "|"))
        for number, line in enumerate(page.splitlines(), 1)
        if line.startswith("|")
        for span in re.findall(r"`(ckptfs [^`]*)`", line)
    ]


def shown_is(expected: list[str], actual: str) -> bool:
    """Whether the output of a command is what its page shows."""
    lines = [line.rstrip() for line in expected]
    pattern = ""
    for line in lines:
        literal = ".*?".join(re.escape(part) for part in line.split("…"))
        pattern += "(?:.*\n)*?" if line == "…" else f"{literal}\n"
    got = "".join(line.rstrip() + "\n" for line in actual.splitlines())
    return re.fullmatch(pattern, got) is not None


def script_of(commands: list[Command], between: str = "") -> str:
    """A shell script that prints the output and the exit code of each command behind separators."""
    parts = ["exec 2>&1"]
    for command in commands:
        parts += [command.text, f"printf '%s%s%s' '{SEPARATOR}' $? '{SEPARATOR}'", between]
    return "\n".join(parts)


def run(
    commands: list[Command], models: Path, environment: dict, scratch: Path, between=""
) -> list[str]:
    """Runs commands one after the other and compares what they print with what the page says.

    Returns what each printed.
    """
    scratch.mkdir()
    # What a page writes beside them is its own.
    own_models = scratch.with_name("models")
    subprocess.run(["cp", "-al", models, own_models], check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).resolve()
    own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", *own_user, "--mount", "--pid", "--fork", "--kill-child",
         "bash", "-c", ENTER, "enter", scratch, own_models, REPOSITORY, script_of(commands, between)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | environment | {"TARGET": str(target)}, timeout=900,
    )  # fmt: skip
    parts = done.stdout.split(SEPARATOR)
    assert len(parts) == 2 * len(commands) + 1, f"the shell ended early:\n{done.stdout}"
    for command, output, code in zip(commands, parts[::2], parts[1::2]):
        where = f"line {command.line}: {command.text}"
        may_differ = command.text.startswith("ckptfs diff") and code == "1"
        assert (code != "0") == command.fails or may_differ, f"{where}\nexit code {code}:\n{output}"
        expected = "\n".join(command.output)
        assert not command.output or shown_is(command.output, output), (
            f"{where}\nthe page shows:\n{expected}\nit prints:\n{output}"
        )
    return parts[:-1:2]

