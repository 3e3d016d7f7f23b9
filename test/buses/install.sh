#!/usr/bin/env bash
# Installs what the tests of this folder need: Debian's rabbitmq-server, a Java, a Kafka of Maven Central and a libzmq of
# PyPI, the last two below the folder FOLDER. What is there already is left alone.   install.sh FOLDER
set -euo pipefail
folder=$1
kafka=4.1.0
mkdir -p "$folder"

lacks=()
command -v java >/dev/null || lacks+=(default-jre-headless)
[[ -d $folder/kafka-$kafka ]] || command -v mvn >/dev/null || lacks+=(maven)
dpkg -s rabbitmq-server >/dev/null 2>&1 || lacks+=(rabbitmq-server)
python3 -c 'import ensurepip, venv' 2>/dev/null || lacks+=(python3-venv)
if ((${#lacks[@]})); then
	sudo=(); [[ $EUID -eq 0 ]] || sudo=(sudo -n)
	# Debian's package starts a server of its own, which nobody here wants.
	policy=/usr/sbin/policy-rc.d
	[[ -e $policy ]] && policy= || printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
	[[ -z $policy ]] || "${sudo[@]}" chmod +x $policy
	export DEBIAN_FRONTEND=noninteractive
	"${sudo[@]}" apt-get update -qq
	"${sudo[@]}" apt-get install -qq -y --no-install-recommends "${lacks[@]}" >/dev/null
	[[ -z $policy ]] || "${sudo[@]}" rm -f $policy
	echo "installed: ${lacks[*]}"
fi

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
	(cd "$work" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=libs >/dev/null)
	mv "$work/libs" "$folder/kafka-$kafka"
	echo "installed: Kafka $kafka"
fi
ln -sfn "kafka-$kafka" "$folder/kafka"

if [[ ! -x $folder/python/bin/python ]] || ! "$folder/python/bin/python" -c 'import zmq' 2>/dev/null; then
	python3 -m venv "$folder/python"
	"$folder/python/bin/pip" -q --disable-pip-version-check install pyzmq==27.1.0
	echo "installed: pyzmq"
fi
