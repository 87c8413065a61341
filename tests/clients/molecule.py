"""What Molecule does with LXD: its create and destroy playbooks drive the API by Ansible's module lxd_container; converge goes by exec.

The module is idempotent: it asks for the instance, compares, and makes the difference; a second run changes nothing."""
from rest import IMAGE, PREFIX, ok, operation, remove, request

NAMES = [f"{PREFIX}-molecule-{number}" for number in (1, 2)]
CONFIG = {"user.molecule": "instance", "limits.memory": "256MiB"}


def present(name, config):
    """lxd_container with state=started. Returns what it did."""
    did = []
    path = f"/1.0/instances/{name}"
    status, answer = request("GET", path)
    if status == 404:
        operation("POST", "/1.0/instances", {
            "name": name, "type": "container", "architecture": "x86_64", "config": config, "devices": {}, "ephemeral": False,
            "profiles": ["default"], "source": {"type": "image", "alias": IMAGE},
        })
        did.append("create")
        status, answer = request("GET", path)
    instance = answer["metadata"]
    if any(instance["config"].get(key) != value for key, value in config.items()):
        operation("PUT", path, {
            "architecture": instance["architecture"], "config": {**instance["config"], **config}, "devices": instance["devices"],
            "ephemeral": instance["ephemeral"], "profiles": instance["profiles"],
        })
        did.append("apply_config")
    if request("GET", f"{path}/state")[1]["metadata"]["status"] != "Running":
        operation("PUT", f"{path}/state", {"action": "start", "timeout": 30, "force": False})
        did.append("start")
    return did


def absent(name):
    did = []
    path = f"/1.0/instances/{name}"
    status, answer = request("GET", path)
    if status == 404:
        return did
    if answer["metadata"]["status"] != "Stopped":
        operation("PUT", f"{path}/state", {"action": "stop", "timeout": 30, "force": True})
        did.append("stop")
    operation("DELETE", path)
    did.append("delete")
    return did


def run(name, script):
    """A command of converge or verify with its recorded output."""
    end = operation("POST", f"/1.0/instances/{name}/exec", {
        "command": ["/bin/sh", "-c", script], "environment": {}, "wait-for-websocket": False, "record-output": True, "interactive": False,
    })
    log = end["metadata"]["output"]["1"]
    return end["metadata"]["return"], request("GET", log)[1].decode()


try:
    ok("create", [present(name, CONFIG) for name in NAMES], [["create", "start"]] * 2)
    ok("create again changes nothing", [present(name, CONFIG) for name in NAMES], [[]] * 2)
    ok("create with another setting applies it", present(NAMES[0], {"user.molecule": "changed"}), ["apply_config"])
    ok("converge", [run(name, "echo converged >/root/state; hostname") for name in NAMES], [(0, f"{name}\n") for name in NAMES])
    ok("verify", [run(name, "cat /root/state") for name in NAMES], [(0, "converged\n")] * 2)
    ok("verify fails where it must", run(NAMES[0], "exit 4")[0], 4)
    ok("destroy", [absent(name) for name in NAMES], [["stop", "delete"]] * 2)
    ok("destroy again changes nothing", [absent(name) for name in NAMES], [[]] * 2)
finally:
    for name in NAMES:
        remove(name)
