"""Headless Chromium, driven through two pipes: no driver and no library is needed for it."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60  # seconds


def program() -> str:
    """Chromium's path; without one the test is skipped."""
    found = os.environ.get("VLAE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium: `apt-get install chromium`, or name one in VLAE_CHROMIUM")
    return found


class Browser:
    """One tab. problems: what its console and its log say of errors. requests: addresses."""

    def __init__(self, process, to, replies):
        self.process, self.to, self.replies = process, to, replies
        self.number, self.rest, self.problems = 0, b"", []
        self.requests, self.events = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            reply = self.receive(end)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply["error"]
                return reply["result"]

    def receive(self, end):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.replies], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self.replies, 1 << 20)
            assert more, "Chromium has ended"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        said = json.loads(message)
        self.note(said)
        return said

    def note(self, said):
        method, of = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(of["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning"):
            self.problems.append(str(of["args"]))
        elif method == "Log.entryAdded" and of["entry"]["level"] == "error":
            self.problems.append(of["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])
        elif method == "Page.frameNavigated":
            self.events.append(f"begun {of['frame']['loaderId']}")
        elif method == "Page.loadEventFired":
            self.events.append("loaded")

    def open(self, path: Path, address=""):
        """Load a file; returns when everything in it is there."""
        self.go(f"{path.resolve().as_uri()}{address}")

    def go(self, url):
        self.events.clear()
        done = self.call("Page.navigate", url=url)
        if "loaderId" not in done:  # it is open already, at another address
            return
        end = time.monotonic() + PATIENCE
        # What is loaded before it is on its way is the page before.
        while "loaded" not in self.events[self.place_of(done["loaderId"]) :]:
            self.receive(end)

    def place_of(self, loader):
        begun = f"begun {loader}"
        return self.events.index(begun) if begun in self.events else len(self.events)

    def do(self, script):
        """The value of a JavaScript expression; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.do(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)

    def size(self, width, height=900, scheme="light", scripts=True):
        """Width and height in pixels, the colour scheme, and whether scripts run."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)

    def press(self, key, code=0, text=""):
        """Press and release a key, such as Tab or Enter."""
        more = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **event, **(more if kind == "keyDown" else {}))

    def picture(self, path: Path, whole=False):
        """Write a screenshot, of the window or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def browser():
    """A Browser with a profile of its own, which is gone afterwards."""
    command = [
        program(),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
        "--remote-debugging-pipe",
    ]
    commands, to = os.pipe()
    replies, answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def as_three_and_four():
            first, second = os.dup(commands), os.dup(answers)
            os.dup2(first, 3)
            os.dup2(second, 4)

        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            preexec_fn=as_three_and_four,
            pass_fds=(3, 4, commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Browser(process, to, replies)
        finally:
            process.terminate()
            process.wait(PATIENCE)
            os.close(to)
            os.close(replies)
