"""What all commands share: options, progress bars, logging, errors and exit codes.

May import every other module of contract. Slow libraries are imported inside a command.
"""
