"""What a soak does to its commands: signals, too little room or memory, dead stores."""

from __future__ import annotations

import contextlib
import http.server
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

LONGEST = 1500
"""Seconds after which a command counts as hung."""


class Child:
    """One `finetune` command. code: how it ended. peak_mb: the most memory it held. findings: what was wrong."""

    started = 0

    def __init__(
        self,
        words: list[str],
        says: Path,
        *,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        Child.started += 1
        self.words, self.says = words, Path(f"{says}-{Child.started}-{words[0]}.txt")
        self.code: int | None = None
        self.peak_mb = 0
        self.findings: list[str] = []
        self._allowed: tuple[int, ...] | None = (0,)

        def limit() -> None:
            # a shell that starts a soak in the background has it ignored, and children inherit that
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for kind, most in (limits or {}).items():
                resource.setrlimit(kind, (most, most))

        with self.says.open("w") as output:
            output.write(f"$ finetune {' '.join(words)}\n")
            output.flush()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "finetune", *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=says.parent,
                preexec_fn=limit,
            )
        self._begun = time.monotonic()

    def expect(self, *codes: int) -> Child:
        self._allowed = codes
        return self

    def expect_any(self) -> Child:
        """However it ends."""
        self._allowed = None
        return self

    def finds(self, words: str) -> None:
        self.findings.append(f"{self.says.name}: {words}")

    def wait_for(self, file: Path) -> None:
        """Until the file is there, or the command has ended."""
        while not file.exists() and not self._ended():
            time.sleep(0.2)

    def struck(self, after: float, number: int) -> Child:
        """Sent a signal after so many seconds, unless it has ended by then; waits for its end."""
        until = time.monotonic() + after
        while time.monotonic() < until and not self._ended():
            time.sleep(0.1)
        if not self._ended():
            self._process.send_signal(number)
        self.wait()
        return self

    def waited(self) -> Child:
        """Its end, judged by what was expected."""
        self.wait()
        if self._allowed is not None:
            said = self.says.read_text(errors="replace")
            if self.code not in self._allowed:
                last = (said.strip().splitlines() or [""])[-1]
                self.finds(f"ended with {self.code}, expected {self._allowed}: {last[:300]}")
            if "Traceback (most recent call last)" in said:
                self.finds("a traceback")
            self._allowed = None
        return self

    def wait(self) -> None:
        while not self._ended():
            if time.monotonic() - self._begun > LONGEST:
                self.finds(f"hung for {LONGEST} s")
                self._process.send_signal(signal.SIGKILL)
            time.sleep(0.2)

    def _ended(self) -> bool:
        if self.code is None:
            number, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if number:
                self.code = self._process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_mb = usage.ru_maxrss >> 10
        return self.code is not None


@contextlib.contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own in memory (needs root), gone after the block."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Failing(http.server.BaseHTTPRequestHandler):
    """A store whose own disk is full, say: each request is an internal error."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b'{"error_code": "INTERNAL_ERROR", "message": "no space left"}')

    do_GET = do_POST = do_PUT = do_PATCH = answer

    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def dead_store(how: str) -> Iterator[str]:
    """The address of a server that refuses connections, is silent, or fails with error 500."""
    if how == "error 500":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()
        return
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if how == "silent":
            listening.listen(100)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
