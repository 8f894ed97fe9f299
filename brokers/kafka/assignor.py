"""Who gets which partition: as few of them move as can be.

Used by membership; may import its folder alone.
"""

from __future__ import annotations

from brokers.kafka.library import AIOKafkaConsumer, StickyPartitionAssignor

__all__ = ["StickyAssignor", "own_sticky_assignor", "set_generation"]

StickyAssignor = type[StickyPartitionAssignor]


def own_sticky_assignor() -> StickyAssignor:
    """A sticky assignor whose memory belongs to one consumer; aiokafka keeps it on the class, for all of a process."""
    return type("OwnSticky", (StickyPartitionAssignor,), {"member_assignment": None, "generation": -1})


def set_generation(consumer: AIOKafkaConsumer, assignor: StickyAssignor) -> None:
    """Tell the assignor of which generation its memory is, so that a member that was away claims nothing.

    aiokafka never does, and then all claims weigh the same.
    """
    assignor.on_generation_assignment(consumer._coordinator.generation)  # noqa: SLF001 - no public door
