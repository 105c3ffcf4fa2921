"""OpenAI's SDK against a server of a test."""

from __future__ import annotations

from typing import Any

import openai


def talk(kit: Any, service: Any, conversation: Any, *, strict: bool = True) -> None:
    """Have OpenAI's own client hold it with a server of this service. ``strict``: it takes only what it knows."""

    async def main() -> None:
        async with (
            kit.serving(service) as url,
            openai.AsyncOpenAI(
                base_url=f"{url}/v1",
                api_key="sk-x",
                max_retries=0,
                _strict_response_validation=strict,
            ) as client,
        ):
            await conversation(client)

    kit.run(main())
