// Receives webhooks of Comfybus: verifies the signature, drops repeats, answers at once.
//
//     npm ci
//     WEBHOOK_SECRET=whsec_... node receiver.mjs 8080
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
// In earnest this belongs into the database in which the results are stored, in the same transaction.
const seen = new Set();

// Do something with it, quickly; leave slow work to a queue of your own.
function take(event) {
  if (event.type === "prompt.failed") {
    console.log(`${event.id} failed: ${event.code}: ${event.error}`);
    return;
  }
  event.images.forEach((image, index) => {
    const size = image.includes("://") ? `at ${image}` : `${Buffer.from(image, "base64").length} bytes`;
    console.log(`${event.id} complete: ${event.filenames[index]} ${size}`);
  });
}

const server = createServer(async (request, response) => {
  const answer = (status, text) => response.writeHead(status).end(text);
  try {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    // Verify the bytes as they came: JSON that is parsed and written again has another signature.
    const event = webhook.verify(Buffer.concat(pieces).toString("utf8"), request.headers);
    const id = request.headers["webhook-id"];
    if (seen.has(id)) return answer(200, "I know that one");
    take(event);
    // Only now: without a 2xx it is sent again.
    seen.add(id);
    answer(200, "thank you");
  } catch (problem) {
    const unsigned = problem instanceof WebhookVerificationError;
    if (!unsigned) console.error(problem);
    answer(unsigned ? 400 : 500, unsigned ? problem.message : "internal error");
  }
});
server.listen(Number(process.argv[2]), "127.0.0.1");
