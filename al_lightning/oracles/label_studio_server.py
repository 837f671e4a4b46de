"""The REST API of a Label Studio server, as far as its oracle needs it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import requests
from requests.adapters import HTTPAdapter, Retry

from al_lightning.errors import ActiveLearningError

TOKEN = "LABEL_STUDIO_API_KEY"
"""Environment variable that holds the access token; nothing else does, so that it reaches no file of a run."""
MARK = "al_lightning"
_SECONDS, _WAIT = 60, 0.5
_PAGE = 500


class LabelStudioError(ActiveLearningError):
    """A server that does not answer, refuses, or has a project that does not fit the pool."""


def project_page(url: str, project: int) -> str:
    """Give the address at which people work."""
    return f"{url.rstrip('/')}/projects/{project}"


class Server:
    """Label Studio's REST API, as far as it is needed."""

    def __init__(self, url: str, project: int) -> None:
        self.url, self.project = url.rstrip("/"), project
        self._session = requests.Session()
        again = Retry(total=4, backoff_factor=_WAIT, status_forcelist=(502, 503, 504), allowed_methods=("GET",))
        self._session.mount(self.url, HTTPAdapter(max_retries=again))
        self._session.headers["Authorization"] = self._authorization()

    @property
    def page(self) -> str:
        """Return where people work."""
        return project_page(self.url, self.project)

    def _authorization(self) -> str:
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise LabelStudioError(f"{self.url}: no access token. Put the one of your account settings into {TOKEN}.")
        if token.count(".") != 2:
            return f"Token {token}"
        # A personal access token is exchanged for one that lives for minutes.
        return f"Bearer {self.call('POST', 'token/refresh', json={'refresh': token})['access']}"

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that ``/api/<path>`` answers; messages of errors hold neither headers nor what was sent."""
        try:
            reply = self._session.request(method, f"{self.url}/api/{path}", timeout=_SECONDS, **options)
        except requests.RequestException as error:
            raise LabelStudioError(
                f"{self.url} does not answer ({type(error).__name__}). Start Label Studio, or correct url=; labels "
                "that were given are safe, and the same command goes on."
            ) from None
        if reply.status_code in (401, 403):
            raise LabelStudioError(
                f"{self.url} refuses the access token in {TOKEN} ({reply.status_code} {reply.reason}). Copy it anew "
                "from the account settings; legacy tokens may be switched off there."
            )
        if reply.status_code == 404:
            raise LabelStudioError(f"{self.page} is not there (404 {reply.reason}): correct url= or project=.")
        try:
            reply.raise_for_status()
            return reply.json()
        except requests.RequestException:
            raise LabelStudioError(
                f"{self.url}/api/{path} answers {reply.status_code} {reply.reason}: {reply.text[:200]!r}."
            ) from None

    @cached_property
    def controls(self) -> dict[str, dict[str, Any]]:
        """Control tags of the labelling interface by name."""
        return dict(self.call("GET", f"projects/{self.project}")["parsed_label_config"])

    @cached_property
    def people(self) -> dict[int, str]:
        """Return who is behind a user's number."""
        return {user["id"]: user["email"] or user["username"] for user in self.call("GET", "users")}

    def tasks(self) -> Iterable[dict[str, Any]]:
        """Every task that this library has made in the project, with its annotations."""
        page, left = 1, 1
        while left > 0:
            found = self.call(
                "GET", "tasks", params={"project": self.project, "page": page, "page_size": _PAGE, "fields": "all"}
            )
            yield from (task for task in found["tasks"] if MARK in (task.get("meta") or {}))
            left = found["total"] - page * _PAGE
            page += 1

    def make(self, tasks: Sequence[dict[str, Any]]) -> None:
        """Make tasks, all of them or none."""
        self.call("POST", f"projects/{self.project}/import", json=list(tasks))
