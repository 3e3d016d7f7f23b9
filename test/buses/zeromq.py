#!/usr/bin/env python3
# The other end of a ZeroMQ sink, with libzmq: it connects to ADDRESS, or binds with "-b", and prints the messages it gets as
# lines of hexadecimal parts, behind a first line that says where it is. It ends when its standard input does, or at COUNT.
# Where it binds, it lets those in who have the password, or the public key THEIRS.
#   zeromq.py [-b] SUB|PULL|ROUTER ADDRESS COUNT [TOPIC | USER PASSWORD | MYSECRET MYPUBLIC THEIRS]
# With "keys" it prints a new pair of keys for CURVE: the public one, and the secret one.
#   zeromq.py keys
# With "-t" it is the client of demo.sh: it prints the last part of each message, the event, as it is, until it is ended.
#   zeromq.py -t [-b] SUB|PULL ADDRESS
import sys, threading, zmq
from zmq.auth.thread import ThreadAuthenticator

args = sys.argv[1:]
if args == ["keys"]:
    print(*(k.decode() for k in zmq.curve_keypair()))
    sys.exit()
text = args[0] == "-t"
if text:
    args = args[1:] + [sys.maxsize]
bind = args[0] == "-b"
if bind:
    args = args[1:]
kind, address, count, rest = args[0], args[1], int(args[2]), args[3:]
ctx = zmq.Context()
s = ctx.socket(getattr(zmq, kind))
s.linger = 1000
s.rcvhwm = 100000
if bind and len(rest) > 1:
    auth = ThreadAuthenticator(ctx)
    auth.start()
if len(rest) == 2 and bind:
    auth.configure_plain("*", {rest[0]: rest[1]})
    s.plain_server = True
elif len(rest) == 2:
    s.plain_username, s.plain_password = rest[0].encode(), rest[1].encode()
elif len(rest) == 3:
    s.curve_secretkey, s.curve_publickey = rest[0].encode(), rest[1].encode()
    if bind:

        class Known:
            def callback(self, domain, key):
                return key.decode() == rest[2]

        auth.configure_curve_callback("*", Known())
        s.curve_server = True
    else:
        s.curve_serverkey = rest[2].encode()
if bind:
    s.bind(address)
else:
    s.connect(address)
if kind == "SUB":
    s.setsockopt(zmq.SUBSCRIBE, rest[0].encode() if len(rest) == 1 else b"")
print("at", s.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"), flush=True)
if not text:
    threading.Thread(target=lambda: (sys.stdin.read(), sys.stdout.flush(), __import__("os")._exit(0)), daemon=True).start()
n = 0
while n < count:
    parts = s.recv_multipart()
    if text:
        print(parts[-1].decode(), flush=True)
    elif kind == "ROUTER":
        identity, session, number = parts[:3]
        # What is acknowledged is handed on before, so that it survives this process.
        print(" ".join(p.hex() for p in parts[3:]), flush=True)
        s.send_multipart([identity, session, number])
    else:
        print(" ".join(p.hex() for p in parts))
    n += 1
sys.stdout.flush()
s.close()
if bind and len(rest) > 1:
    auth.stop()
ctx.term()
