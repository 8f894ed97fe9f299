"""What a bus counts of itself, for metrics.

Used by base, brokers.kafka, brokers.nats; may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BusCounts"]


@dataclass
class BusCounts:
    """Only ever rises while the process lives.

    Attributes:
        reconnects: Connections that were lost and restored.
        lease_extensions: Leases of requests in hand that were renewed. None on Kafka, where the group's heartbeat keeps
            all of them.
    """

    reconnects: int = 0
    lease_extensions: int = 0
