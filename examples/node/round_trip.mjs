// One prompt over NATS and back from Node.
//
// Why the result is read from the stream: it is kept for a week, so a client that was away still finds it.
// Why `msgID`: the server drops a second copy when the first publish was confirmed but its answer got lost.
// Why `prompt.*.<id>`: one subject filter hears complete and failed, and exactly one of them comes.
import { randomUUID } from "node:crypto";
import { jetstream } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

const prefix = process.env.TOPIC_PREFIX ?? "comfyui";
const connection = await connect({ servers: process.env.BROKER_URL ?? "nats://127.0.0.1:4222" });
const stream = jetstream(connection);

const id = `order-${randomUUID()}`;
const prompt = {
  1: { class_type: "EmptyImage", inputs: { width: 64, height: 64, batch_size: 1, color: 255 } },
  2: { class_type: "SaveImage", inputs: { images: ["1", 0], filename_prefix: "node" } },
};
await stream.publish(`${prefix}.prompt.request`, JSON.stringify({ id, prompt }), { msgID: id });

const results = await stream.consumers.get(`${prefix.replaceAll(".", "_")}-result`, {
  filter_subjects: [`${prefix}.prompt.*.${id}`],
});
const message = await results.next({ expires: 120_000 });
const event = message.json();
console.log(event.type, event.id, event.filenames ?? event.error);
await connection.close();
