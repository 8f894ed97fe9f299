"""Receives webhooks of Comfybus: verifies the signature, drops repeats, answers at once."""
# pip install standardwebhooks
# WEBHOOK_SECRET=whsec_... python receiver.py 8080

from __future__ import annotations

import base64
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
# In earnest this belongs into the database in which the results are stored, in the same transaction.
seen: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    """One request is one event."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Verify the bytes as they came: JSON that is parsed and written again has another signature."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError as problem:
            self.answer(400, str(problem))
            return
        webhook_id = self.headers["webhook-id"]
        if webhook_id in seen:
            self.answer(200, "I know that one")
            return
        self.take(event)
        # Only now: without a 2xx it is sent again.
        seen.add(webhook_id)
        self.answer(200, "thank you")

    def take(self, event: dict) -> None:
        """Do something with it, quickly; leave slow work to a queue of your own."""
        if event["type"] == "prompt.failed":
            print(f"{event['id']} failed: {event['code']}: {event['error']}", flush=True)
            return
        for filename, image in zip(event["filenames"], event["images"], strict=True):
            size = "at " + image if "://" in image else f"{len(base64.b64decode(image))} bytes"
            print(f"{event['id']} complete: {filename} {size}", flush=True)

    def answer(self, status: int, text: str) -> None:
        """Say how it went; the text is for the log of the bridge."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Only what `take` prints."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
