"""The values of the index API: what is known of an index, of a mutation, and of a job.

Names, field order and defaults are those of the hosted SDK, so that positional calls go on
working. Its enumerations are classes whose members are plain strings; so are these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from moss_local.index_api import IndexApi


@dataclass(slots=True, eq=False)
class ModelRef:
    """An embedding model.

    Attributes:
        version: The fingerprint of its vector space; empty while the index has no vectors.
    """

    id: str
    version: str


@dataclass(slots=True, eq=False)
class IndexInfo:
    """An index as the store tells of it.

    Attributes:
        id: Under which the store knows it; it says nothing of the name.
        version: Rises with every commit.
        status: "Ready"; "Failed" where what is stored cannot be read.
        doc_count: Documents in it now.
        created_at, updated_at: ISO 8601, UTC. The first is of the oldest commit that the store
            still tells of.
    """

    id: str
    name: str
    version: str
    status: str
    doc_count: int
    created_at: str
    updated_at: str
    model: ModelRef


@dataclass(slots=True, eq=False)
class IndexStatus:
    """The states of an index; members are plain strings."""

    value: str

    NotStarted: ClassVar[str] = "NotStarted"
    Building: ClassVar[str] = "Building"
    Ready: ClassVar[str] = "Ready"
    Failed: ClassVar[str] = "Failed"


IndexStatusValues: Mapping[str, str] = {
    name: name for name in ("NotStarted", "Building", "Ready", "Failed")
}
"""Each state under its own name."""


@dataclass(frozen=True, slots=True, eq=False)
class MutationResult:
    """A change of an index that is committed; anything less raises.

    Attributes:
        job_id: As in `PushIndexResult`; `get_job_status` and `wait_for_job` know it.
        doc_count: Documents that this call was about, not the total.
    """

    job_id: str
    index_name: str
    doc_count: int


@dataclass(slots=True, eq=False)
class JobStatus:
    """The states of a job; members are plain strings."""

    value: str

    PENDING_UPLOAD: ClassVar[str] = "pending_upload"
    UPLOADING: ClassVar[str] = "uploading"
    BUILDING: ClassVar[str] = "building"
    COMPLETED: ClassVar[str] = "completed"
    FAILED: ClassVar[str] = "failed"


@dataclass(slots=True, eq=False)
class JobPhase:
    """What a job is doing; members are plain strings."""

    value: str

    DOWNLOADING: ClassVar[str] = "downloading"
    DESERIALIZING: ClassVar[str] = "deserializing"
    GENERATING_EMBEDDINGS: ClassVar[str] = "generating_embeddings"
    BUILDING_INDEX: ClassVar[str] = "building_index"
    UPLOADING: ClassVar[str] = "uploading"
    CLEANUP: ClassVar[str] = "cleanup"
    WAITING_FOR_PARSER: ClassVar[str] = "waiting_for_parser"
    PARSING: ClassVar[str] = "parsing"
    PARSING_COMPLETE: ClassVar[str] = "parsing_complete"
    QUEUED: ClassVar[str] = "queued"


@dataclass(slots=True, eq=False)
class JobProgress:
    """How far a job is.

    Attributes:
        progress: 0.0 to 100.0.
    """

    job_id: str
    status: JobStatus
    progress: float
    current_phase: JobPhase | None = None


@dataclass(slots=True, eq=False)
class JobStatusResponse:
    """All about a job.

    Attributes:
        progress: 0.0 to 100.0.
        error: What went wrong, of a job that failed.
        created_at, updated_at, completed_at: ISO 8601, UTC.
    """

    job_id: str
    status: JobStatus
    progress: float
    current_phase: JobPhase | None = None
    error: str | None = None
    created_at: str = ""
    updated_at: str = ""
    completed_at: str | None = None


class JobHandle:
    """A job under way, as `create_index(..., wait=False)` returns it."""

    def __init__(self, client: IndexApi, job_id: str) -> None:
        self._client = client
        self._job_id = job_id

    def __repr__(self) -> str:
        return f"<JobHandle {self._job_id!r}>"

    @property
    def job_id(self) -> str:
        """Names the job on this client."""
        return self._job_id

    async def status(self) -> JobStatusResponse:
        """Return where the job stands; see `MossClient.get_job_status`."""
        return await self._client.get_job_status(self._job_id)

    async def wait(self) -> JobStatusResponse:
        """Wait for its end; see `MossClient.wait_for_job`."""
        return await self._client.wait_for_job(self._job_id)


@dataclass(slots=True, eq=False)
class LoadIndexesResult:
    """What became of each name.

    Attributes:
        loaded: Names that are loaded now.
        failed: Name to what went wrong.
        failed_codes: Name to the error's code.
    """

    loaded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    failed_codes: dict[str, str] = field(default_factory=dict)
