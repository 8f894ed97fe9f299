"""Apache Kafka: requests by partition, answers and settlements in one transaction, records in the commit's metadata.

Used by app.cli.connection; may import its folder alone.
"""

from brokers.kafka.bus import KafkaBus
from brokers.kafka.client import KafkaClient
from brokers.kafka.config import KafkaConfig

__all__ = ["KafkaBus", "KafkaClient", "KafkaConfig"]
