#!/usr/bin/env bash
# Kafka ACLs with the least rights that each program needs. Run it with a user that may alter ACLs, after the topics
# were created (a worker that may create them does so at its first start):
#
#   BOOTSTRAP=kafka:9092 COMMAND_CONFIG=admin.properties deploy/kafka/acls.sh
#
# The users are principals such as User:worker; the cluster has to run an authorizer.
set -euo pipefail

bootstrap=${BOOTSTRAP:?host:port of Kafka}
prefix=${TOPIC_PREFIX:-comfyui}
worker=${WORKER_USER:-User:worker}
producer=${PRODUCER_USER:-User:producer}
bridge=${BRIDGE_USER:-User:bridge}
operator=${OPERATOR_USER:-User:operator}
# The group's name has no dots of the prefix.
group=${prefix//./_}.workers
kafka_acls=${KAFKA_ACLS:-kafka-acls.sh}

allow() {
  local user=$1
  shift
  "$kafka_acls" --bootstrap-server "$bootstrap" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \
    --add --force --allow-principal "$user" "$@"
}

read_topics() {
  local user=$1 name
  shift
  for name in "$@"; do allow "$user" --operation Read --operation Describe --operation DescribeConfigs --topic "$prefix.$name"; done
}

write_topics() {
  local user=$1 name
  shift
  for name in "$@"; do allow "$user" --operation Write --operation Describe --operation DescribeConfigs --topic "$prefix.$name"; done
}

# A worker reads requests and commands, looks up which requests are answered, fetches the letter that the replay of a
# large one refers to, and writes everything else.
read_topics "$worker" prompt.request control prompt.complete prompt.failed worker prompt.request.dlq
write_topics "$worker" prompt.complete prompt.failed prompt.progress storage system worker prompt.request.dlq
# Answered requests are deleted from their topic (DeleteRecords). Without this they stay, and are answered once more
# should Kafka ever forget the group's offsets. Kafka knows no smaller right: it covers deleting that topic too.
allow "$worker" --operation Delete --topic "$prefix.prompt.request"
allow "$worker" --operation Read --operation Describe --group "$group"
# Answer and offset are one transaction; its id begins with the group's name.
allow "$worker" --operation Write --operation Describe --transactional-id "$group-" --resource-pattern-type prefixed
allow "$worker" --operation IdempotentWrite --operation DescribeConfigs --cluster

# A producer submits requests and cancels, and reads results and events; never the dead letter, which holds secrets.
write_topics "$producer" prompt.request control
read_topics "$producer" prompt.complete prompt.failed prompt.progress storage system worker
allow "$producer" --operation IdempotentWrite --cluster

# The webhook bridge reads results and events, and keeps its queue in topics of its own. It has no group: where it has
# read up to stands in them. An operator who replays webhooks needs the same rights.
read_topics "$bridge" prompt.complete prompt.failed storage system worker
for topic in webhook webhook-body webhook-lease; do
  allow "$bridge" --operation Read --operation Write --operation Describe --operation DescribeConfigs --topic "$prefix-$topic"
done
allow "$bridge" --operation Write --operation Describe --transactional-id "${prefix//./_}.webhook-" --resource-pattern-type prefixed
allow "$bridge" --operation IdempotentWrite --operation DescribeConfigs --cluster

# Who lists and replays dead letters reads what was sent, secrets included; a replay hides its letter by a tombstone.
read_topics "$operator" prompt.request prompt.request.dlq control prompt.complete prompt.failed prompt.progress storage system worker
write_topics "$operator" prompt.request prompt.request.dlq control
allow "$operator" --operation Describe --group "$group"
allow "$operator" --operation Write --operation Describe --transactional-id "$group-replay"
allow "$operator" --operation IdempotentWrite --operation DescribeConfigs --cluster
