"""Run requests again that were given up, once what was in their way is gone (`comfybus dlq replay` does the same).

Why the replay number: the answer of the first life stays; replay 1 gets a terminal event of its own, exactly one.
Why `Nats-Msg-Id`: whoever presses the button twice causes one replay.
Why the letter goes last: a crash in between leaves a letter too many, never a request too few.
"""

import asyncio
import os

import nats
from nats.errors import TimeoutError as NothingMore

P = os.environ.get("TOPIC_PREFIX", "comfyui")
ORIGINAL = "comfybus-original-"


async def main() -> None:
    connection = await nats.connect(os.environ.get("BROKER_URL", "nats://127.0.0.1:4222"))
    stream = connection.jetstream()
    letters = f"{P.replace('.', '_')}-dlq"
    found = await stream.subscribe(f"{P}.prompt.request.dlq", stream=letters, ordered_consumer=True)
    while True:
        try:
            letter = await found.next_msg(timeout=2)
        except NothingMore:
            break
        if "ce-dataref" in letter.headers:
            continue  # its body lies in an object bucket: leave those to `comfybus dlq replay`
        request = letter.headers["comfybus-request-id"]
        number = int(letter.headers.get("comfybus-replay", "0")) + 1
        headers = {name: value for name, value in letter.headers.items() if not name.startswith(("comfybus-", "Nats-"))}
        headers |= {"comfybus-replay": str(number), "Nats-Msg-Id": f"{request}/replay/{number}"}
        if "comfybus-id" in letter.headers:
            headers["comfybus-id"] = request
        await stream.publish(f"{P}.prompt.request", letter.data, headers=headers)
        await stream.delete_msg(letters, letter.metadata.sequence.stream)
        print("replayed", request, "as replay", number, "because of", letter.headers["comfybus-code"])
    await connection.close()


asyncio.run(main())
