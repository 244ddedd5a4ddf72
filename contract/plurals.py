"""Numbers with their noun, for messages."""


def pluralize(count: int, noun: str) -> str:
    """ "1 patient", "2 patients"; noun: in the singular."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
