"""Fifty prompts at once, and one consumer that collects what becomes of them.

Why the consumer begins before the prompts are sent: nothing has to be looked up afterwards.
Why a set of ids and not a counter: a repeated or foreign event does not end the collection too early.
Why failures are collected like results: every id gets exactly one event, so the loop always ends.
"""

import asyncio
import json
import os
import sys
import uuid

import nats

P = os.environ.get("TOPIC_PREFIX", "comfyui")
COUNT = 50


def graph(number: int) -> dict:
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": number * 1000}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"fan-{number}"}},
    }


async def main(batch: str) -> None:
    connection = await nats.connect(os.environ.get("BROKER_URL", "nats://127.0.0.1:4222"))
    stream = connection.jetstream()
    results = f"{P.replace('.', '_')}-result"
    found = await stream.subscribe(f"{P}.prompt.*.*", stream=results, ordered_consumer=True)
    waiting = {f"{batch}-{number}": number for number in range(COUNT)}
    for request, number in waiting.items():
        body = {"id": request, "prompt": graph(number), "metadata": {"batch": batch}}
        await stream.publish(f"{P}.prompt.request", json.dumps(body).encode())
    complete = failed = 0
    while waiting:
        event = json.loads((await found.next_msg(timeout=120)).data)
        if waiting.pop(event["id"], None) is not None:
            complete += event["type"] == "prompt.complete"
            failed += event["type"] == "prompt.failed"
    print(f"batch {batch}: {complete} complete, {failed} failed")
    await connection.close()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"batch-{uuid.uuid4().hex[:8]}"))
