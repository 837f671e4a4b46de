"""A Label Studio server for tests: the real one where it is installed, and a stand-in with the same few answers."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import requests

TOKEN = "0123456789abcdef0123456789abcdef01234567"
EMAIL = "ann@example.org"
PROGRAM = os.environ.get("LABEL_STUDIO", "label-studio")
"""The real server's command; set the variable where it is installed in an environment of its own."""


@dataclass
class Server:
    """Where it is, and what people do there."""

    url: str
    token: str = TOKEN

    def call(self, method: str, path: str, **options: Any) -> Any:
        reply = requests.request(
            method, f"{self.url}/api/{path}", headers={"Authorization": f"Token {self.token}"}, timeout=60, **options
        )
        reply.raise_for_status()
        return reply.json() if reply.text else None

    def project(self, interface: str) -> int:
        """A new project with this labelling interface."""
        return int(self.call("POST", "projects/", json={"title": "pool", "label_config": interface})["id"])

    def tasks(self, project: int) -> list[dict[str, Any]]:
        found = self.call("GET", "tasks", params={"project": project, "page_size": 1000, "fields": "all"})
        return list(found["tasks"])

    def annotate(self, task: dict[str, Any], value: dict[str, Any] | None) -> None:
        """Submit an annotation, or skip the task; a second one replaces the first."""
        kind = "number" if value and "number" in value else "choices"
        result = [] if value is None else [{"from_name": "label", "to_name": "it", "type": kind, "value": value}]
        body = {"result": result, "was_cancelled": value is None}
        if task["annotations"]:
            self.call("PATCH", f"annotations/{task['annotations'][0]['id']}/", json=body)
        else:
            self.call("POST", f"tasks/{task['id']}/annotations/", json=body)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def installed() -> bool:
    """Whether there is a real one."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def real(folder: Path) -> Iterator[Server]:
    """The real server on loopback, with one user, and its data in a folder."""
    port = _free_port()
    command = [
        PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir",
        str(folder), "--username", EMAIL, "--password", "long-enough-1", "--user-token", TOKEN,
    ]  # fmt: skip
    environment = {
        **os.environ, "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "",
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Server(f"http://127.0.0.1:{port}")
        for _ in range(600):
            try:
                server.call("GET", "users")
                break
            except requests.RequestException:
                assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)


# ---- the stand-in -----------------------------------------------------------------------------------------------


@dataclass
class _Data:
    projects: dict[int, str] = field(default_factory=dict)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def controls(self, project: int) -> dict[str, Any]:
        found = {}
        for tag in ET.fromstring(self.projects[project]).iter():
            if tag.tag in ("Choices", "Number", "Rating"):
                labels = [choice.attrib["value"] for choice in tag]
                found[tag.attrib["name"]] = {"type": tag.tag, "to_name": [tag.attrib["toName"]], "labels": labels}
        return found

    def annotated(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "id": next(self.numbers), "completed_by": 1, "updated_at": f"{time.time():.6f}"}


class _Handler(BaseHTTPRequestHandler):
    data: _Data

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        try:
            code, answer = self._answer(f"{self.command} {urlparse(self.path).path.rstrip('/')}", body)
        except KeyError:
            code, answer = 404, {"detail": "Not found."}
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _serve

    def _answer(self, asked: str, body: Any) -> tuple[int, Any]:
        data = self.data
        if asked == "POST /api/token/refresh":
            return (200, {"access": TOKEN}) if body["refresh"] == "a.personal.token" else (401, {})
        if self.headers.get("Authorization") not in (f"Token {TOKEN}", f"Bearer {TOKEN}"):
            return 401, {"detail": "Invalid token."}
        number = int((re.findall(r"/(\d+)", asked) or ["0"])[0])
        match re.sub(r"/\d+", "/N", asked):
            case "GET /api/users":
                return 200, [{"id": 1, "email": EMAIL, "username": "ann"}]
            case "POST /api/projects":
                id = next(data.numbers)
                data.projects[id] = body["label_config"]
                return 201, {"id": id}
            case "GET /api/projects/N":
                return 200, {"parsed_label_config": data.controls(number)}
            case "POST /api/projects/N/import":
                for task in body:
                    id = next(data.numbers)
                    data.tasks[id] = {"annotations": [], **task, "id": id, "project": number}
                return 201, {"task_count": len(body)}
            case "GET /api/tasks":
                asked_for = {name: int(values[0]) for name, values in parse_qs(urlparse(self.path).query).items()
                             if values[0].isdecimal()}  # fmt: skip
                found = [task for task in data.tasks.values() if task["project"] == asked_for["project"]]
                start = (asked_for.get("page", 1) - 1) * asked_for["page_size"]
                return 200, {"tasks": found[start : start + asked_for["page_size"]], "total": len(found)}
            case "POST /api/tasks/N/annotations":
                data.tasks[number]["annotations"].append(data.annotated(body))
                return 201, {}
            case "PATCH /api/annotations/N":
                for task in data.tasks.values():
                    task["annotations"] = [
                        {**data.annotated(body), "id": number} if a["id"] == number else a for a in task["annotations"]
                    ]
                return 200, {}
        raise KeyError(asked)


@contextmanager
def stand_in() -> Iterator[Server]:
    """The stand-in, on loopback."""
    handler = type("Handler", (_Handler,), {"data": _Data()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{http.server_port}")
        http.shutdown()
        thread.join()
