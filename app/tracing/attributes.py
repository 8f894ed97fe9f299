"""Names of span attributes: OpenTelemetry's conventions for messaging and HTTP, and our own below ``comfybus``.

Used by prompts, webhooks; may import nothing of ours.

They stand here and are not imported: the conventions' package is an extra, and its names move from release to release.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTEMPT",
    "BODY_SIZE",
    "CLIENT_ID",
    "COMFY_PROMPT",
    "CONVERSATION",
    "DESTINATION",
    "ERROR_TYPE",
    "GROUP",
    "KAFKA_OFFSET",
    "MESSAGE_ID",
    "METHOD",
    "NODE_CLASS",
    "NODE_ID",
    "OPERATION",
    "OPERATION_TYPE",
    "OUTCOME",
    "PARTITION",
    "PORT",
    "REPLAY",
    "RESENDS",
    "SERVER",
    "STATUS",
    "STREAM_SEQUENCE",
    "SYSTEM",
]

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
GROUP: Final = "messaging.consumer.group.name"
CLIENT_ID: Final = "messaging.client.id"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION: Final = "messaging.message.conversation_id"
BODY_SIZE: Final = "messaging.message.body.size"
KAFKA_OFFSET: Final = "messaging.kafka.offset"
ERROR_TYPE: Final = "error.type"
METHOD: Final = "http.request.method"
STATUS: Final = "http.response.status_code"
RESENDS: Final = "http.request.resend_count"
SERVER: Final = "server.address"
PORT: Final = "server.port"
# No convention names these.
STREAM_SEQUENCE: Final = "messaging.nats.stream.sequence"
ATTEMPT: Final = "comfybus.attempt"
REPLAY: Final = "comfybus.replay"
OUTCOME: Final = "comfybus.outcome"
COMFY_PROMPT: Final = "comfybus.comfyui.prompt_id"
NODE_ID: Final = "comfybus.node.id"
NODE_CLASS: Final = "comfybus.node.class_type"
