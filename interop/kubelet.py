#!/usr/bin/env python3
"""Runs stock kubectl, by hand, through kube-apiserver and a real kubelet to the streaming server of the program `cri`.

    cargo build --bin cri && target/debug/cri --listen unix:///tmp/cri.sock &
    (a cluster whose kubelet has `containerRuntimeEndpoint: unix:///tmp/cri.sock`)
    KUBECONFIG=... interop/kubelet.py --kubectl kubectl --node localhost

It creates a pod, whose containers run commands of this machine, and deletes it at the end. Each check runs with kubectl over
WebSocket and over SPDY. Prints one line for each check, and exits with the number of failed checks.

With --pod it creates no pod, and only checks the tail of an output in an existing one. Then the program `node` can be the kubelet.
It needs a TLS terminator with a kubelet's certificate in front of it, a Node whose kubeletEndpoint is that terminator, and a pod
with that nodeName and a container named main.
"""
import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import cluster
from cluster import TAIL, check, terminal

POD = "kubestream-cri"
BOTH = 'while IFS= read -r line; do echo "out:$line"; echo "err:$line" >&2; done'
# kubectl prints these lines on stderr, beside the output of what it is attached to.
HINTS = (b"All commands and output", b"If you don't see a command prompt", b"warning: ")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def manifest(node, port):
    def container(name, command, **more):
        image = {"image": "local/none:1", "imagePullPolicy": "IfNotPresent"}
        return {"name": name, "command": command, **image, **more}

    serve = ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    # A probe uses ExecSync.
    probe = {"exec": {"command": ["sh", "-c", 'test "$GREETING" = hello']}, "periodSeconds": 1}
    greeting = [{"name": "GREETING", "value": "hello"}]
    containers = [
        container("main", serve, env=greeting, workingDir="/usr/share", readinessProbe=probe),
        container("both", ["sh", "-c", BOTH], stdin=True),
        container("shell", ["sh"], stdin=True, tty=True),
        container("pause", None),
    ]
    spec = {"nodeName": node, "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {**spec, "containers": containers},
    }


class Kubectl:
    """kubectl with one of its two transports."""

    def __init__(self, path, transport, pod=POD):
        self.path, self.transport, self.pod = path, transport, pod
        websocket = "true" if transport == "websocket" else "false"
        names = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS")
        self.environment = {**os.environ, **dict.fromkeys(names, websocket)}

    def run(self, *arguments, stdin=b"", timeout=120):
        command = [self.path, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=self.environment)

    def start(self, *arguments, **pipes):
        return subprocess.Popen([self.path, *arguments], env=self.environment, **pipes)

    def exec(self, *command, stdin=None):
        flags = () if stdin is None else ("-i",)
        return self.run("exec", *flags, self.pod, "-c", "main", "--", *command, stdin=stdin or b"")

    def tail(self, typing):
        """Runs a command that writes 3 MB and exits with 7, and returns what arrived. With `typing`, stdin never ends."""
        yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE) if typing else None
        command = [self.path, "exec", *(["-i"] if typing else []), self.pod, "-c", "main", "--", "sh", "-c", TAIL]
        stdin = yes.stdout if yes else subprocess.DEVNULL
        ended = subprocess.run(command, stdin=stdin, capture_output=True, timeout=120, env=self.environment)
        if yes:
            yes.stdout.close()
            yes.wait()
        return len(ended.stdout), ended.returncode

    def check(self, name, ok, seen=""):
        check(f"{self.transport}: {name}", ok, seen)


def lines(stderr):
    return sorted(line for line in stderr.splitlines() if line and not line.startswith(HINTS))


def execs(kubectl, runs):
    ended = kubectl.exec("sh", "-c", "echo out; echo err >&2; exit 7")
    seen = (ended.stdout, ended.stderr, ended.returncode)
    kubectl.check("outputs apart, exit code", seen == (b"out\n", b"err\ncommand terminated with exit code 7\n", 7), seen)
    codes = [kubectl.exec("sh", "-c", f"exit {code}").returncode for code in (0, 1, 255)]
    kubectl.check("exit codes 0, 1 and 255", codes == [0, 1, 255], codes)
    ended = kubectl.exec("sh", "-c", 'echo "$GREETING"; pwd')
    kubectl.check("the container's environment and folder", ended.stdout == b"hello\n/usr/share\n", ended)
    sent = os.urandom(10_000_000)
    ended = kubectl.exec("cat", stdin=sent)
    same = hashlib.sha256(ended.stdout).digest() == hashlib.sha256(sent).digest()
    kubectl.check("10 MB of stdin come back, and stdin ends", same and ended.returncode == 0, len(ended.stdout))
    ended = kubectl.exec("/no/such/command")
    kubectl.check("a command that does not exist", ended.returncode == 1 and b"/no/such/command" in ended.stderr, ended)
    tails(kubectl, runs)


def tails(kubectl, runs):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(kubectl.tail, [False] * runs))
        typed = list(pool.map(kubectl.tail, [True] * runs))
    kubectl.check(f"{runs} tails whole, with their status", set(seen) == {(3_000_000, 7)}, seen)
    whole = sum(one == (3_000_000, 7) for one in typed)
    # Over WebSocket the API server translates. It resets a client whose stdin it has not read, which is the API
    # server's own error.
    errors = 0 if kubectl.transport == "spdy" else sum(code not in (0, 7) for _, code in typed)
    name = f"{runs} tails while stdin flows: {whole} whole, {errors} errors, no false success"
    kubectl.check(name, whole + errors == runs, typed)


def shells(kubectl):
    os.environ.update(kubectl.environment)
    shown, code = terminal([kubectl.path, "exec", "-it", POD, "-c", "main", "--", "sh"])
    ok = b"24 80" in shown and b"50 132" in shown and code == 3
    kubectl.check("exec -it: a terminal and its sizes", ok, (shown, code))

    # The shell existed before and stays: what one attached client sets, the next one reads.
    mark = f"{kubectl.transport}-{os.getpid()}"
    first = attached(kubectl, f"MARK={mark}; echo set-$((1 + 1))\n", "set-2")
    second = attached(kubectl, 'echo "is-$MARK"\n', f"is-{mark}")
    ok = b"set-2" in first and f"is-{mark}".encode() in second
    kubectl.check("attach -it: the container's own shell, which outlives who is attached", ok, (first, second))


def attached(kubectl, keys, until):
    """Types into the shell's terminal, and is killed when the terminal has shown a text."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(kubectl.path, [kubectl.path, "attach", "-it", POD, "-c", "shell"], kubectl.environment)
    shown, end = b"", time.monotonic() + 20
    os.write(fd, keys.encode())
    while until.encode() not in shown and time.monotonic() < end:
        if select.select([fd], [], [], 0.1)[0]:
            shown += os.read(fd, 4096)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)
    return shown


def attaches(kubectl):
    watcher = kubectl.start("attach", POD, "-c", "both", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    time.sleep(1)  # until it is attached
    mark = f"{kubectl.transport}-{os.getpid()}".encode()
    ended = kubectl.run("attach", "-i", POD, "-c", "both", stdin=b"%s\n" % mark)
    seen = (ended.stdout, lines(ended.stderr), ended.returncode)
    kubectl.check("attach -i: a line back on both outputs", seen == (b"out:%s\n" % mark, [b"err:%s" % mark], 0), seen)
    seen = watcher.stdout.readline() if select.select([watcher.stdout], [], [], 10)[0] else b""
    watcher.kill()
    watcher.wait()
    kubectl.check("attach: another sees it too", seen == b"out:%s\n" % mark, seen)
    logged = kubectl.run("logs", POD, "-c", "both").stdout
    kubectl.check("logs: both outputs", all(b"%s:%s\n" % (name, mark) in logged for name in (b"out", b"err")), logged)


def once(kubectl, node):
    """kubectl run -i: a container that reads its first client's stdin to the end, and then ends."""
    name = f"{POD}-once"
    overrides = {"spec": {"nodeName": node, "automountServiceAccountToken": False}}
    arguments = ("--image=local/none:1", "--restart=Never", "--rm", "--quiet", f"--overrides={json.dumps(overrides)}")
    # While stdin goes on, a client is attached.
    command = [kubectl.path, "run", "-i", name, *arguments, "--command", "--", "sh", "-c", "cat; exit 5"]
    kubectl_run = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kubectl.environment
    )
    stdout, stderr = kubectl_run.communicate(b"said once\n", timeout=60)
    seen = (stdout, kubectl_run.returncode)
    kubectl.check("run -i: stdin ends with its first client, and so does the container", seen == (b"said once\n", 5), (seen, stderr))


@contextlib.contextmanager
def forwarded(kubectl, *ports):
    command = ("port-forward", "--address=127.0.0.1", POD, *(f":{port}" for port in ports))
    forward = kubectl.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said = [forward.stdout.readline() for _ in ports]
        yield forward, [int(re.search(rb"127\.0\.0\.1:(\d+)", line)[1]) for line in said]
    finally:
        forward.kill()
        forward.communicate()


def forwards(kubectl, port, folder):
    def get(local):
        with urllib.request.urlopen(f"http://127.0.0.1:{local}/{os.path.basename(folder)}/body", timeout=30) as answer:
            return hashlib.sha256(answer.read()).hexdigest()

    with open(os.path.join(folder, "body"), "wb") as file:
        file.write(os.urandom(1_000_000))
    with open(file.name, "rb") as file:
        body = hashlib.sha256(file.read()).hexdigest()
    with forwarded(kubectl, port) as (_, (local,)):
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            got = list(pool.map(get, [local] * 50))
        kubectl.check("port-forward: 50 answers of 1 MB, 20 at a time", got == [body] * 50, set(got))
    with forwarded(kubectl, port, free_port()) as (forward, (local, nothing)):
        with socket.create_connection(("127.0.0.1", nothing), timeout=30) as refused:
            seen = refused.recv(1)
        alive = forward.poll() is None
        kubectl.check("port-forward: a port that nobody listens on ends at once", seen == b"", seen)
        kubectl.check("port-forward: and takes no other with it", alive and get(local) == body, alive)


def copies(kubectl, folder):
    near, far = os.path.join(folder, "near"), os.path.join(folder, "far")
    with open(near, "wb") as file:
        file.write(os.urandom(20_000_000))
    there = kubectl.run("cp", "-c", "main", near, f"{POD}:{far}")
    back = kubectl.run("cp", "-c", "main", f"{POD}:{far}", f"{near}.back")
    with open(near, "rb") as sent, open(f"{near}.back", "rb") as got:
        same = hashlib.file_digest(sent, "sha256").digest() == hashlib.file_digest(got, "sha256").digest()
    kubectl.check("cp: 20 MB there and back", same, (there, back))
    os.remove(f"{near}.back")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubectl", default="kubectl")
    parser.add_argument("--node", default="localhost", help="the node whose kubelet uses the program cri")
    parser.add_argument("--runs", type=int, default=20, help="how many runs check the tail of the output")
    parser.add_argument("--transport", nargs="+", choices=["websocket", "spdy"], default=["websocket", "spdy"])
    parser.add_argument("--pod", help="an existing pod; then only the tails are checked")
    arguments = parser.parse_args()
    if arguments.pod:
        for transport in arguments.transport:
            tails(Kubectl(arguments.kubectl, transport, arguments.pod), arguments.runs)
        return cluster.failed
    plain = Kubectl(arguments.kubectl, "websocket")
    port = free_port()

    # The folder that the HTTP server serves is the container's workingDir.
    folder = tempfile.mkdtemp(prefix="kubestream-", dir="/usr/share")
    try:
        plain.run("delete", "pod", POD, "--ignore-not-found", "--grace-period=1")
        made = plain.run("create", "-f", "-", stdin=json.dumps(manifest(arguments.node, port)).encode())
        ready = plain.run("wait", "--for=condition=Ready", f"pod/{POD}", "--timeout=60s")
        check("the pod is ready, by an exec probe", ready.returncode == 0, (made, ready))
        node = json.loads(plain.run("get", "node", arguments.node, "-o", "json").stdout)
        said = node["status"]["nodeInfo"]["containerRuntimeVersion"]
        check("the runtime is ours", said.startswith("kubestream://"), said)
        for transport in arguments.transport:
            kubectl = Kubectl(arguments.kubectl, transport)
            execs(kubectl, arguments.runs)
            shells(kubectl)
            attaches(kubectl)
            once(kubectl, arguments.node)
            forwards(kubectl, port, folder)
            copies(kubectl, folder)
        status = json.loads(plain.run("get", "pod", POD, "-o", "json").stdout)["status"]
        restarts = {one["name"]: one["restartCount"] for one in status["containerStatuses"]}
        check("no container was started twice", set(restarts.values()) == {0} and len(restarts) == 4, restarts)
    finally:
        began = time.monotonic()
        plain.run("delete", "pod", POD, "--grace-period=1")
        check(f"the pod is gone after {time.monotonic() - began:.0f} s", b"NotFound" in plain.run("get", "pod", POD).stderr)
        shutil.rmtree(folder)
    with socket.socket() as probe:
        check("and so is its process", probe.connect_ex(("127.0.0.1", port)) != 0)
    return cluster.failed


if __name__ == "__main__":
    sys.exit(main())
