// SPDX-License-Identifier: Apache-2.0

// Package buses runs the event sinks against real servers and libraries: Kafka, RabbitMQ, and libzmq through pyzmq. The
// scripts beside this file install them and run them as plain processes on loopback; `make buses` calls them. The tests have
// the build tag "buses", and fail, rather than skip, where something is missing.
package buses
