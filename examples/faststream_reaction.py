"""A FastStream application that reacts to every finished prompt, and shares the work with its copies.

Why a durable consumer: results that come while this application is down are delivered when it is back.
Why an acknowledgement after the work: a crash in the middle means that the result is delivered again, not lost.
Why a set of ids: a result may be delivered twice, and its `ce-id` is the same each time.
"""

import os

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage
from nats.js.api import ConsumerConfig

P = os.environ.get("TOPIC_PREFIX", "comfyui")
broker = NatsBroker(os.environ.get("BROKER_URL", "nats://127.0.0.1:4222"))
app = FastStream(broker)
seen: set[str] = set()  # a database table with a unique key, in earnest


@broker.subscriber(
    f"{P}.prompt.complete.*",
    stream=JStream(f"{P.replace('.', '_')}-result", declare=False),
    durable="gallery",
    queue="gallery",
    config=ConsumerConfig(ack_wait=30),
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def on_complete(event: dict, message: NatsMessage) -> None:
    if message.headers["ce-id"] in seen:
        return
    for output in event["outputs"]:
        print("gallery", event["id"], output.get("filename") or output.get("value"), flush=True)
    seen.add(message.headers["ce-id"])


if __name__ == "__main__":
    import asyncio

    asyncio.run(app.run())
