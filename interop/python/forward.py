"""Port-forward over WebSocket channels by Kubernetes' client for Python, through its own API only.

Sends all of stdin to each of the ports, concurrently, and reads what comes back until the server ends. The result is one line of JSON in the --result file: {"error", "ports": {PORT: {"bytes", "sha256", "error"}}}.
"""

import argparse
import hashlib
import json
import os
import sys
import threading
import traceback

from kubernetes import client
from kubernetes.stream import portforward

PIECE = 32 * 1024


def main():
    arguments = parse()
    result = {"error": None, "ports": {}}
    threading.Timer(arguments.watchdog, lambda: watchdog(arguments, result)).start()
    # The library's own thread can report its failure in no other way.
    threading.excepthook = lambda failed: give_up(arguments, result, failed.exc_value)
    try:
        run(arguments, result)
    except Exception as error:
        give_up(arguments, result, error)
    finish(arguments, result, 0)


def give_up(arguments, result, error):
    traceback.print_exception(error)
    result["error"] = f"{type(error).__name__}: {error}"
    finish(arguments, result, 1)


def run(arguments, result):
    sent = sys.stdin.buffer.read()
    api = client.CoreV1Api(client.ApiClient(client.Configuration(host=arguments.server)))
    forward = portforward(
        api.connect_get_namespaced_pod_portforward, arguments.pod, arguments.namespace, ports=arguments.ports
    )
    threads = []
    for port in map(int, arguments.ports.split(",")):
        said = result["ports"][port] = {"bytes": 0, "sha256": None, "error": None}
        threads += [
            threading.Thread(target=send, args=(forward.socket(port), sent), daemon=True),
            threading.Thread(target=read, args=(forward.socket(port), said)),
        ]
    for thread in threads:
        thread.start()
    for thread in threads[1::2]:
        thread.join()
    for port, said in result["ports"].items():
        said["error"] = forward.error(port)


def send(socket, sent):
    socket.setblocking(True)
    try:
        socket.sendall(sent)
    except OSError:
        pass  # A port that is refused takes nothing: its error says so.


def read(socket, said):
    total = hashlib.sha256()
    while data := receive(socket):
        said["bytes"] += len(data)
        total.update(data)
    said["sha256"] = total.hexdigest()


def receive(socket):
    try:
        return socket.recv(PIECE)
    except ConnectionResetError:
        return b""  # The library has closed its half with our bytes unread.


def watchdog(arguments, result):
    result["error"] = f"watchdog: still running after {arguments.watchdog} s"
    print(result["error"], file=sys.stderr)
    finish(arguments, result, 124)


def finish(arguments, result, status):
    if arguments.result:
        with open(arguments.result, "w") as file:
            file.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # sys.exit would wait for threads.
    os._exit(status)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="http://127.0.0.1:PORT")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--pod", required=True)
    parser.add_argument("--ports", required=True, metavar="80,81")
    parser.add_argument("--result", metavar="FILE")
    parser.add_argument("--watchdog", type=float, default=120, metavar="SECONDS")
    return parser.parse_args()


main()
