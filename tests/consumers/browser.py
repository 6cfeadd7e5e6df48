"""Drives a headless Chromium over its debugging pipe: no driver, no port, no package."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

NAMES = ["chromium", "chromium-browser", "google-chrome"]
# What a page may tell of itself; all are kept in `Page.events`.
DOMAINS = ["Page", "Runtime", "Log", "Network"]


def executable() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium: install it (scripts/setup --browser) or name it in CHROMIUM"
    return found


class Page:
    """A page that is open. Commands and events are those of the DevTools protocol."""

    def __init__(self, commands, answers):
        self.commands, self.answers = commands, answers
        self.session, self.sent, self.events = None, 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in DOMAINS:
            self.call(f"{domain}.enable")

    def receive(self) -> dict:
        message = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "Chromium ended"
            message += byte
        return json.loads(message)

    def call(self, method: str, **parameters) -> dict:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while (answer := self.receive()).get("id") != self.sent:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, file: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.call("Page.navigate", url=file.as_uri())
        while not self.told("Page.loadEventFired"):
            self.events.append(self.receive())

    def told(self, method: str) -> list[dict]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def value(self, script: str):
        """What the script gives, once it is settled."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def dark(self, is_dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])


@contextmanager
def page():
    """A page of a Chromium that ends with the block."""
    ours, theirs = zip(*(map(out_of_the_way, pair) for pair in (reversed(os.pipe()), os.pipe())))

    def place_descriptors():
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ]
        process = subprocess.Popen(
            [executable(), *flags], pass_fds=(3, 4), preexec_fn=place_descriptors,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for descriptor in theirs:
            os.close(descriptor)
        with os.fdopen(ours[0], "wb") as commands, os.fdopen(ours[1], "rb") as answers:
            try:
                opened = Page(commands, answers)
                yield opened
                opened.session = None
                opened.call("Browser.close")
                process.wait(30)
            finally:
                process.kill()
                process.wait()


def out_of_the_way(descriptor: int) -> int:
    """The same descriptor under a number that no other needs."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved
