"""What a job takes along, and the command it runs."""

from pathlib import Path

import pytest

from cluster.jobs import job_package
from contract.config import Config
from contract.config.loader import load_config
from contract.errors import ClusterError, ConfigError
from contract.host_info import git_commit

ROOT = Path(__file__).parents[3]

COMMANDS = [
    (["trainer", "train"], ["trainer", "train", "settings.toml"]),
    (["trainer", "train", "train.epochs=3"], ["trainer", "train", "settings.toml"]),
    (
        ["tuning", "sweep", "my.toml", "--verbose"],
        ["tuning", "sweep", "settings.toml", "--verbose"],
    ),
    (["trainer", "train", "--verbose"], ["trainer", "train", "settings.toml", "--verbose"]),
    (
        ["trainer", "evaluate", "demo@production", "data.root=s3://b/slices"],
        ["trainer", "evaluate", "demo@production", "data.root=s3://b/slices"],
    ),
]


@pytest.mark.parametrize(("words", "run"), COMMANDS)
def test_the_command_is_as_typed_with_the_settings_that_are_sent(
    words: list[str], run: list[str]
) -> None:
    assert job_package.parse_job_command(Config(), words, "my.toml")[1] == run


@pytest.mark.parametrize("words", ["trainer", "python x.py", "cluster down", "down", "models"])
def test_only_segfleet_commands_are_run(words: str) -> None:
    with pytest.raises(ClusterError, match=f"'{words}' is not a segfleet command .* such as train"):
        job_package.parse_job_command(Config(), words.split(), "my.toml")


def test_a_command_is_required() -> None:
    with pytest.raises(ClusterError, match=r"^no command is given: add one such as -- train\.$"):
        job_package.parse_job_command(Config(), [], "my.toml")


@pytest.mark.parametrize(
    ("typed", "module"),
    [
        ("train", "trainer train settings.toml"),
        ("segfleet sweep my.toml", "tuning sweep settings.toml"),
        ("python -m trainer train", "trainer train settings.toml"),
        ("models promote demo 1 production", "inference promote demo 1 production"),
    ],
)
def test_commands_of_segfleet_are_run_as_modules(typed: str, module: str) -> None:
    words = job_package.parse_job_command(Config(), typed.split(), "my.toml")[1]
    assert words == module.split()


def test_overrides_become_part_of_the_settings_that_are_sent() -> None:
    words = ["trainer", "train", "train.epochs=3", "data.source=folder", "data.root=/slices"]
    sent, _ = job_package.parse_job_command(Config(), words, "my.toml")
    assert (sent.train.epochs, sent.data.root) == (3, "/slices")
    with pytest.raises(ConfigError, match=r"did you mean train\.epochs"):
        job_package.parse_job_command(Config(), ["trainer", "train", "train.epoch=3"], "my.toml")


def test_a_search_space_of_another_network_is_reported_before_it_is_sent() -> None:
    space = {"network.base_kernels": {"choice": [3]}}
    config = Config.model_validate({"network": {"name": "u2_net"}, "sweep": {"space": space}})
    with pytest.raises(ConfigError, match=r"network\.base_kernels is not a setting of u2_net"):
        job_package.parse_job_command(config, ["sweep"], "my.toml")
    assert job_package.parse_job_command(config, ["train"], "my.toml")[0] == config


def test_code_and_settings_are_packed_and_nothing_else(tmp_path: Path) -> None:
    config = Config().with_values({"cluster.address": "http://head:8265", "storage.root": "s3://b"})
    packaged = job_package.build(tmp_path / "job", config)
    top = {path.name for path in packaged.folder.iterdir()}
    assert top == {"contract", "cluster", "trainer", "tuning", "inference", "settings.toml"}
    kinds = {path.suffix for path in packaged.folder.rglob("*") if path.is_file()}
    assert kinds <= {
        ".py",
        ".sh",
        ".txt",
        ".toml",
        ".json",
        ".yaml",
        ".html",
        ".css",
        ".js",
        ".typed",
    }
    assert packaged.size < 5e6
    assert (packaged.folder / "cluster/jobs/supervisor.sh").is_file()
    assert (packaged.folder / "contract/commit.txt").read_text() == git_commit(ROOT)
    sent = load_config(packaged.folder / "settings.toml")
    assert sent.cluster.address is None
    assert sent.storage.root == "s3://b"


def test_a_config_file_is_sent_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "train_eval_infer.config"
    file.write_text(
        "[model]\nnum_layers = 4\n[train]\nepochs = what\n"
        'image_datapath = "s3://b/train/images"\nmask_datapath = "s3://b/train/masks"\n',
        encoding="utf-8",
    )
    words = ["train", str(file), "train.epochs=3", "--lenient"]
    config, command = job_package.parse_job_command(
        load_config(file, ["storage.root=s3://b/runs"], lenient=True), words, str(file)
    )
    assert command == ["trainer", "train", "settings.toml"]
    job_package.check_folders(config, shared=False)
    packaged = job_package.build(tmp_path / "job", config)
    sent = load_config(packaged.folder / "settings.toml")
    assert (sent.train.epochs, sent.network.model_dump()["num_layers"]) == (3, 4)
    assert sent.data.root == "s3://b/train"


def test_folders_of_this_machine_are_rejected_unless_shared() -> None:
    config = Config().with_values({"storage.root": "/home/me/runs"})
    with pytest.raises(ClusterError, match=r"storage\.root = '/home/me/runs' is a folder of this"):
        job_package.check_folders(config, shared=False)
    job_package.check_folders(config, shared=True)
    away = {"storage.root": "s3://b/runs", "data.source": "folder", "data.root": "/slices"}
    with pytest.raises(ClusterError, match=r"data\.root"):
        job_package.check_folders(Config().with_values(away), shared=False)
    network = {"network.name": "efficient_unet", "network.encoder_weights": "/b0.h5"}
    with pytest.raises(
        ClusterError, match=r"encoder_weights = '/b0\.h5' is a file of this machine"
    ):
        job_package.check_folders(
            Config().with_values({"storage.root": "s3://b/runs", **network}), shared=False
        )
    previews = {"storage.root": "s3://b/runs", "train.preview_source": "/slices"}
    with pytest.raises(ClusterError, match=r"preview_source = '/slices' is a folder"):
        job_package.check_folders(Config().with_values(previews), shared=False)
    parent = {"storage.root": "s3://b/runs", "train.start_from": "/runs/demo"}
    with pytest.raises(ClusterError, match=r"start_from = '/runs/demo' is a folder"):
        job_package.check_folders(Config().with_values(parent), shared=False)
    named = {**parent, "train.start_from": "demo@production"}
    job_package.check_folders(Config().with_values(named), shared=False)
    unused = Config().with_values({**previews, "train.preview_images": 0})
    job_package.check_folders(unused, shared=False)


def test_too_much_to_send_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_package, "LIMIT_BYTES", 1000)
    with pytest.raises(ClusterError, match="move data out of them"):
        job_package.build(tmp_path / "job", Config())
