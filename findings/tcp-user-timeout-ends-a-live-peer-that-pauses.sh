#!/bin/sh
# TCP_USER_TIMEOUT, on Linux 6.x, with a peer that is alive and pauses.
#
# The guess: the option gives up a host that is gone. A peer whose program reads nothing for a while is not gone: its kernel goes on
#   acknowledging the probes of its closed window, and RFC 1122 (4.2.2.17) has the sender wait for as long as it does. So a timeout of
#   seconds is safe beside readers that pause for a minute: a pager, a command that does not read its stdin.
# What is so: once bytes wait behind a closed window, Linux ends the connection with ETIMEDOUT after that time, although every probe is
#   acknowledged. The peer reads what had arrived and then finds a reset: the bytes that waited are lost. Without the option the same
#   connection goes on, and all of it arrives.
# Seen on Linux 6.18 with Python 3.11.7: ended after 3.5 s with a timeout of 3 s; without it all bytes arrived after a pause of 10 s.
#
# Needs Linux and python3, whose standard library is all that it runs. Exits 0 while that is so.
set -eu
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
cat >"$d/pause.py" <<'PY'
import errno, platform, select, socket, time

PAUSE, OPTION = 10, getattr(socket, "TCP_USER_TIMEOUT", 18)

def sender(timeout):
    """How the connection of one that writes ended, and how much the one that pauses got of what it wrote."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reads = socket.create_connection(listener.getsockname())
        writes, _ = listener.accept()
    if timeout:
        writes.setsockopt(socket.IPPROTO_TCP, OPTION, timeout * 1000)
    writes.setblocking(False)
    written, began, failed = 0, time.monotonic(), None
    try:
        while True:
            written += writes.send(bytes(65536))
    except BlockingIOError:
        pass
    while time.monotonic() - began < PAUSE and failed is None:
        time.sleep(0.1)
        error = writes.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        failed = (error, time.monotonic() - began) if error else None
    if failed is None:
        writes.shutdown(socket.SHUT_WR)
    got, end = 0, "end"
    try:
        while piece := reads.recv(1 << 20):
            got += len(piece)
    except ConnectionResetError:
        end = "reset"
    return written, failed, got, end

print("Linux", platform.release(), "Python", platform.python_version())
written, failed, got, end = sender(3)
print(f"TCP_USER_TIMEOUT 3 s: {failed and errno.errorcode[failed[0]]} after {failed and round(failed[1], 1)} s; {got} of {written} bytes, {end}")
killed = failed is not None and failed[0] == errno.ETIMEDOUT and got < written
written, failed, got, end = sender(None)
print(f"without it: {failed}; {got} of {written} bytes, {end}")
raise SystemExit(0 if killed and failed is None and (got, end) == (written, "end") else 1)
PY
python3 "$d/pause.py"
