#!/usr/bin/env bash
# Runs a RabbitMQ node of Debian's package in the foreground: on 127.0.0.1:PORT, with its state in FOLDER, and with the
# configuration FOLDER/rabbitmq.conf, if there is one. It takes two more ports: of the node's distribution, and of an epmd
# that belongs to this node alone and ends with it. It can be killed and run again with the same arguments.
#   rabbitmq.sh FOLDER PORT DISTPORT EPMDPORT
set -euo pipefail
folder=$1 port=$2 dist=$3 epmd=$4
mkdir -p "$folder"
echo '[].' >"$folder/plugins"
[[ -f $folder/rabbitmq.conf ]] || : >"$folder/rabbitmq.conf"
export HOME=$folder ERL_EPMD_PORT=$epmd ERL_EPMD_ADDRESS=127.0.0.1
epmd & # a node would start one that outlives it
export RABBITMQ_NODENAME=meshtap$port@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port \
	RABBITMQ_DIST_PORT=$dist RABBITMQ_MNESIA_BASE=$folder/mnesia RABBITMQ_LOG_BASE=$folder/log RABBITMQ_LOGS=- \
	RABBITMQ_PID_FILE=$folder/pid RABBITMQ_CONFIG_FILE=$folder/rabbitmq RABBITMQ_ENABLED_PLUGINS_FILE=$folder/plugins \
	RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
# Debian's wrapper changes to the user rabbitmq; the server's own script does not.
exec "$(dpkg -L rabbitmq-server | grep 'lib/rabbitmq/bin/rabbitmq-server$')"
