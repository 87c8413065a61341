/** Start and stop. Callers hold the instance's operation lock; work that no request caused (a container has ended) takes it here. */

import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { LidoError, messageOf, wrongState } from "../../../api/errors.ts";
import type { Config, InstanceExit } from "../../../api/types.ts";
import { replaceConsoleLog } from "../../../drivers/runtime/console/log.ts";
import { isScript } from "../../../drivers/runtime/not_executed.ts";
import type { IdMap } from "../../../drivers/host/id_map.ts";
import type { ContainerSpec, MountSpec } from "../../../drivers/runtime/runtime.ts";
import { isTrue } from "../../config/instance.ts";
import { checkExpandedDevices, disksOf } from "../../config/devices.ts";
import type { Disks } from "../disks/disks.ts";
import { checkOwnRange, formatIdmap, parseIdmap } from "../../ids/idmaps.ts";
import type { LifecycleAction, LifecycleContext } from "../../events/actions.ts";
import {
  describeExit,
  examineExit,
  type ExitStatus,
  explainExit,
  explainRefusal,
  isClean,
  isReboot,
} from "./init_end.ts";
import { askToHalt } from "./init_signal.ts";
import { initUp } from "./init_up.ts";
import { limitsOf } from "./limits.ts";
import type { OperationLock, OperationLocks } from "../locks.ts";
import type { InstanceServices } from "../services.ts";
import { type InstanceRecord, type InstanceTable, merge } from "../table.ts";
import type { Rootfs } from "../disks/rootfs.ts";
import { type ShiftProgress, untold } from "../disks/shift_progress.ts";
import { syscallPolicy } from "../../config/syscalls.ts";

type StopOutcome = "ended" | "too late" | "taken over" | "cancelled";

export interface StartOptions {
  /** Of a change of owners. */
  readonly progress?: ShiftProgress;
  readonly unwatched?: AbortSignal;
}

export interface StopOptions {
  readonly force: boolean;
  /** For a clean stop; absent means ten minutes. */
  readonly timeoutMs?: number;
  /** Whether it will be started again. */
  readonly restart?: boolean;
  /** The operation's lock; absent for an operation that cannot be taken over. */
  readonly lock?: OperationLock;
  /** Ends the wait of a clean stop: the client gave up, or the daemon shuts down. */
  readonly cancelled?: AbortSignal;
  /** Called when the stop can no longer be cancelled. */
  readonly onEnding?: () => void;
}

/** How long a clean stop may take when the client names no limit, as LXD's. */
const stopTimeoutMs = 10 * 60_000;

export class Lifecycle {
  readonly #services: InstanceServices;
  readonly #records: InstanceTable;
  readonly #disks: Disks;
  readonly #rootfs: Rootfs;
  readonly #locks: OperationLocks;
  readonly #remove: (record: InstanceRecord) => Promise<void>;
  /** Stops that wait for their container's end. */
  readonly #waiting = new Map<string, (status: ExitStatus) => void>();
  readonly #background = new Set<Promise<void>>();
  /** Instances whose container has ended to reboot and is not started yet. They count as running; a waiting stop or start of a user comes first. */
  readonly #rebooting = new Set<string>();
  readonly #closing = new AbortController();

  /** @param parts.remove Deletes an ephemeral instance that has ended. */
  constructor(parts: {
    services: InstanceServices;
    records: InstanceTable;
    disks: Disks;
    rootfs: Rootfs;
    locks: OperationLocks;
    remove: (record: InstanceRecord) => Promise<void>;
  }) {
    this.#services = parts.services;
    this.#records = parts.records;
    this.#disks = parts.disks;
    this.#rootfs = parts.rootfs;
    this.#locks = parts.locks;
    this.#remove = parts.remove;
    this.#services.runtime.onExit((name, status) => this.#ended(name, status));
  }

  /** Whether its container runs, or has just ended to reboot. */
  isOn(name: string): boolean {
    return this.#services.runtime.get(name) !== undefined || this.#rebooting.has(name);
  }

  /** Starts the container; returns when it is up, as defined in `init_up.ts`.
   * @param options.unwatched Ends the wait for that: the start does not fail if the init ends after it.
   * @returns A note if the init has ended already, without a failure. @throws {LidoError} When its init has ended by a failure. */
  async start(name: string, options: StartOptions = {}): Promise<string | undefined> {
    const { runtime } = this.#services;
    const { progress = untold, unwatched } = options;
    if (runtime.get(name)) throw wrongState("The instance is already running", name);
    using _rebooted = { [Symbol.dispose]: () => this.#rebooting.delete(name) };
    const record = this.#records.get(name);
    const { config, devices } = this.#records.expand(record);
    checkExpandedDevices(devices);
    const map = parseIdmap(config["volatile.idmap.next"]);
    checkOwnRange(config, await this.#services.ids.ranges());
    await using revert = new AsyncDisposableStack();
    let isRefused = false;
    // As LXD: an ephemeral instance is deleted when its container cannot be started.
    revert.defer(async () => {
      if (isRefused) await this.#removeEphemeral(name, false);
    });
    revert.defer(() => this.#rootfs.release(record));
    const { rootfs, shifted } = await this.#rootfs.prepare(record, map, progress);
    const trigger = config["volatile.apply_template"];
    if (trigger === "create" || trigger === "copy") {
      await this.#rootfs.applyTemplates(this.#records.get(name), trigger);
      this.#records.setConfig(name, { "volatile.apply_template": undefined });
    }
    await this.#rootfs.applyTemplates(this.#records.get(name), "start");
    revert.defer(() => this.#disks.releaseAll(name));
    revert.defer(() => this.#services.guests.release(name));
    const mounts: MountSpec[] = await this.#services.guests.prepare(name, config);
    const disks = disksOf(devices);
    await this.#disks.hold(disks, async () => {
      for (const disk of disks) {
        const mount = await this.#disks.prepare(name, disk, map, progress);
        if (mount) mounts.push(mount);
      }
    });
    const specification = await this.#specification(record, config, { rootfs, shifted, map, mounts });
    // Each start begins a new log. It is made empty now, so that a client who reads it before any output does not find it missing.
    replaceConsoleLog(specification.consoleLog, new Uint8Array());
    const { promise: ended, resolve } = Promise.withResolvers<ExitStatus>();
    const seen: { end?: ExitStatus } = {};
    this.#waiting.set(name, (status) => resolve(seen.end = status));
    using _waiting = { [Symbol.dispose]: () => this.#waiting.delete(name) };
    const isInitScript = isScript(specification.rootfs, specification.init?.[0] ?? "/sbin/init");
    const startedAt = performance.now();
    const running = await runtime.start(specification).catch((error) => {
      isRefused = true;
      throw this.#notStarted(name, error);
    });
    revert.move();
    const up = initUp({ pid: running.pid, isScript: isInitScript }, ended, unwatched);
    this.#services.database.transaction(() => {
      this.#records.update(name, {
        config: merge(this.#records.get(name).config, {
          "volatile.idmap.current": formatIdmap(map),
          "volatile.idmap.next": formatIdmap(map),
          "volatile.last_state.power": "RUNNING",
        }),
        lastUsedAt: new Date().toISOString(),
      });
      this.#records.setMounted(name, devices);
    });
    await up;
    const { end } = seen;
    if (end && !isReboot(end)) return await this.#endedAtOnce(name, end, performance.now() - startedAt);
    this.#publish("instance-started", name);
    if (end) this.#endedByItself(name, end);
    return undefined;
  }

  /** A clean stop ends in one of four ways: the container has ended; the time is up; the wait is cancelled, and the container goes on shutting down;
   * a forced stop takes over, and the container is killed.
   * @throws {LidoError} bad_request when it is stopped already, the time is up or the wait was cancelled. */
  async stop(name: string, options: StopOptions): Promise<void> {
    const { runtime } = this.#services;
    const { lock } = options;
    const running = runtime.get(name);
    if (!running) {
      // The container was about to boot again.
      if (this.#rebooting.delete(name)) return await this.#removeEphemeral(name, options.restart === true);
      // The operation that gave way to this one has stopped it.
      if (options.force && lock?.hasTakenOver) return;
      throw wrongState("The instance is already stopped", name);
    }
    let isForced = options.force;
    if (!isForced) {
      if (running.status === "frozen") await runtime.unfreeze(name);
      let how = await this.#shutDown(name, running.pid, options);
      // The container may have ended in the same moment.
      if (!runtime.get(name)) how = "ended";
      if (how === "cancelled") throw options.cancelled!.reason;
      isForced = how === "taken over";
      if (how === "too late") {
        throw new LidoError(
          "bad_request",
          `Failed shutting down instance, status is "Running": context deadline exceeded`,
        );
      }
    }
    options.onEnding?.();
    if (isForced) await this.#kill(name);
    // An ephemeral instance is deleted if the last request was to stop it, not to restart it.
    await this.#tidy(name, options.restart === true && lock?.takenOver.reason !== "stop", {
      at: new Date().toISOString(),
      exit_code: null,
      signal: null,
      description: isForced ? "killed by a forced stop" : "shut down",
      cause: "",
      console: [],
    });
    this.#publish(isForced ? "instance-stopped" : "instance-shutdown", name);
  }

  /** Kills the container. The registered waiter keeps `#ended` from cleaning up, which the caller does. */
  async #kill(name: string): Promise<void> {
    this.#waiting.set(name, () => {});
    using _waiting = { [Symbol.dispose]: () => this.#waiting.delete(name) };
    await this.#services.runtime.destroy(name);
  }

  async freeze(name: string): Promise<void> {
    const running = this.#services.runtime.get(name);
    if (!running) throw wrongState("The container isn't running", name);
    if (running.status === "frozen") throw wrongState("The container is already frozen", name);
    await this.#services.runtime.freeze(name);
    this.#publish("instance-paused", name);
  }

  async unfreeze(name: string): Promise<void> {
    const running = this.#services.runtime.get(name);
    if (!running) throw wrongState("The container isn't running", name);
    if (running.status !== "frozen") throw wrongState("The container is already running", name);
    await this.#services.runtime.unfreeze(name);
    this.#publish("instance-resumed", name);
  }

  /** After a restart of the daemon: cleans up after the containers that ended meanwhile.
   * @returns The instances to start now, in their order. */
  async takeUp(): Promise<InstanceRecord[]> {
    const due: { record: InstanceRecord; priority: number }[] = [];
    const records = this.#records.list();
    for (const [index, { config }] of this.#records.expandAll(records).entries()) {
      const record = records[index]!;
      if (this.#services.runtime.get(record.name)) continue;
      const wasRunning = config["volatile.last_state.power"] === "RUNNING";
      if (wasRunning) {
        using _lock = await this.#locks.wait(record.name, "stop", { tidies: true });
        this.#services.log.info({ instance: record.name }, "has ended while no daemon ran");
        await this.#tidy(record.name, !record.ephemeral);
        if (record.ephemeral) continue;
      }
      const autostart = config["boot.autostart"];
      if (autostart ? isTrue(autostart) : wasRunning) {
        due.push({ record, priority: Number(config["boot.autostart.priority"] ?? 0) });
      }
    }
    return due.sort((a, b) => b.priority - a.priority).map((each) => each.record);
  }

  /** Waits for work in the background. A container that ends from now on to reboot is left to the next daemon. */
  async close(): Promise<void> {
    this.#closing.abort();
    while (this.#background.size > 0) await Promise.allSettled(this.#background);
  }

  async #specification(
    record: InstanceRecord,
    config: Config,
    parts: { rootfs: string; shifted: boolean; map: IdMap | undefined; mounts: MountSpec[] },
  ): Promise<ContainerSpec> {
    const consoleLog = this.#consoleLog(record.name);
    await mkdir(dirname(consoleLog), { recursive: true, mode: 0o700 });
    return {
      name: record.name,
      rootfs: parts.rootfs,
      rootfsShifted: parts.shifted,
      ...(parts.map ? { idmap: parts.map } : {}),
      mounts: parts.mounts,
      nesting: isTrue(config["security.nesting"]),
      syscalls: syscallPolicy(config),
      environment: { container: "lxc", ...environmentOf(config) },
      consoleLog,
      limits: limitsOf(config),
    };
  }

  /** Asks the init to halt its system, and waits. */
  async #shutDown(name: string, pid: number, options: StopOptions): Promise<StopOutcome> {
    const { promise: over, resolve } = Promise.withResolvers<StopOutcome>();
    this.#waiting.set(name, () => resolve("ended"));
    using listening = new DisposableStack();
    listening.defer(() => this.#waiting.delete(name));
    const deadline = setTimeout(() => resolve("too late"), options.timeoutMs ?? stopTimeoutMs);
    listening.defer(() => clearTimeout(deadline));
    const onAbort = (signal: AbortSignal | undefined, work: () => void): void => {
      if (signal?.aborted) work();
      signal?.addEventListener("abort", work);
      listening.defer(() => signal?.removeEventListener("abort", work));
    };
    onAbort(options.lock?.takenOver, () => resolve("taken over"));
    onAbort(options.cancelled, () => resolve("cancelled"));
    await askToHalt(pid, {
      over,
      send: (signal) =>
        this.#services.runtime.kill(name, signal).catch((error) => {
          // No error if the container has just ended.
          if (this.#services.runtime.get(name)) throw error;
        }),
    });
    return await over;
  }

  #ended(name: string, status: ExitStatus): void {
    const waiting = this.#waiting.get(name);
    if (waiting) waiting(status);
    else this.#endedByItself(name, status);
  }

  #endedByItself(name: string, status: ExitStatus): void {
    if (isReboot(status) && this.#closing.signal.aborted) return;
    this.#inBackground(async () => {
      if (!await this.#tidyEnded(name, status)) return;
      await this.#bootAgain(name);
    }, name);
  }

  /** @returns Whether it is to be started again. */
  async #tidyEnded(name: string, status: ExitStatus): Promise<boolean> {
    using _lock = await this.#locks.wait(name, "stop", { tidies: true });
    // A forced stop has cleaned up already, or the instance was started again meanwhile.
    const record = this.#records.find(name);
    if (!record || this.#services.runtime.get(name)) return false;
    if (record.config["volatile.last_state.power"] !== "RUNNING") return false;
    const exit = await this.#examine(record, status);
    await this.#tidy(name, isReboot(status), exit);
    if (isReboot(status)) this.#rebooting.add(name);
    this.#publish("instance-shutdown", name, contextOf(exit));
    return isReboot(status);
  }

  async #bootAgain(name: string): Promise<void> {
    using lock = await this.#locks.wait(name, "start");
    // An operation that had the lock in between has started, stopped or deleted the instance.
    if (!this.#rebooting.has(name) || !this.#records.find(name)) return void this.#rebooting.delete(name);
    const unwatched = AbortSignal.any([lock.awaited, this.#closing.signal]);
    try {
      const note = await this.start(name, { unwatched });
      if (note !== undefined) this.#services.log.warn({ instance: name }, note);
    } catch (error) {
      this.#services.log.warn(
        { instance: name, error: messageOf(error) },
        "could not start a container that boots again",
      );
    }
  }

  /** Cleans up after an init that has ended before it was up. @returns A note if that was no failure. @throws {LidoError} Otherwise. */
  async #endedAtOnce(name: string, status: ExitStatus, afterMs: number): Promise<string> {
    const record = this.#records.get(name);
    const exit = await this.#examine(record, status);
    await this.#tidy(name, false, exit);
    this.#publish("instance-shutdown", name, contextOf(exit));
    if (isClean(status)) return `"${name}" ended at once ${describeExit(status)}`;
    const { cause, console } = exit;
    this.#services.log.warn({ instance: name, exit: exit.description, cause, console }, "the init ended at once");
    throw new LidoError(
      "bad_request",
      `Failed to start "${name}": its init ended after ${Math.round(afterMs)} ms ${exit.description}${
        explainExit(exit)
      }`,
    );
  }

  /** Records a start that the runtime refused as the instance's last exit. @returns The error to throw. */
  #notStarted(name: string, error: unknown): unknown {
    if (!(error instanceof LidoError)) return error;
    const cause = explainRefusal(error.message, this.#records.expand(this.#records.get(name)).config);
    const exit = { exit_code: null, signal: null, description: "before it was started", cause, console: [] };
    this.#records.setLastExit(name, { at: new Date().toISOString(), ...exit });
    this.#services.log.warn({ instance: name, cause }, "the init was not started");
    return new LidoError(error.code, cause);
  }

  #examine(record: InstanceRecord, status: ExitStatus): Promise<InstanceExit> {
    return examineExit(status, {
      consoleLog: this.#consoleLog(record.name),
      root: this.#rootfs.path(record),
      init: ["/sbin/init"],
      config: this.#records.expand(record).config,
    });
  }

  #consoleLog(name: string): string {
    return `${this.#services.logs}/${name}/console.log`;
  }

  /** Cleans up after a container that has ended: removes runtime state and mounts, and deletes an ephemeral instance. */
  async #tidy(name: string, restart: boolean, exit?: InstanceExit): Promise<void> {
    await this.#services.runtime.destroy(name);
    await this.#services.guests.release(name);
    await this.#disks.releaseAll(name);
    const record = this.#records.get(name);
    await this.#rootfs.release(record);
    this.#services.database.transaction(() => {
      this.#records.setConfig(name, { "volatile.last_state.power": "STOPPED" });
      this.#records.setMounted(name, undefined);
      if (exit) this.#records.setLastExit(name, exit);
    });
    await this.#removeEphemeral(name, restart);
  }

  async #removeEphemeral(name: string, restart: boolean): Promise<void> {
    const record = this.#records.get(name);
    if (record.ephemeral && !restart) await this.#remove(record);
  }

  #inBackground(work: () => Promise<void>, instance: string): void {
    const task = work().catch((error) =>
      this.#services.log.warn({ instance, error: messageOf(error) }, "could not tidy up after a container")
    ).finally(() => this.#background.delete(task));
    this.#background.add(task);
  }

  #publish<A extends LifecycleAction>(action: A, name: string, context?: LifecycleContext<A>): void {
    this.#services.events.lifecycle(action, `/1.0/instances/${name}`, context);
  }
}

/** Context of an end's lifecycle event. */
function contextOf({ exit_code, signal, description, cause }: InstanceExit): LifecycleContext<"instance-shutdown"> {
  return { exit_code, signal, description, ...(cause === "" ? {} : { cause }) };
}

/** @returns The variables that `environment.*` keys set. */
export function environmentOf(config: Config): Config {
  const prefix = "environment.";
  return Object.fromEntries(
    Object.entries(config).filter(([key]) => key.startsWith(prefix)).map(([key, value]) => [
      key.slice(prefix.length),
      value,
    ]),
  );
}
