"""One prompt over Kafka and back, with aiokafka alone.

Why the key: records of one id stay in one partition, which makes a repeated submission harmless.
Why read_committed: a terminal event counts only with the commit that settles its request; others would show doubles.
Why assign and seek before sending: a group would first have to form, and the result may be faster.
"""

import asyncio
import json
import os
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

P = os.environ.get("TOPIC_PREFIX", "comfyui")
SERVERS = os.environ.get("BROKER_URL", "kafka://127.0.0.1:9092").removeprefix("kafka://")
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "example"}},
}


async def main() -> None:
    request = f"order-{uuid.uuid4().hex[:12]}"
    body = json.dumps({"id": request, "prompt": GRAPH, "metadata": {"customer": 7}}).encode()
    outcomes = [f"{P}.prompt.complete", f"{P}.prompt.failed"]
    consumer = AIOKafkaConsumer(*outcomes, bootstrap_servers=SERVERS, isolation_level="read_committed")
    async with consumer, AIOKafkaProducer(bootstrap_servers=SERVERS, enable_idempotence=True) as producer:
        places = [TopicPartition(topic, each) for topic in outcomes for each in consumer.partitions_for_topic(topic)]
        consumer.unsubscribe()
        consumer.assign(places)
        await consumer.seek_to_end()
        for place in places:
            await consumer.position(place)
        await producer.send_and_wait(f"{P}.prompt.request", body, key=request.encode())
        async with asyncio.timeout(120):
            async for record in consumer:
                if record.key == request.encode():
                    break
    event = json.loads(record.value)
    print(event["type"], event["id"], event["metadata"], event.get("filenames") or event.get("error"))


asyncio.run(main())
