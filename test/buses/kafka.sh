#!/usr/bin/env bash
# Runs a Kafka broker, which is its own controller, in the foreground: on 127.0.0.1:PORT, with its state in FOLDER, from the
# jars in LIBS. It tells its clients to come to ADVERTISEDPORT. It can be killed and run again with the same arguments.
#   kafka.sh LIBS FOLDER PORT CONTROLLERPORT ADVERTISEDPORT
set -euo pipefail
libs=$1 folder=$2 port=$3 controller=$4 advertised=$5
mkdir -p "$folder"
cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$advertised
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$folder/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.partitions=4
PROPERTIES
java=(java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$libs/*")
if [[ ! -f $folder/data/meta.properties ]]; then
	id=$("${java[@]}" kafka.tools.StorageTool random-uuid)
	"${java[@]}" kafka.tools.StorageTool format -t "$id" -c "$folder/server.properties" >/dev/null
fi
exec "${java[@]}" kafka.Kafka "$folder/server.properties"
