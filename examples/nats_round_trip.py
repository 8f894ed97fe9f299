"""One prompt over NATS and back, with nats-py alone.

Why JetStream and not a plain subscription: the result is kept for a week, so a client that was away still finds it.
Why `Nats-Msg-Id`: the server drops a second copy when the first publish was confirmed but its answer got lost.
Why stop at the terminal event: exactly one of complete and failed comes for each id; progress may come after it.
"""

import asyncio
import json
import os
import uuid

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

P = os.environ.get("TOPIC_PREFIX", "comfyui")
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "example"}},
}


async def main() -> None:
    connection = await nats.connect(os.environ.get("BROKER_URL", "nats://127.0.0.1:4222"))
    stream = connection.jetstream()
    request = f"order-{uuid.uuid4().hex[:12]}"
    body = json.dumps({"id": request, "prompt": GRAPH, "metadata": {"customer": 7}}).encode()
    await stream.publish(f"{P}.prompt.request", body, headers={"Nats-Msg-Id": request})

    results = await stream.subscribe(
        f"{P}.prompt.*.{request}",
        stream=f"{P.replace('.', '_')}-result",
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
    )
    message = await results.next_msg(timeout=120)
    event = json.loads(message.data)
    print(event["type"], event["id"], event["metadata"], event.get("filenames") or event.get("error"))
    await connection.close()


asyncio.run(main())
