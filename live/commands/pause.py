"""``--pause``: a session enters nothing until a person lets it go on; what it holds goes on."""

from __future__ import annotations

from core.command_line import say
from live.commands.target import Target
from live.store.control_log import ControlLog
from live.store.flags_file import FlagsFile


def pause(target: Target, now_ms: int, *, paused: bool) -> int:
    """Write the decision down, for the session that runs or the next one; return the exit code.

    Raises:
        StateError: the flags file cannot be read or written.
    """
    path = FlagsFile(target.symbol, target.state_folder)
    flags = path.change(paused=paused)
    ControlLog(target.symbol, target.state_folder).append("pause", now_ms, paused=paused)
    said = "paused: nothing is entered" if paused else "entries go on"
    if flags.stopped:
        said += "; but the stop price has ended this session"
    say(f"{target.symbol}, {target.mode_name}: {said} (a session that runs looks at every poll)")
    return 0
