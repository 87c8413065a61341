/** `PUT /1.0/instances/NAME/state`: start, stop, restart, freeze and unfreeze as operations under the instance's lock. */

import { LidoError, messageOf } from "../../../api/errors.ts";
import type { InstanceStatePut } from "../../../api/types.ts";
import type { Operation } from "../../operations/operations.ts";
import type { Lifecycle, StopOptions } from "./lifecycle.ts";
import type { OperationLock, OperationLocks } from "../locks.ts";
import type { InstanceServices } from "../services.ts";
import type { InstanceTable } from "../table.ts";
import { progressOf } from "../disks/shift_progress.ts";

type StateAction = InstanceStatePut["action"];

const descriptions: Readonly<Record<StateAction, string>> = {
  start: "Starting instance",
  stop: "Stopping instance",
  restart: "Restarting instance",
  freeze: "Freezing instance",
  unfreeze: "Unfreezing instance",
};

const isStop = ({ action }: InstanceStatePut): boolean => action === "stop" || action === "restart";
/** As LXD: a timeout of 0 makes a stop forced. */
const isForcedStop = (put: InstanceStatePut): boolean => isStop(put) && (put.force || put.timeout === 0);

export class StateChanges {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #locks: OperationLocks;
  readonly #lifecycle: Lifecycle;

  constructor(services: InstanceServices, records: InstanceTable, locks: OperationLocks, lifecycle: Lifecycle) {
    this.#services = services;
    this.#records = records;
    this.#locks = locks;
    this.#lifecycle = lifecycle;
  }

  /** @throws {LidoError} not_found. */
  set(name: string, put: InstanceStatePut): Operation {
    this.#records.get(name);
    return this.#services.operations.start({
      description: descriptions[put.action],
      resources: { instances: [`/1.0/instances/${name}`] },
      // The client may cancel the wait for a clean stop, and the daemon's shutdown does; the container goes on shutting down.
      ...(isStop(put) && !isForcedStop(put) ? { cancel: () => {} } : {}),
      run: (operation) => this.#change(name, put, operation),
    });
  }

  /** The same for every instance that is not in that state yet. */
  setAll(put: InstanceStatePut): Operation {
    const names = this.#records.list().map((record) => record.name).filter((name) => this.#wants(name, put.action));
    return this.#services.operations.start({
      description: descriptions[put.action],
      resources: { instances: names.map((name) => `/1.0/instances/${name}`) },
      run: async (operation) => {
        const failures: string[] = [];
        await Promise.all(names.map(async (name) => {
          try {
            await this.#change(name, put, operation);
          } catch (error) {
            failures.push(` - Instance: ${name}: ${messageOf(error)}`);
          }
        }));
        if (failures.length > 0) {
          throw new LidoError("bad_request", `The following instances failed to update state:\n${failures.join("\n")}`);
        }
      },
    });
  }

  async #change(name: string, put: InstanceStatePut, operation: Operation): Promise<void> {
    using lock = await this.#locks.acquire(name, put.action, { takeOver: isForcedStop(put) });
    if (put.stateful) throw new LidoError("not_implemented", "Stateful stop and start aren't supported");
    switch (put.action) {
      case "start":
        // As LXD: starting a frozen container unfreezes it.
        if (this.#services.runtime.get(name)?.status === "frozen") return await this.#lifecycle.unfreeze(name);
        return operation.note(await this.#lifecycle.start(name, { progress: progressOf(operation) }));
      case "stop":
        return await this.#lifecycle.stop(name, stopOptions(put, operation, lock));
      case "restart":
        await this.#lifecycle.stop(name, { ...stopOptions(put, operation, lock), restart: true });
        if (lock.takenOver.reason === "stop") {
          throw new LidoError("bad_request", `Cannot restart "${name}": a forced stop took over, so it stays stopped`);
        }
        // A forced restart that took over starts the instance itself.
        if (lock.takenOver.aborted) return;
        operation.note(await this.#lifecycle.start(name, { progress: progressOf(operation) }));
        this.#services.events.lifecycle("instance-restarted", `/1.0/instances/${name}`);
        return;
      case "freeze":
        return await this.#lifecycle.freeze(name);
      case "unfreeze":
        return await this.#lifecycle.unfreeze(name);
    }
  }

  #wants(name: string, action: StateAction): boolean {
    const status = this.#services.runtime.get(name)?.status;
    if (action === "start") return !this.#lifecycle.isOn(name);
    if (action === "freeze") return status === "running";
    if (action === "unfreeze") return status === "frozen";
    return this.#lifecycle.isOn(name);
  }
}

function stopOptions(put: InstanceStatePut, operation: Operation, lock: OperationLock): StopOptions {
  return {
    force: isForcedStop(put),
    ...(put.timeout > 0 ? { timeoutMs: put.timeout * 1000 } : {}),
    lock,
    cancelled: operation.signal,
    onEnding: () => operation.seal(),
  };
}
