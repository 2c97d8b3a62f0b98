"""What can go wrong, by what a trainer can do about it."""

from __future__ import annotations

from typing import Any, Mapping, Optional


class BridgeError(Exception):
    """Any failure of the bridge.  What is missing in a call of one's own is a KeyError, ValueError or TypeError."""


class ProtocolError(BridgeError):
    """The run sent what PROTOCOL.md does not allow, or is not the run that was meant."""


class ConnectionLost(ProtocolError, ConnectionError):
    """The connection broke, and coming back failed for `reconnect_seconds`.  Nothing is lost: what was not
    acknowledged is delivered again to the next client that pulls."""


class BatchRestarted(BridgeError):
    """The connection broke while the pieces of a step came (Client.steps): forget them, they come again."""


class RunError(ProtocolError):
    """The run refused something and said why."""

    code: str                #: one of PROTOCOL.md's: missing, incomplete, invalid, too_big, unsupported, auth, ...
    may_retry: bool          #: the same request can succeed later
    fatal: bool              #: the run has closed the connection
    about: Optional[str]     #: type of the frame that was refused
    version: Optional[int]   #: where a push was refused

    def __init__(self, frame: Mapping[str, Any]):
        super().__init__(f"the run refused: {frame.get('text')} ({frame.get('code')})")
        self.code = str(frame.get("code", "internal"))
        self.may_retry = bool(frame.get("may_retry"))
        self.fatal = bool(frame.get("fatal"))
        self.about = frame.get("about")
        self.version = frame.get("version")
