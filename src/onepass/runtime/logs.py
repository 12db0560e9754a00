"""Where the control plane's log goes: JSON lines in a file of bounded size, and warnings to the terminal as well."""

import logging
import logging.handlers
import sys
from collections.abc import MutableMapping
from pathlib import Path

import structlog

_SIZE = 16 << 20  # bytes; two older files are kept beside it


def configure(path: Path) -> None:
    """Send structlog to `path` (mode 0600) and, from warnings up, to standard error."""
    path.touch(0o600, exist_ok=True)
    path.chmod(0o600)
    file = logging.handlers.RotatingFileHandler(path, maxBytes=_SIZE, backupCount=2)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    for handler, renderer in ((file, structlog.processors.JSONRenderer()), (terminal, _sentence)):
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                foreign_pre_chain=shared,
            )
        )
    logging.basicConfig(level=logging.INFO, handlers=[file, terminal], force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request at level INFO
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _sentence(_logger: object, _name: str, event: MutableMapping[str, object]) -> str:
    """`onepass: envoy ended (status=1 …)`: what a person reads beside the ready line."""
    message = str(event.pop("event", ""))
    for key in ("timestamp", "logger"):
        event.pop(key, None)
    level = str(event.pop("level", "warning"))
    trace = event.pop("exception", None)
    details = " ".join(f"{key}={value}" for key, value in event.items())
    return f"onepass {level}: {message}" + (f" ({details})" if details else "") + (f"\n{trace}" if trace else "")
