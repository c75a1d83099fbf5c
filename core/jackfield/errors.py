"""Every error that Jackfield raises on purpose, as one tree.

::

    JackfieldError
    +-- ConfigError                an option, a file or a value the user gave: exit status 2
    |   +-- CheckpointError        the model directory is missing, damaged or unknown
    |   +-- EngineStartError       the engine crashes early, however often it is started
    |   +-- PluginError            a chosen plugin cannot be used
    |       +-- UnknownPluginError       no installed plugin has the name
    |       +-- AmbiguousPluginError     two distributions offer the name
    |       +-- IncompatiblePluginError  written for another contract version
    |       +-- BrokenPluginError        its import or its construction failed
    +-- RequestError               one request cannot be served; the others go on
    |   +-- NotFoundError          it names something that does not exist: HTTP 404
    |   +-- OverloadedError        there is no room for it now: HTTP 429
    +-- EngineError                the engine process failed or is gone: HTTP 503
        +-- EngineKilledError          somebody killed it
    +-- ApiError                   a server that a terminal client asked refused or did not answer
    +-- BatchError                 the input or the output of a batch broke off

A message is one sentence for the user: what failed, which value, what to do.
"""

from __future__ import annotations

RAISED = (Exception, SystemExit)
"""What a plugin may raise and must not end the program with."""


class JackfieldError(Exception):
    """Root of the tree; never raised itself."""


class ConfigError(JackfieldError):
    """What the user configured cannot work; the program ends with exit status 2."""


class CheckpointError(ConfigError):
    """The checkpoint is missing, damaged, or of an architecture nobody offers."""


class EngineStartError(ConfigError):
    """The engine crashed early again and again; the message is its last error."""


class PluginError(ConfigError):
    """A chosen plugin cannot be used; the message names kind, name and distribution."""


class UnknownPluginError(PluginError):
    """No installed distribution and no plugin file offers the name."""


class AmbiguousPluginError(PluginError):
    """Two distributions offer the same name of the same kind."""


class IncompatiblePluginError(PluginError):
    """The plugin was written for a contract version that this kernel does not accept."""


class BrokenPluginError(PluginError):
    """Importing or constructing the plugin raised."""


class RequestError(JackfieldError):
    """One request is refused or failed.

    ``param`` is the request field at fault in the client's spelling (None if there is no
    single one); ``status`` the HTTP status; ``code`` OpenAI's machine-readable code.
    """

    status = 400
    code: str | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class NotFoundError(RequestError):
    """The request names a model or an object that does not exist."""

    status = 404


class OverloadedError(RequestError):
    """The waiting queue is full; the client should try again after ``retry_after_seconds``."""

    status = 429
    code = "rate_limit_exceeded"
    retry_after_seconds = 1


class EngineError(JackfieldError):
    """The engine process failed; requests in flight are lost."""


class ApiError(JackfieldError):
    """A server that a terminal client talks to refused, broke off or did not answer."""


class BatchError(JackfieldError):
    """The requests of a batch cannot be fetched, or its answers cannot be written or sent."""


class EngineKilledError(EngineError):
    """The engine process was killed from outside (SIGKILL), and not for being frozen."""
