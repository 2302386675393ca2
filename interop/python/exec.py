"""Exec over WebSocket by Kubernetes' client for Python, through its own API only.

The outputs pass through, and the exit status is the command's exit code. The result is one line of JSON in the --result file:
{"exitCode", "status", "protocol", "error"}. Without an exit code, exitCode is -1 and the exit status is 1.
"""

import argparse
import codecs
import json
import os
import sys
import threading
import time

from kubernetes import client
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, RESIZE_CHANNEL, STDIN_CHANNEL

PIECE = 32 * 1024


def main():
    arguments = parse()
    result = {"exitCode": -1, "status": None, "protocol": None, "error": None}
    threading.Timer(arguments.watchdog, lambda: os._exit(watchdog(arguments, result))).start()
    try:
        run(arguments, result)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
    # If there is a status, stderr belongs to the command. A server that leaves before the reply to its Close is not an
    # error.
    if result["error"] and result["exitCode"] < 0:
        print(result["error"], file=sys.stderr)
    report(arguments, result)
    sys.stdout.flush()
    # sys.exit would wait for threads, which may be blocked on stdin or in the watchdog.
    os._exit(1 if result["exitCode"] < 0 else result["exitCode"])


def run(arguments, result):
    api = client.CoreV1Api(client.ApiClient(client.Configuration(host=arguments.server)))
    connection = stream(
        api.connect_get_namespaced_pod_exec,
        arguments.pod,
        arguments.namespace,
        command=arguments.command,
        container=arguments.container,
        stdin=arguments.stdin,
        stdout=True,
        stderr=not arguments.tty,
        tty=arguments.tty,
        binary=not arguments.text,
        _headers={"sec-websocket-protocol": arguments.protocol} if arguments.protocol else None,
        _preload_content=False,
    )
    result["protocol"] = connection.subprotocol
    # Threads are needed because a write may have to wait until the outputs have been read.
    if arguments.resize:
        background(result, lambda: resize(connection, arguments.resize))
    if arguments.stdin:
        background(result, lambda: feed(connection, arguments))
    try:
        while connection.is_open():
            connection.update(timeout=1)
            drain(connection)
    finally:
        drain(connection)
        status = connection.peek_channel(ERROR_CHANNEL)
        if status and connection.subprotocol.startswith(("v4.", "v5.")):
            result["status"] = json.loads(status)
            result["exitCode"] = exit_code(connection)
        elif status:
            result["error"] = status if isinstance(status, str) else status.decode()
        connection.close()


def drain(connection):
    for channel, to in ((1, sys.stdout), (2, sys.stderr)):
        while data := connection.read_channel(channel):
            to.buffer.write(data.encode() if isinstance(data, str) else data)
            to.buffer.flush()


def exit_code(connection):
    # The library reads the status by itself. If it has no exit code, the library raises an exception of some kind.
    try:
        return connection.returncode
    except Exception:
        return -1


def feed(connection, arguments):
    decode = codecs.getincrementaldecoder("utf-8")().decode if arguments.text else lambda data, final=False: data
    if arguments.one_write:
        with open(0, "rb", closefd=False) as whole:
            connection.write_stdin(decode(whole.read()))
    else:
        while data := os.read(0, PIECE):
            if piece := decode(data):
                connection.write_stdin(piece)
    if arguments.close:
        connection.close()
    else:
        connection.close_channel(STDIN_CHANNEL)


def resize(connection, sizes):
    for size in sizes.split(","):
        width, height = map(int, size.split("x"))
        # A str, as in the library's examples, is sent as a text frame.
        connection.write_channel(RESIZE_CHANNEL, json.dumps({"Height": height, "Width": width}))
        time.sleep(0.3)


def background(result, work):
    def quiet():
        try:
            work()
        except Exception as error:
            # A command may leave its stdin unread, so the connection may be gone. This does not go to stderr, which is
            # the command's.
            result["error"] = f"write: {type(error).__name__}: {error}"

    threading.Thread(target=quiet, daemon=True).start()


def watchdog(arguments, result):
    result["error"] = f"watchdog: still running after {arguments.watchdog} s"
    print(result["error"], file=sys.stderr)
    report(arguments, result)
    return 124


def report(arguments, result):
    if arguments.result:
        with open(arguments.result, "w") as file:
            file.write(json.dumps(result) + "\n")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="http://127.0.0.1:PORT")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--pod", required=True)
    parser.add_argument("--container", default="main")
    parser.add_argument("--stdin", action="store_true", help="pass this process's stdin, to its end")
    parser.add_argument("--one-write", action="store_true", help="send all of stdin in one write_stdin, and so in one message")
    parser.add_argument("--close", action="store_true", help="close the connection instead of stdin after stdin's last byte")
    parser.add_argument("--text", action="store_true", help="use str, the library's default, which sends text frames")
    parser.add_argument("--tty", action="store_true")
    parser.add_argument("--resize", metavar="80x24,132x50", help="terminal sizes, sent 300 ms apart")
    parser.add_argument("--protocol", metavar="LIST", help="replace the library's Sec-WebSocket-Protocol header")
    parser.add_argument("--result", metavar="FILE")
    parser.add_argument("--watchdog", type=float, default=120, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


main()
