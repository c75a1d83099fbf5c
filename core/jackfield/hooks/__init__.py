"""All-of-N plugins: every installed distribution may listen in, in the API process.

Entry-point group ``jackfield.hooks``; the value is a module or an object whose functions are
marked with ``hookimpl`` and named as the methods of ``HookSpecs``. pluggy collects them once,
at the start; afterwards there are plain lists, so that a request pays for what is installed
and nothing else.
"""

from jackfield.hooks.calling import Hooks
from jackfield.hooks.listeners import load_hooks
from jackfield.hooks.specs import HookSpecs, hookimpl

__all__ = ["HookSpecs", "Hooks", "hookimpl", "load_hooks"]
