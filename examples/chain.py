"""Two workflows in a row: the picture of the first is the input of the second.

Why derived ids: `<order>-1` and `<order>-2` make the whole chain idempotent; a restart submits the same ids again.
Why the picture goes on as it came: base64 or URL, both are inputs that the next prompt understands.
Why no queue between them: the result of the first step is kept by the broker; that is the state of the chain.
"""

import asyncio
import json
import os
import sys

import nats

P = os.environ.get("TOPIC_PREFIX", "comfyui")


def first(color: int) -> dict:
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
    }


def second(picture: str) -> dict:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "second"}},
    }


async def step(stream: nats.js.JetStreamContext, request: str, graph: dict) -> dict:
    await stream.publish(f"{P}.prompt.request", json.dumps({"id": request, "prompt": graph}).encode())
    results = f"{P.replace('.', '_')}-result"
    found = await stream.subscribe(f"{P}.prompt.*.{request}", stream=results, ordered_consumer=True)
    event = json.loads((await found.next_msg(timeout=120)).data)
    await found.unsubscribe()
    if event["type"] == "prompt.failed":
        sys.exit(f"{request}: {event['error']}")
    return event


async def main(order: str) -> None:
    connection = await nats.connect(os.environ.get("BROKER_URL", "nats://127.0.0.1:4222"))
    stream = connection.jetstream()
    drawn = await step(stream, f"{order}-1", first(0x336699))
    inverted = await step(stream, f"{order}-2", second(drawn["images"][0]))
    print(drawn["filenames"][0], "became", inverted["filenames"][0])
    await connection.close()


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "order-1"))
