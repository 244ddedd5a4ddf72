"""State files are read with their type; a damaged one is named with the remedy."""

import re

import pytest
from typing_extensions import TypedDict

from contract.config import Config
from contract.config.loader import to_toml
from contract.errors import NotFoundError, StorageError
from contract.state_files import read_config, read_json
from contract.storage import Storage

BOTH = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)
REMEDY = "delete it"


class Record(TypedDict):
    """The content of a state file."""

    epochs: int
    scores: dict[str, float]


@BOTH
def test_json_is_read_with_its_type(store: Storage) -> None:
    store.write("run/a.json", b'{"epochs": 3, "scores": {"dice": 1}}')
    record = read_json(store, "run/a.json", Record, REMEDY)
    assert record == {"epochs": 3, "scores": {"dice": 1.0}}
    assert isinstance(record["scores"]["dice"], float)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"epochs": 3, "sco', "Invalid JSON: EOF while parsing"),
        (b"", "Invalid JSON: EOF while parsing"),
        (b"\xff\xfe", "Invalid JSON"),
        (b'{"epochs": 3}', "scores: Field required"),
        (b'{"epochs": 3, "scores": {"dice": "high"}}', "scores.dice: Input should be a valid"),
    ],
)
def test_damaged_json_is_named_with_the_remedy(store: Storage, data: bytes, reason: str) -> None:
    store.write("a.json", data)
    expected = rf"^{re.escape(store.url)}/a\.json is damaged \({reason}.*\): delete it\.$"
    with pytest.raises(StorageError, match=expected) as caught:
        read_json(store, "a.json", Record, REMEDY)
    assert not isinstance(caught.value, NotFoundError)


@BOTH
def test_settings_are_read_as_they_were_written(store: Storage) -> None:
    config = Config().with_values({"train.epochs": 3, "run.name": "demo"})
    store.write("config.toml", to_toml(config).encode())
    assert read_config(store, "config.toml", REMEDY) == config


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfe", "is damaged (it is not text)"),
        (b"\n", "is damaged (it is empty)"),
        (b"[train]\nepochs = ", "is not valid TOML"),
        (b"[train]\nepochs = 0", "train.epochs = 0"),
        (b"[train]\nepoch = 3", "there is no setting train.epoch"),
    ],
)
def test_damaged_settings_are_named_with_the_remedy(
    store: Storage, data: bytes, reason: str
) -> None:
    store.write("config.toml", data)
    with pytest.raises(StorageError) as caught:
        read_config(store, "config.toml", REMEDY)
    message = str(caught.value)
    assert message.startswith(f"{store.url}/config.toml")
    assert reason in message
    assert message.endswith(": delete it.")


@BOTH
def test_a_missing_file_is_not_a_damaged_one(store: Storage) -> None:
    with pytest.raises(NotFoundError, match=r"there is no (file|object) .*/a\.json"):
        read_json(store, "a.json", Record, REMEDY)
    with pytest.raises(NotFoundError, match=r"there is no (file|object) .*/config\.toml"):
        read_config(store, "config.toml", REMEDY)
