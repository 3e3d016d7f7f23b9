#!/usr/bin/env bash
# Installs what the tests of this folder and `make demo BUS=...` need: Debian's rabbitmq-server and amqp-tools, a Java and a
# Kafka of Maven Central, a libzmq of PyPI, and the nats-server and the nats of the Go module proxy, the last three below the
# folder FOLDER; or those of one BUS only: kafka, rabbitmq, zeromq or nats. What is there already is left alone.
#   install.sh FOLDER [BUS]
set -euo pipefail
folder=$1 bus=${2:-}
kafka=4.1.0 natscli=v0.5.1
case $bus in
"" | kafka | rabbitmq | zeromq | nats) ;;
*) echo "BUS=$bus: kafka, rabbitmq, zeromq and nats are allowed" >&2; exit 2 ;;
esac
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
wants() { [[ -z $bus || $bus = "$1" ]]; }
missing() { echo "$1 cannot be installed here" >&2; exit 1; }

lacks=()
if wants kafka; then
	command -v java >/dev/null || lacks+=(default-jre-headless)
	[[ -d $folder/kafka-$kafka ]] || command -v mvn >/dev/null || lacks+=(maven)
fi
if wants rabbitmq; then
	dpkg -s rabbitmq-server >/dev/null 2>&1 || lacks+=(rabbitmq-server)
	command -v amqp-consume >/dev/null || lacks+=(amqp-tools)
fi
if wants zeromq; then
	python3 -c 'import ensurepip, venv' 2>/dev/null || lacks+=(python3-venv)
fi
if ((${#lacks[@]})); then
	sudo=(); [[ $EUID -eq 0 ]] || sudo=(sudo -n)
	# Debian's package starts a server of its own, which nobody here wants.
	policy=/usr/sbin/policy-rc.d
	[[ -e $policy ]] && policy= || printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
	[[ -z $policy ]] || "${sudo[@]}" chmod +x $policy
	export DEBIAN_FRONTEND=noninteractive
	failed=
	{ "${sudo[@]}" apt-get update -qq && "${sudo[@]}" apt-get install -qq -y --no-install-recommends "${lacks[@]}" >/dev/null; } || failed=yes
	[[ -z $policy ]] || "${sudo[@]}" rm -f $policy
	[[ -z $failed ]] || missing "${lacks[*]} (Debian)"
	echo "installed: ${lacks[*]}"
fi

if wants kafka; then
	if [[ ! -d $folder/kafka-$kafka ]]; then
		work=$(mktemp -d "$folder/kafka.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		cat >"$work/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion>
<groupId>meshtap</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
POM
		(cd "$work" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=libs >/dev/null) ||
			missing "Kafka $kafka (Maven Central)"
		mv "$work/libs" "$folder/kafka-$kafka"
		echo "installed: Kafka $kafka"
	fi
	ln -sfn "kafka-$kafka" "$folder/kafka"
fi

if wants zeromq && ! "$folder/python/bin/python" -c 'import zmq' 2>/dev/null; then
	{ python3 -m venv "$folder/python" && "$folder/python/bin/pip" -q --disable-pip-version-check install pyzmq==27.1.0; } ||
		missing "pyzmq (PyPI)"
	echo "installed: pyzmq"
fi

if wants nats && [[ ! -x $folder/nats-$natscli ]]; then
	# The server is that of our own go.mod.
	{ (cd "$(dirname "${BASH_SOURCE[0]}")" && go build -o "$folder/nats-server" github.com/nats-io/nats-server/v2) &&
		GOBIN=$folder go install "github.com/nats-io/natscli/nats@$natscli"; } || missing "nats $natscli (the Go module proxy)"
	mv "$folder/nats" "$folder/nats-$natscli"
	ln -sfn "nats-$natscli" "$folder/nats"
	echo "installed: nats-server, nats $natscli"
fi
