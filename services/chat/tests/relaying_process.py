"""Relays one completion for ever, to be killed: `python relaying_process.py <database> <model server>`."""

import asyncio
import sys
from collections.abc import Mapping

from espalier_chat.asking import read_asked
from espalier_chat.completions import Completions
from espalier_chat.events import publish_completion
from espalier_chat.service import Endpoint
from espalier_chat.settings import ChatSettings
from espalier_chat.upstream import ModelServers
from espalier_common.db import Database, new_id
from espalier_common.identity import Principal


class NoLimits:
    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        return None


async def main(database_url: str, base_url: str) -> None:
    upstream = ModelServers(ChatSettings())
    database = Database(database_url)
    completions = Completions(database, limits=NoLimits(), upstream=upstream, publish=publish_completion)
    writing = asyncio.create_task(completions.run())
    asked = read_asked(b'{"model": "tuned-1", "messages": [{"role": "user", "content": "Hello?"}], "stream": true}')
    ada = Principal("ada", "ada", "user", (), frozenset({"*"}), "own")
    completion = completions.begin(ada, asked, Endpoint(base_url=base_url, model="tuned-1", deployment_id=new_id()))
    async for _ in completion.pipe.read():
        pass
    await writing


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
