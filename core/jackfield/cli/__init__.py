"""The command line. A command's module is imported when the command is given."""

from jackfield.cli.main import main

__all__ = ["main"]
