"""What only a hosted service can do: the names are here, and calling them says what to use instead.

The hosted SDK has a crawler that keeps an index of a web site, and an inference gateway. A library
that runs in your process and meets other devices in a folder or a bucket has no machine to run
them on. Programs that import these names go on working; the first call tells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NoReturn

from moss_local.errors import NotOfferedError
from moss_sync import InvalidArgumentError

CRAWL = "fetch the pages with a crawler of your choice, and add their texts with client.add_docs"
INFER = "call a model with its own client, and give it what client.query found"


def check_pin(artifact_version: str | None, manifest_sha256: str | None) -> None:
    """Refuse the pin of a hosted model's files.

    Raises:
        InvalidArgumentError: only one half of it is given.
        NotOfferedError: both are.
    """
    if artifact_version is None and manifest_sha256 is None:
        return
    if artifact_version is None or manifest_sha256 is None:
        raise InvalidArgumentError("artifact_version and manifest_sha256 are given together")
    raise NotOfferedError(
        "artifact_version names a model's files in the hosted service",
        instead="leave it out: a model's files are checked by their hash, and its vectors by a"
        " fingerprint",
    )


class HostedApi(ABC):
    """The methods of `MossClient` that this library does not offer. Every call raises."""

    @abstractmethod
    def _check_open(self) -> None:
        """Raise if it is closed."""

    async def create_web_source(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("create_web_source", CRAWL)

    async def list_web_sources(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("list_web_sources", CRAWL)

    async def get_web_source(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("get_web_source", CRAWL)

    async def update_web_source(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("update_web_source", CRAWL)

    async def resync_web_source(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("resync_web_source", CRAWL)

    async def delete_web_source(self, *arguments: object, **options: object) -> NoReturn:
        """Raise NotOfferedError: there is no crawler here."""
        self._not_offered("delete_web_source", CRAWL)

    def _not_offered(self, name: str, instead: str) -> NoReturn:
        self._check_open()
        raise NotOfferedError(f"{name} is a service of the hosted SDK", instead=instead)


class ManageApiError(RuntimeError):
    """An HTTP error of the hosted crawler; never raised here.

    Attributes:
        status: Of the answer.
        body: Of the answer.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"HTTP error! status: {status}" + (f": {body}" if body else ""))
        self.status = status
        self.body = body


@dataclass(frozen=True)
class WebSource:
    """A web site that the hosted crawler keeps an index of; never returned here."""

    id: str
    index_name: str
    root_url: str
    max_pages: int
    max_documents: int
    max_depth: int
    respect_robots: bool
    parse_documents: bool
    refresh_cadence: str
    next_refresh_at: str | None
    last_crawled_at: str | None
    last_page_count: int | None
    last_doc_count: int | None
    status: str
    last_error_code: str | None
    include_paths: list[str] | None = None
    exclude_paths: list[str] | None = None
    created_at: str | None = None


@dataclass(frozen=True)
class CreateWebSourceResult(WebSource):
    """What creating one would return."""

    job_id: str = field(kw_only=True)


@dataclass(frozen=True)
class UpdateWebSourceResult(WebSource):
    """What changing one would return."""

    job_id: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ResyncWebSourceResult:
    """What crawling one again would return."""

    id: str
    job_id: str
    status: str | None = None
    index_name: str | None = None


@dataclass(frozen=True)
class DeleteWebSourceResult:
    """What deleting one would return."""

    deleted: bool
    id: str
    purge_job_id: str | None = None


class MossInference:
    """The hosted inference gateway. Making one raises."""

    def __init__(self, *arguments: object, **options: object) -> None:
        raise NotOfferedError("MossInference is a service of the hosted SDK", instead=INFER)
