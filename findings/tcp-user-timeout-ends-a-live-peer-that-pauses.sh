#!/bin/sh
# TCP_USER_TIMEOUT, on Linux 6.x, with a peer that is alive and pauses.
#
# Expected: the option gives up a host that is gone. A peer whose program pauses is not gone: its kernel still acknowledges the
#   probes of its closed window, and by RFC 1122 (4.2.2.17) the sender then keeps the connection open. So a timeout of seconds would
#   be safe for readers that pause for a minute, such as a pager or a command that leaves its stdin unread.
# Observed: when bytes wait for a closed window, Linux ends the connection with ETIMEDOUT after that time, although every probe is
#   acknowledged. The peer reads what had arrived, and then a reset. The waiting bytes are lost. Without the option the same
#   connection goes on, and all bytes arrive.
# Measured on Linux 6.18 with Python 3.11.7: with a timeout of 3 s the connection ended after 3.5 s. Without a timeout all bytes
#   arrived after a pause of 10 s.
#
# Needs Linux and python3 with its standard library. Exits 0 while Linux behaves like this.
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
