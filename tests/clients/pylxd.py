"""The requests of the library pylxd, as its documentation shows its use: instances.create, start, execute, files, delete."""
from urllib.parse import quote

from rest import IMAGE, PREFIX, WebSocket, in_threads, ok, operation, remove, request, skip

NAME = f"{PREFIX}-pylxd"
PATH = f"/1.0/instances/{NAME}"


def execute(command, environment=None, stdin=b"", **more):
    """instance.execute(): three websockets, then the operation is asked for its return value. pylxd sends null for what is not given."""
    body = {
        "command": command,
        "environment": environment or {},
        "wait-for-websocket": True,
        "interactive": False,
        "user": None,
        "group": None,
        "cwd": None,
        **more,
    }
    status, answer = request("POST", f"{PATH}/exec", body)
    if status != 202:
        return status, answer.get("error"), ""
    url, fds = answer["operation"], answer["metadata"]["metadata"]["fds"]
    sockets = {number: WebSocket(f"{url}/websocket?secret={fds[number]}") for number in ("0", "1", "2")}
    if stdin:
        sockets["0"].send(2, stdin)
    sockets["0"].send(1, b"")
    out, err = in_threads(sockets["1"].read_to_end, sockets["2"].read_to_end)
    for each in sockets.values():
        each.close()
    _, answer = request("GET", f"{url}/wait?timeout=30")
    return answer["metadata"]["metadata"].get("return"), out.decode(), err.decode()


def story():
    status, answer = request("GET", "/1.0")
    ok("Client(): the host's information", (status, answer["metadata"]["auth"], "exec" in str(answer["metadata"])), (200, "trusted", True))
    config = {"name": NAME, "source": {"type": "image", "alias": IMAGE}, "profiles": None, "description": None, "ephemeral": None}
    operation("POST", "/1.0/instances", config)
    ok("instances.create(wait=True)", request("GET", PATH)[1]["metadata"]["status"], "Stopped")
    ok("instances.exists()", request("GET", f"{PATH}-nosuch")[0], 404)
    operation("PUT", f"{PATH}/state", {"action": "start", "timeout": 30, "force": True, "stateful": False})
    ok("instance.start(wait=True)", request("GET", f"{PATH}/state")[1]["metadata"]["status"], "Running")
    ok("instances.all()", f"/1.0/instances/{NAME}" in request("GET", "/1.0/instances")[1]["metadata"], True)
    ok("execute(): exit code and streams", execute(["sh", "-c", "echo out; echo err >&2; exit 3"]), (3, "out\n", "err\n"))
    ok("execute(environment=)", execute(["sh", "-c", 'echo "$A"'], {"A": "b c"}), (0, "b c\n", ""))
    ok("execute(stdin_payload=)", execute(["cat"], stdin=b"x" * 70000), (0, "x" * 70000, ""))
    ok("execute(user=, group=, cwd=)", execute(["sh", "-c", "id -u; id -g; pwd"], user=1000, group=1000, cwd="/tmp"), (0, "1000\n1000\n/tmp\n", ""))
    ok("execute() of what is missing", execute(["/no/such"])[0] in (127, 400), True)
    status, answer = request("GET", PATH)
    instance = answer["metadata"]
    instance["config"]["user.note"] = "kept"
    operation("PUT", PATH, {key: instance[key] for key in ("architecture", "config", "devices", "ephemeral", "profiles", "description")})
    ok("instance.save(wait=True)", request("GET", PATH)[1]["metadata"]["config"]["user.note"], "kept")
    operation("POST", f"{PATH}/snapshots", {"name": "s0", "stateful": False})
    ok("snapshots.create()", request("GET", f"{PATH}/snapshots")[1]["metadata"], [f"/1.0/instances/{NAME}/snapshots/s0"])
    operation("DELETE", f"{PATH}/snapshots/s0")
    for name, action, wanted in (("freeze", "freeze", "Frozen"), ("unfreeze", "unfreeze", "Running"), ("restart", "restart", "Running")):
        operation("PUT", f"{PATH}/state", {"action": action, "timeout": 30, "force": True})
        ok(f"instance.{name}()", request("GET", f"{PATH}/state")[1]["metadata"]["status"], wanted)
    files()
    operation("PUT", f"{PATH}/state", {"action": "stop", "timeout": 30, "force": True})
    operation("DELETE", PATH)
    ok("instance.delete(wait=True)", request("GET", PATH)[0], 404)


def files():
    path = f"{PATH}/files?path={quote('/root/pylxd')}"
    status, _ = request("POST", path, b"content", {"X-LXD-uid": "0", "X-LXD-gid": "0", "X-LXD-mode": "0600", "Content-Type": "application/octet-stream"})
    if status == 404:
        for name in ("files.put()", "files.get()", "files.delete()"):
            skip(name, "instances have no files API yet")
        return
    ok("files.put()", execute(["cat", "/root/pylxd"]), (0, "content", ""))
    ok("files.get()", request("GET", path)[1], b"content")
    ok("files.delete()", (request("DELETE", path)[0], request("GET", path)[0]), (200, 404))


try:
    story()
finally:
    remove(NAME)
