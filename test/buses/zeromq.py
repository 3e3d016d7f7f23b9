#!/usr/bin/env python3
# The other end of a ZeroMQ sink, with libzmq: it connects to ADDRESS, or binds with "-b", and prints the messages it gets as
# lines of hexadecimal parts, behind a first line that says where it is. It ends when its standard input does, or at COUNT.
#   zeromq.py [-b] SUB|PULL|ROUTER ADDRESS COUNT [TOPIC | USER PASSWORD]
import sys, threading, zmq

args = sys.argv[1:]
bind = args[0] == "-b"
if bind:
    args = args[1:]
kind, address, count, rest = args[0], args[1], int(args[2]), args[3:]
ctx = zmq.Context()
s = ctx.socket(getattr(zmq, kind))
s.linger = 1000
s.rcvhwm = 100000
if len(rest) == 2:
    s.plain_username, s.plain_password = rest[0].encode(), rest[1].encode()
if bind:
    s.bind(address)
else:
    s.connect(address)
if kind == "SUB":
    s.setsockopt(zmq.SUBSCRIBE, rest[0].encode() if len(rest) == 1 else b"")
print("at", s.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"), flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), sys.stdout.flush(), __import__("os")._exit(0)), daemon=True).start()
n = 0
while n < count:
    parts = s.recv_multipart()
    if kind == "ROUTER":
        identity, session, number = parts[:3]
        # What is acknowledged is handed on before, so that it survives this process.
        print(" ".join(p.hex() for p in parts[3:]), flush=True)
        s.send_multipart([identity, session, number])
    else:
        print(" ".join(p.hex() for p in parts))
    n += 1
sys.stdout.flush()
s.close()
ctx.term()
