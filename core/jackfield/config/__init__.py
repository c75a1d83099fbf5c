"""Every option, once; where it comes from; and the resolved plan.

``jackfield.config.settings`` and ``command_line`` import pydantic; this package itself and
``plan`` do not, so that the engine process and ``--version`` need not pay for it.
"""
