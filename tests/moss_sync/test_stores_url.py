"""A store's URL: what each part means, and what a wrong one is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moss_sync import InvalidArgumentError
from moss_sync.stores import FolderStore, MemoryStore, S3Store, open_store


def folder_of(url: str) -> Path:
    store = open_store(url)
    assert isinstance(store, FolderStore)
    return store.root


def test_a_path_and_a_file_url_name_the_same_folder(tmp_path: Path) -> None:
    path = tmp_path / "größe 1#?%20" / "store"
    assert folder_of(str(path)) == path
    assert folder_of(path.as_uri()) == path
    assert folder_of(path.as_uri().replace("file://", "file://localhost")) == path
    store = open_store(str(path))
    assert folder_of(store.url) == path


def test_a_relative_path_is_meant_from_here_and_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("./store")
    monkeypatch.chdir("/")
    assert isinstance(store, FolderStore)
    assert store.root == tmp_path / "store"
    assert folder_of("~/store") == Path.home() / "store"


def test_a_windows_path_is_a_path_and_not_a_scheme() -> None:
    for path in ("C:\\store", "c:/store", "C:store"):
        assert folder_of(path).name in ("C:\\store", "store", "C:store")


def test_every_part_of_an_s3_url_reaches_the_store_and_comes_back() -> None:
    url = "s3://bucket/a/b%20c?endpoint_url=https://host:9000/x&region=eu-1&profile=work"
    store = open_store(url)
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix) == ("bucket", "a/b c/")
    assert store.url == url
    again = open_store(store.url)
    assert isinstance(again, S3Store)
    assert again.url == url
    assert open_store("s3://bucket").url == "s3://bucket"
    assert open_store("s3://bucket/").url == "s3://bucket"


def test_an_escaped_endpoint_is_the_same_endpoint() -> None:
    assert open_store("s3://bkt?endpoint_url=http%3A%2F%2Fhost%3A1").url == (
        "s3://bkt?endpoint_url=http://host:1"
    )


def test_memory_stores_of_one_name_share_their_content() -> None:
    async def main() -> None:
        one, two = open_store("memory://shared-name"), open_store("memory://shared-name")
        other, nameless = open_store("memory://other-name"), MemoryStore()
        await one.put("m/k", b"1")
        await one.close()
        assert [item.key for item in await two.keys("m/")] == ["m/k"]
        assert list(await other.keys("m/")) == []
        assert list(await nameless.keys("m/")) == []
        await two.delete("m/k")

    asyncio.run(main())


def test_a_memory_store_tells_the_time_it_is_given() -> None:
    async def main() -> None:
        assert await MemoryStore(time_ms=lambda: 42).put("k", b"") == 42

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "said", "hint"),
    [
        ("", "is empty", "s3://BUCKET"),
        ("gs://bucket", "'gs://'", "s3://BUCKET/PREFIX"),
        ("https://host/bucket", "'https://'", "s3://BUCKET/PREFIX"),
        ("s3://", "bucket name", "s3://BUCKET"),
        ("s3://a_/x y", "a prefix of 401", ""),
        ("s3://bucket/../x", "is not a prefix", ""),
        ("s3://bucket/a//b", "is not a prefix", ""),
        ("s3://bucket?regoin=x", "'regoin'", "endpoint_url, region, profile"),
        ("s3://bucket?region=", "'region'", ""),
        ("s3://bucket?region=a&region=b", "'region'", ""),
        ("s3://bucket?endpoint_url=host:9000", "endpoint_url='host:9000'", "https://HOST"),
        ("s3://bucket?endpoint_url=ftp://host", "endpoint_url='ftp://host'", "https://HOST"),
        ("s3://bucket?endpoint_url=http://host:99999", "endpoint_url=", "https://HOST"),
        ("s3://bucket/x#y", "'#'", ""),
        ("file:///x?region=y", "'region'", "none"),
        ("file://host/x", "'host'", "three slashes"),
        ("file://", "absolute", ""),
        ("memory://", "needs a name", "memory://NAME"),
        ("memory://x?y=1", "'y'", ""),
        ("a\0b", "NUL", ""),
    ],
)
def test_a_wrong_url_is_told_what_is_wrong(url: str, said: str, hint: str) -> None:
    if said.startswith("a prefix of"):
        url, said = "s3://bucket/" + "x" * 401, "over 400"
    with pytest.raises(InvalidArgumentError) as error:
        open_store(url)
    assert said in str(error.value)
    assert hint in str(error.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:topsecret@bucket/x",
        "s3://bucket?endpoint_url=https://AKIA:topsecret@host",
        "s3://bucket?aws_secret_access_key=topsecret",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        open_store(url)
    assert "topsecret" not in f"{error.value} {error.value.hint} {error.value.detail}"


@pytest.mark.parametrize(
    "url", ["s3://bucket/x?region=\udcff", "memory://\ud800", "~nobody-here/x"]
)
def test_what_no_store_can_be_called_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"surrogate|home directory"):
        open_store(url)
