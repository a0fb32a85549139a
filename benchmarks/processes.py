"""A library in a process of its own, which is asked line by line and answers each in JSON."""

import json
import subprocess


class Peer:
    """What a command starts. Its first line of output is kept as `start`; `ask("step", 5)` writes "step 5"."""

    def __init__(self, name: str, command: list, environment: dict | None = None):
        self.name = name
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.start = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended without an answer; its error is above")
        return json.loads(line)

    def ask(self, what: str, argument: object = 1) -> dict:
        self.process.stdin.write(f"{what} {argument}\n")
        self.process.stdin.flush()
        return self.answer()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()
