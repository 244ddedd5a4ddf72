"""Names and sentences keep to the vocabulary that CONTRIBUTING.md describes.

The lists hold words that this project once used where Keras, Ray, MLflow or medical imaging have a
standard term. A hit names the file and the line; the remedy is the standard term.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# This file lists the retired words, and the changelog tells users what replaced them.
EXEMPT = {"tests/test_vocabulary.py", "CHANGELOG.md"}

RETIRED_DEFINITIONS = frozenset(
    [
        "Addresses",
        "Advance",
        "Arrays",
        "Board",
        "Buckets",
        "Built",
        "Clock",
        "CommandSource",
        "Counts",
        "Door",
        "Drawing",
        "Draws",
        "Empties",
        "Ends",
        "Epochs",
        "Facts",
        "Finding",
        "FolderStorage",
        "Freeing",
        "GivingUp",
        "Ground",
        "Host",
        "Hosted",
        "Journal",
        "Ledger",
        "LogKeeper",
        "MissingError",
        "ModelFacts",
        "Move",
        "Need",
        "Notes",
        "Past",
        "Place",
        "Plan",
        "RefusalError",
        "ReplicaFacts",
        "Room",
        "Row",
        "Seen",
        "Shelf",
        "Shipment",
        "Spread",
        "Steering",
        "Surroundings",
        "Tail",
        "Tally",
        "Telling",
        "TrainedOn",
        "TrialScheduler",
        "Truth",
        "Watch",
        "agreed",
        "begin",
        "bent",
        "bind",
        "board",
        "called",
        "cargo",
        "carry_out",
        "catch_up",
        "chosen_type",
        "claimed",
        "conclude",
        "connected",
        "crew",
        "dangers",
        "deal",
        "dealt",
        "deciding",
        "dismiss",
        "door",
        "explain",
        "explained",
        "first_grant",
        "found",
        "free_abandoned",
        "freed",
        "gaps",
        "grant",
        "granted",
        "ground",
        "hand_out",
        "hear",
        "heard",
        "hire",
        "hosted",
        "image_within",
        "is_winner",
        "join",
        "journal",
        "judge",
        "judge_patients",
        "judged",
        "lay_side_by_side",
        "ledger",
        "left_behind",
        "lend_token",
        "listing_of",
        "lit",
        "look",
        "make_ground",
        "merged",
        "moment",
        "nearest",
        "not_placed",
        "note_beginning",
        "of",
        "opened",
        "over_workers",
        "paired",
        "patient_of",
        "picture",
        "place",
        "place_value",
        "plain_copy",
        "plainly",
        "quieten",
        "refusal",
        "refuse",
        "serve_yaml",
        "shelf",
        "standing",
        "steering",
        "superseded",
        "surroundings",
        "take",
        "tally",
        "tell",
        "telling",
        "through",
        "tidy",
        "told",
        "trained_on",
        "truth",
        "truths",
        "unwatched",
        "validated",
        "wait_for_the_end",
        "wanted",
        "watch",
        "watcher",
        "winner",
        "winner_name",
        "winner_toml",
    ]
)
RETIRED_PREFIXES = ("refuse_", "judge_", "told_")
RETIRED_SENTENCES = (
    r"\bis no number\b",
    r"(?<!there )\b(?:is|are) no (?:image|picture|key|name|storage|bundle|valid|regular|CIDR)\b",
    r"(?<!there )\b(?:is|are) no (?:instance|Ray)\b",
    r"\bno longer moves\b",
    r"\bto be had\b",
    r"\bin vain\b",
    r"\bfor ever\b",
    r"\banew\b",
    r"\bpassed over\b",
    r"\bheard of\b",
    r"\bat fault\b",
    r"\bat hand\b",
    r"\bhalf[ -]written\b",
    r"\bnobody\b",
    r"\bwho(?:m|ever)\b",
    r"\blearnt\b",
    r"\bmend(?:s|ed|ing)?\b",
    r"\bstands? in\b",
    r"\bwhat is told\b",
    r"\bbeside\b",
    r"\ba room\b|\bthe rooms?\b",
    r"\bledger\b",
    r"\bwhere there (?:is|are)\b",
    r"\bprivate (?:Ray )?clusters?\b",
    r"\bserve\.api_key\b",
    r"\bwinners?\b",
    r"\btuning run\b",
    r"\binference status\b",
    r"--patient-regex\b",
)
# Modules of the standard library that a module of ours would hide from readers.
STANDARD_MODULE_NAMES = frozenset({"http", "inspect", "statistics", "csv", "logging", "queue"})


def tracked_files(*suffixes: str) -> list[Path]:
    """The files under version control that have one of these suffixes."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted(set(listed.stdout.splitlines()) - EXEMPT)
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def definitions(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every class, function, parameter and assigned name of a module, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def is_retired(name: str) -> bool:
    """Whether a definition's name, without leading underscores, is on the list."""
    bare = name.lstrip("_")
    return bare in RETIRED_DEFINITIONS or bare.startswith(RETIRED_PREFIXES)


def test_definitions_have_standard_names() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in tracked_files(".py")
        for line, name in definitions(ast.parse(path.read_text(encoding="utf-8")))
        if is_retired(name)
    ]
    assert hits == []


@pytest.mark.parametrize("pattern", RETIRED_SENTENCES)
def test_sentences_are_plain_english(pattern: str) -> None:
    suffixes = (".py", ".md", ".html", ".js", ".sh", ".toml", ".yaml", "Makefile")
    hits = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:90]}"
        for path in tracked_files(*suffixes)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert hits == []


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    assert {path.stem for path in tracked_files(".py")} & STANDARD_MODULE_NAMES == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("class Ledger: ...", ["Ledger"]),
        ("def refuse_others(): ...", ["refuse_others"]),
        ("def run(board): ...", ["board"]),
        ("self._told = 1", ["_told"]),
        ("store = trial_store", []),
    ],
)
def test_the_check_finds_retired_names(code: str, expected: list[str]) -> None:
    assert [name for _, name in definitions(ast.parse(code)) if is_retired(name)] == expected
