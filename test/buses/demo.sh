#!/usr/bin/env bash
# The demo with a bus of somebody else: on the loopback, runs a broker, a client that Meshtap did not write and that prints
# each event as a line, and `MESHTAPD demo`, whose sidecars send their events to that broker, too. Ctrl-C, or the end of one of
# the three, ends them all. FOLDER is where install.sh has put what it installs; BUS is kafka, rabbitmq, zeromq or nats.
#   demo.sh BUS MESHTAPD FOLDER
set -euo pipefail
bus=$1 meshtapd=$2 folder=$(cd "$3" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export MESHTAP_RATE=${MESHTAP_RATE:-2} # requests per second: a person shall be able to read along
work=$(mktemp -d)
demo=
declare -A names=() # of the processes, by their numbers

# finish ends all processes, the demo gently and first, since its sidecars still have something to say to the broker.
finish() {
	local status=$?
	trap '' INT TERM HUP
	if [[ $demo ]]; then
		kill -TERM "$demo" 2>/dev/null || true
		wait "$demo" || true
		unset "names[$demo]"
	fi
	for pid in "${!names[@]}"; do
		kill -KILL -- "-$pid" "$pid" || true # the number alone, where it has no group of its own yet
	done 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 0' INT TERM HUP

# run starts a process in the background, away from the signals of the terminal; $! is its number.
run() {
	local name=$1
	shift
	setsid "$@" &
	names[$!]=$name
}

# dead says that a process has ended that should not have, and ends this one.
dead() {
	echo "make demo: ${names[$1]} has ended" >&2
	tail -n 12 "$work/log" >&2
	exit 1
}

# up waits until somebody listens on a port.
up() {
	local pid=$1 port=$2
	until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
		kill -0 "$pid" 2>/dev/null || dead "$pid"
		sleep 0.1
	done
}

# The ports are below those that the demo chooses for itself.
ports=()
while ((${#ports[@]} < 3)); do
	port=$((12000 + RANDOM % 8000))
	[[ " ${ports[*]} " == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ports+=("$port")
done
port=${ports[0]}

# sink writes the file with the sink: its type and its settings.
sink() {
	printf -- '- name: theirs\n  typed_config: {"@type": type.googleapis.com/meshtap.tap.v1.%s, %s}\n' "$1" "$2" >"$work/sinks.yaml"
}

: >"$work/log"
echo "starting $bus on 127.0.0.1:$port"
case $bus in
kafka)
	run "the Kafka broker" "$here/kafka.sh" "$folder/kafka" "$work/kafka" "$port" "${ports[1]}" "$port" >>"$work/log" 2>&1
	up $! "$port"
	client="Kafka's console consumer"
	run "$client" java -cp "$folder/kafka/*" org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "127.0.0.1:$port" \
		--topic meshtap.events --from-beginning --consumer-property metadata.max.age.ms=500 2>>"$work/log"
	sink KafkaSink "brokers: ['127.0.0.1:$port'], create_topic: {}, mode: STRUCTURED"
	;;
rabbitmq)
	run "the RabbitMQ node" "$here/rabbitmq.sh" "$work/rabbitmq" "$port" "${ports[1]}" "${ports[2]}" >>"$work/log" 2>&1
	up $! "$port"
	client="amqp-consume of RabbitMQ's C client"
	# It ends where there is no queue, and a sidecar makes that.
	run "$client" bash -c 'until amqp-consume --url "$0" -q meshtap.events -- sh -c "cat; echo" || ((SECONDS > 60)); do sleep 0.2; done' \
		"amqp://127.0.0.1:$port" 2>>"$work/log"
	sink RabbitmqSink "urls: ['amqp://127.0.0.1:$port'], declare: {}, mode: STRUCTURED"
	;;
zeromq) # which has no broker
	client="pyzmq"
	run "$client" "$folder/python/bin/python" "$here/zeromq.py" -t -b SUB "tcp://127.0.0.1:$port" 2>>"$work/log"
	up $! "$port"
	sink ZeromqSink "pattern: PUB, connect: ['tcp://127.0.0.1:$port']"
	;;
nats)
	run "the NATS server" "$folder/nats-server" -a 127.0.0.1 -p "$port" -js -sd "$work/nats" >>"$work/log" 2>&1
	up $! "$port"
	client="the nats command"
	run "$client" "$folder/nats" --no-context --server "nats://127.0.0.1:$port" subscribe --raw 'meshtap.events.>' 2>>"$work/log"
	sink NatsSink "urls: ['nats://127.0.0.1:$port'], stream: DEMO, create_stream: {in_memory: true}"
	;;
esac
echo "each line that begins with { is an event, printed by $client"
setsid "$meshtapd" demo --sinks "$work/sinks.yaml" &
demo=$! names[$!]="the demo"
wait -n -p who "${!names[@]}" || true
dead "$who"
