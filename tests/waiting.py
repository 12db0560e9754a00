"""How tests wait: for what is to hold, and never for a time."""

import time
from collections.abc import Callable


def eventually(holds: Callable[[], object], told: str = "", *, seconds: float = 60.0) -> None:
    """Returns once it holds. Fails with `told` when it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, told or "it did not come to that"
        time.sleep(0.05)
