"""The API of `tests/protocol/api` as a program, to be killed: `python -m tests.programs.apiprogram FOLDER PORT`.

Prints its port once it answers.
"""

import asyncio
import logging
import sys
from pathlib import Path

import structlog
from tests.protocol.api.conftest import serving_api

from onepass.apiserver.ports import Limits


async def main(folder: Path, port: int) -> None:
    # Nobody reads the log, and a full pipe would hold the server up.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with serving_api(folder, Limits(), port) as api:
        print(api.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
