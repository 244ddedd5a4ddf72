"""State files that commands read back: JSON and TOML in a store, validated when they are read."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from contract.config import Config, validate
from contract.config.loader import parse_toml
from contract.errors import ConfigError, StorageError
from contract.storage import Storage

_T = TypeVar("_T")


def read_json(storage: Storage, key: str, kind: type[_T], remedy: str) -> _T:
    """Read a JSON file as a value of this type.

    Raises StorageError, naming the file, what is wrong with it and the remedy, if it is truncated
    or does not have this type; NotFoundError if it does not exist.
    """
    data = storage.read(key)
    try:
        return TypeAdapter(kind).validate_json(data)
    except ValidationError as error:
        raise StorageError(
            f"{storage.url}/{key} is damaged ({_first_error(error)}): {remedy}."
        ) from error


def read_config(storage: Storage, key: str, remedy: str) -> Config:
    """Read the settings of a run or sweep; raises as read_json does."""
    address = f"{storage.url}/{key}"
    data = storage.read(key)
    # An empty file would be valid, with the default of every setting.
    if not data.strip():
        raise StorageError(f"{address} is damaged (it is empty): {remedy}.")
    try:
        return validate(parse_toml(data.decode(), address), address)
    except UnicodeDecodeError as error:
        raise StorageError(f"{address} is damaged (it is not text): {remedy}.") from error
    except ConfigError as error:
        raise StorageError(f"{str(error).removesuffix('.')}: {remedy}.") from error


def _first_error(error: ValidationError) -> str:
    details: Any = error.errors()[0]
    location = ".".join(map(str, details["loc"]))
    return f"{location}: {details['msg']}" if location else details["msg"]
