"""Exec over WebSocket by Kubernetes' client for Python, its own means and nothing beside them.

The outputs pass through, and the status is the exit code. The result is one line of JSON in the --result file:
{"exitCode", "status", "protocol", "error"}, with exitCode -1, and status 1, where no exit code came.
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
    # With a status stderr is the command's alone: a server that is gone before the reply to its Close is no news.
    if result["error"] and result["exitCode"] < 0:
        print(result["error"], file=sys.stderr)
    report(arguments, result)
    sys.stdout.flush()
    # Not sys.exit: a thread may still wait for this process's stdin, or for the watchdog's time.
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
    # Threads, and not turns: a write may have to wait until the outputs have been read.
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
    # The library's own reading of the status. Of one that has no exit code it makes an exception, of any kind.
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
        # A str, as in the library's examples: a text frame.
        connection.write_channel(RESIZE_CHANNEL, json.dumps({"Height": height, "Width": width}))
        time.sleep(0.3)


def background(result, work):
    def quiet():
        try:
            work()
        except Exception as error:
            # A command need not read what it is given: the connection may be gone. Not to stderr, which is the command's.
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
    parser.add_argument("--stdin", action="store_true", help="this process's stdin, to its end")
    parser.add_argument("--one-write", action="store_true", help="all of stdin in one write_stdin, one message")
    parser.add_argument("--close", action="store_true", help="the connection and not stdin, behind stdin's last byte")
    parser.add_argument("--text", action="store_true", help="str and not bytes, the library's default: text frames")
    parser.add_argument("--tty", action="store_true")
    parser.add_argument("--resize", metavar="80x24,132x50", help="sent 300 ms apart")
    parser.add_argument("--protocol", metavar="LIST", help="the Sec-WebSocket-Protocol header, not the library's own")
    parser.add_argument("--result", metavar="FILE")
    parser.add_argument("--watchdog", type=float, default=120, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


main()
