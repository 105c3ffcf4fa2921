"""``?token=``: who cannot send a key reads one generation, and does nothing else."""

from __future__ import annotations

from typing import Any

KEYS = {"sk-1": "alice", "sk-2": "bob"}
ALICE = {"Authorization": "Bearer sk-1"}
BOB = {"Authorization": "Bearer sk-2"}
ASK = {"model": "scripted", "input": "Hi."}
ORIGIN = {"Origin": "https://page.example"}


def test_a_token_reads_the_events_of_its_generation_and_nothing_else(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys=KEYS)
        async with kit.talking(service, cors_origins=("https://page.example",)) as client:
            ids = []
            for _ in range(2):
                made = await client.post("/v1/responses", json=ASK, headers=ALICE)
                ids.append(made.headers["x-generation-id"])
            one, other = ids
            given = await client.post(f"/v1/generations/{one}/token", headers=ALICE)
            assert given.headers["cache-control"] == "no-store"
            assert set(given.json()) == {"token", "expires_at"}
            token = {"token": given.json()["token"]}
            events = f"/v1/generations/{one}/events"
            stream = f"/v1/responses/resp_{one[4:]}"
            for path, query in ((events, {}), (stream, {"stream": "true"})):
                read = await client.get(path, params=query | token, headers=ORIGIN)
                assert read.status_code == 200
                assert read.headers["access-control-allow-origin"] == "https://page.example"
                known = await client.get(path, params=query, headers=ALICE)
                assert read.content == known.content
                again = await client.get(
                    path, params=query | token, headers=ORIGIN | {"Last-Event-ID": "3"}
                )
                assert read.content.endswith(again.content.split(b"\n", 1)[1])
                seen = await client.get(
                    path, params=query | token, headers=ORIGIN | {"Last-Event-ID": "5"}
                )
                assert seen.status_code == 204
            refused = [
                await client.get(f"/v1/generations/{other}/events", params=token),
                await client.get(events, params={"token": ""}),
                await client.get(events, params={"token": "x"}, headers=ORIGIN),
                await client.get(events),
                await client.get(stream, params=token),
                await client.get(f"/v1/generations/{one}", params=token),
                await client.get(f"{stream}/input_items", params=token),
                await client.delete(stream, params=token),
                await client.post(f"/v1/generations/{one}/cancel", params=token),
                await client.post(f"/v1/generations/{one}/token", params=token),
                await client.get("/v1/models", params=token),
                await client.post("/v1/responses", params=token, json=ASK),
            ]
            for answer in refused:
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
            assert refused[2].headers["access-control-allow-origin"] == "https://page.example"
            keyed = await client.get(events, params=token, headers=BOB)
            assert keyed.status_code == 404, "a key counts more than a token"
            stolen = await client.post(f"/v1/generations/{one}/token", headers=BOB)
            assert stolen.status_code == 404

    kit.run(main())
