"""Damaged files."""


def truncate(content: bytes) -> bytes:
    """About the first half of a file, cut so that it is neither valid JSON nor valid TOML."""
    half = content[: len(content) // 2]
    # Half of a TOML file may end with a complete line.
    return half[: half.rfind(b"=") + 1] or half
