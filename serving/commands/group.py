"""The commands of the streaming side by name, each loaded, with what it needs, when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FOLDER: Final = "driftline.serving.commands"
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": (f"{_FOLDER}.serve:serve", "Serve embeddings by KServe's protocols, OpenAI's API and CloudEvents."),
    "stream": (f"{_FOLDER}.stream:stream", "Embed texts from one topic onto another, each exactly once."),
    "archive": (
        f"{_FOLDER}.archive:archive",
        "Archive a topic of embeddings into datasets by date and hour, each record once.",
    ),
    "monitor": (f"{_FOLDER}.monitor:monitor", "Watch a stream of embeddings for drift, and raise alarms."),
    "dead-letters": (
        f"{_FOLDER}.dead_letters:dead_letters",
        "Look at what could not be processed, and send it back.",
    ),
}
"""As :class:`driftline.components.command_line.group.LazyGroup` takes them."""
