"""A store in S3, with boto3, which reads AWS_ENDPOINT_URL and all other AWS settings.

A separate module, so that programs that use only folders do not import boto3.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, final
from uuid import uuid4

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from s3transfer.exceptions import RetriesExceededError

from contract.errors import NotFoundError, StorageError
from contract.storage.interface import ObjectInfo, Storage, validate_key
from contract.storage.local import atomic_path, translate_errors

_CONFIG = Config(
    connect_timeout=5,
    read_timeout=60,
    retries={"mode": "standard", "max_attempts": 3},
    max_pool_connections=32,
)
# Several files are transferred at a time, so a single one needs few concurrent parts.
_TRANSFER = TransferConfig(max_concurrency=4)
_READ_ATTEMPTS = 3
_CREATE_ATTEMPTS = 5

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or run `aws configure`"
)
_REFUSALS = {
    "NoSuchKey": "there is no object {address}",
    "404": "there is no object {address}, or no such bucket",
    "NoSuchBucket": "there is no bucket {bucket} for {address}: create it or correct the address",
    "AccessDenied": "cannot {verb} {address}: these credentials have no permission to; request it",
    "403": "cannot {verb} {address}: these credentials have no permission to; request it",
    "InvalidAccessKeyId": "cannot {verb} {address}: the access key is unknown; {credentials}",
    "SignatureDoesNotMatch": "cannot {verb} {address}: the secret key is wrong; {credentials}",
    "ExpiredToken": "cannot {verb} {address}: the credentials have expired; {credentials}",
}


@final
class S3Storage(Storage):
    """A prefix of an S3 bucket; made by open_s3."""

    num_readers = 32

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        """prefix: "" or whole parts of a key without a slash at either end."""
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = prefix
        self._client = client

    def __reduce__(self) -> tuple[Any, ...]:
        # A client cannot be pickled; the worker creates its own from its own environment.
        return open_s3, (self.url,)

    def read(self, key: str) -> bytes:
        with self._translate_key_errors("read", key) as name:
            return self._get(name)

    def write(self, key: str, data: bytes) -> None:
        with self._translate_key_errors("write", key) as name:
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        token = uuid4().hex
        for attempt in range(_CREATE_ATTEMPTS):
            with self._translate_key_errors("write", key) as name:
                try:
                    self._client.put_object(
                        Bucket=self._bucket,
                        Key=name,
                        Body=data,
                        IfNoneMatch="*",
                        Metadata={"token": token},
                    )
                    return True
                except ClientError as error:
                    if _error_code(error) == "PreconditionFailed":
                        return self._is_ours(name, token)
                    # Another create of this key is in progress; S3 requests a retry.
                    if _error_code(error) != "ConditionalRequestConflict":
                        raise
            time.sleep(0.1 * 2**attempt)
        raise StorageError(
            f"cannot write {self._address(key)}: other processes keep writing it: try again later."
        )

    def exists(self, key: str) -> bool:
        # A listing, because a HEAD cannot distinguish a missing bucket from a missing key.
        with self._translate_key_errors("list", key) as name:
            response = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
            return any(item["Key"] == name for item in response.get("Contents", ()))

    def list_objects(self, prefix: str = "") -> list[ObjectInfo]:
        with self._translate_errors("list", self._address(prefix)):
            objects = [self._object_info(item) for item in self._list(self._name(prefix))]
        return sorted(objects, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        with self._translate_key_errors("delete", key) as name:
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def child(self, prefix: str) -> "S3Storage":
        return S3Storage(self._bucket, self._name(prefix), self._client)

    def upload_file(self, key: str, source: Path) -> None:
        # upload_fileobj instead of upload_file, which hides the cause of an error in a text.
        with (
            self._translate_key_errors("write", key) as name,
            translate_errors("read", source),
            source.open("rb") as stream,
        ):
            self._client.upload_fileobj(stream, self._bucket, name, Config=_TRANSFER)

    def download_file(self, key: str, target: Path) -> None:
        with self._translate_key_errors("read", key) as name, _atomic_stream(target) as stream:
            self._client.download_fileobj(self._bucket, name, stream, Config=_TRANSFER)

    def copy_object(self, key: str, source: Storage, source_key: str) -> None:
        if not isinstance(source, S3Storage):
            super().copy_object(key, source, source_key)
            return
        source_name = source._name(validate_key(source_key))
        origin = {"Bucket": source._bucket, "Key": source_name}
        with self._translate_key_errors("write", key) as name:
            try:
                self._client.copy(origin, self._bucket, name, Config=_TRANSFER)
            except ClientError as error:
                # boto3 requests the size of the source before it copies.
                if error.operation_name == "HeadObject":
                    with source._translate_key_errors("read", source_key):
                        raise
                raise

    def _get(self, name: str) -> bytes:
        for _ in range(_READ_ATTEMPTS - 1):
            body = self._client.get_object(Bucket=self._bucket, Key=name)["Body"]
            # boto3 retries if a request fails, but not if its body ends too early.
            with suppress(HTTPClientError, IncompleteReadError):
                return body.read()
        return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

    def _name(self, key: str) -> str:
        """The key in the bucket for a key (or "") of this store."""
        return "/".join(part for part in (self._prefix, key and validate_key(key)) if part)

    def _address(self, key: str) -> str:
        return f"{self.url}/{key}".rstrip("/")

    def _list(self, name: str) -> Iterator[dict[str, Any]]:
        """The items below a prefix, without the empty objects that consoles show as folders."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=name and f"{name}/"):
            yield from (item for item in page.get("Contents", ()) if item["Key"][-1] != "/")

    def _object_info(self, item: dict[str, Any]) -> ObjectInfo:
        key = item["Key"].removeprefix(self._prefix).removeprefix("/" if self._prefix else "")
        return ObjectInfo(key, item["Size"], item["LastModified"].isoformat())

    def _is_ours(self, name: str, token: str) -> bool:
        """Whether the existing object is our own, put by a request whose response was lost."""
        response = self._client.head_object(Bucket=self._bucket, Key=name)
        return response["Metadata"].get("token") == token

    @contextmanager
    def _translate_key_errors(self, verb: str, key: str) -> Iterator[str]:
        """Yield an object's name in the bucket, and translate errors on it."""
        name = self._name(validate_key(key))
        with self._translate_errors(verb, self._address(key)):
            yield name

    @contextmanager
    def _translate_errors(self, verb: str, address: str) -> Iterator[None]:
        """Translate boto3's errors into one sentence."""
        try:
            yield
        except (BotoCoreError, ClientError, RetriesExceededError) as error:
            text = _sentence(verb, address, self._bucket, error)
            kind = NotFoundError if _error_code(error) in ("NoSuchKey", "404") else StorageError
            raise kind(f"{text}.") from error


@contextmanager
def _atomic_stream(target: Path) -> Iterator[BinaryIO]:
    """A new file, which replaces the target when it is complete."""
    with translate_errors("write", target), atomic_path(target) as partial:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(target)


def open_s3(url: str) -> S3Storage:
    """The store at s3://bucket/prefix; StorageError for a malformed address or bad AWS settings."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{url} does not name a bucket: write s3://bucket/prefix.")
    try:
        client = _client(tuple(sorted(item for item in os.environ.items() if "AWS" in item[0])))
    except (BotoCoreError, ValueError) as error:
        raise StorageError(
            f"cannot use {url}: {_one_line(error)}; correct your AWS settings."
        ) from error
    return S3Storage(bucket, validate_key(prefix) if prefix.strip("/") else "", client)


@lru_cache(maxsize=4)
def _client(settings: tuple[tuple[str, str], ...]) -> Any:
    """A client with these AWS settings; cached, because creating one takes 0.1 s.

    It may be used by several threads.
    """
    session = Session()
    client = session.client("s3", config=_CONFIG)
    if ".amazonaws.com" in client.meta.endpoint_url:
        return client
    # Stores of other vendors rarely have a host name for each bucket.
    by_path = _CONFIG.merge(Config(s3={"addressing_style": "path"}))
    return session.client("s3", config=by_path)


def _sentence(verb: str, address: str, bucket: str, error: Exception) -> str:
    """What went wrong at an address and what to do, without the full stop."""
    if pattern := _REFUSALS.get(_error_code(error)):
        return pattern.format(verb=verb, address=address, bucket=bucket, credentials=_CREDENTIALS)
    if isinstance(
        error, NoCredentialsError | PartialCredentialsError | ProfileNotFound | TokenRetrievalError
    ):
        return f"there are no AWS credentials to {verb} {address}: {_CREDENTIALS}"
    if isinstance(error, HTTPClientError | NoConnectionError):
        return (
            f"cannot reach the store of {address} ({_one_line(error)}): "
            "check the network and AWS_ENDPOINT_URL"
        )
    return f"cannot {verb} {address}: {_one_line(error)}"


def _error_code(error: Any) -> str:
    """S3's code of an error; empty if the error is not from S3."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code", "")
    return ""


def _one_line(error: Exception) -> str:
    """The library's message on one line, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")
