"""What only a hosted service can do says so, and what to use instead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_local import ManageApiError, MossClient, MossError, MossInference, NotOfferedError
from moss_local.inference import InferenceError
from tests.keys import KEY

SERVICES = ["create", "list", "get", "update", "resync", "delete"]


@pytest.mark.parametrize("verb", SERVICES)
def test_the_crawler_is_not_offered_and_every_call_says_what_to_use(
    verb: str, tmp_path: Path
) -> None:
    async def story() -> None:
        client = MossClient("p", KEY, data_dir=tmp_path)
        name = f"{verb}_web_source{'s' if verb == 'list' else ''}"
        with pytest.raises(NotOfferedError, match="add_docs") as caught:
            await getattr(client, name)("https://example.org", index_name="x")
        assert caught.value.code == "NOT_OFFERED"
        assert name in str(caught.value)
        await client.close()
        with pytest.raises(RuntimeError, match="MossClient is closed"):
            await getattr(client, name)()

    asyncio.run(story())


def test_the_pin_of_a_hosted_model_is_refused_whole_or_half(tmp_path: Path) -> None:
    async def story() -> None:
        async with MossClient("p", KEY, data_dir=tmp_path) as client:
            with pytest.raises(ValueError, match="together"):
                await client.session("s", artifact_version="1")
            with pytest.raises(NotOfferedError):
                await client.session("s", artifact_version="1", manifest_sha256="00")
            assert (await client.local_sessions()).sessions == ()

    asyncio.run(story())


def test_inference_is_not_offered() -> None:
    with pytest.raises(NotOfferedError, match=r"client\.query"):
        MossInference(project_id="p")
    assert issubclass(InferenceError, MossError)


def test_the_error_of_the_hosted_crawler_reads_as_it_does_there() -> None:
    error = ManageApiError(404, "gone")
    assert (str(error), error.status, error.body) == ("HTTP error! status: 404: gone", 404, "gone")
    assert str(ManageApiError(500, "")) == "HTTP error! status: 500"
