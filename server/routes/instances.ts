import { download } from "./download.ts";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import {
  configSchema,
  devicesSchema,
  instanceConsolePostSchema,
  instanceExecPostSchema,
  instanceFullSchema,
  instancePostSchema,
  instancePutSchema,
  instanceSchema,
  instanceSnapshotSchema,
  instancesPostSchema,
  instanceStatePutSchema,
  instanceStateSchema,
} from "../../api/types.ts";
import type { InstanceStatePut } from "../../api/types.ts";
import type { Context } from "../context.ts";
import { detachOptions } from "./detach.ts";
import { filterBy } from "../filter/filter.ts";
import { background, checkEtag, done, newApp, route, sync } from "./route.ts";
import { listLogs, removeLog } from "../instances/logs.ts";

/** "containers" is LXD's older name for instances; its clients fall back to it. */
const nouns = ["instances", "containers"] as const;

/** Accepts any word, which is then refused with LXD's text. */
const statePutSchema = instanceStatePutSchema.extend({ action: z.string().default("") });
const patchSchema = z.object({
  architecture: z.string(),
  description: z.string(),
  ephemeral: z.boolean(),
  config: configSchema.nullable(),
  devices: devicesSchema.nullable(),
  profiles: z.array(z.string()).nullable(),
}).partial().loose().meta({ id: "InstancePatch" });
const renameSchema = instancePostSchema.extend({
  migration: z.boolean().default(false),
  pool: z.string().default(""),
});
const snapshotsPostSchema = z.object({
  name: z.string().default(""),
  stateful: z.boolean().default(false),
  expires_at: z.string().nullish(),
}).loose().meta({ id: "InstanceSnapshotsPost" });
/** Null counts as absent, and absent changes nothing. */
const snapshotPutSchema = z.object({ expires_at: z.string().optional() }).loose().meta({ id: "InstanceSnapshotPut" });

/** `/1.0/instances` and all below it. */
export function instanceRoutes(context: Context): OpenAPIHono {
  const app = newApp();
  for (const noun of nouns) {
    addInstances(app, context, `/1.0/${noun}`);
    addState(app, context, `/1.0/${noun}`);
    addSnapshots(app, context, `/1.0/${noun}`);
    addLogs(app, context, `/1.0/${noun}`);
  }
  return app;
}

function addInstances(app: OpenAPIHono, { instances }: Context, root: string): void {
  const tag = "instances";
  const path = `${root}/{name}`;

  route(
    app,
    {
      method: "get",
      path: root,
      tag,
      summary: "List instances",
      query: ["filter", "recursion"],
      returns: z.array(z.string()).or(z.array(instanceFullSchema)),
    },
    async ({ c, recursion, query }) => {
      const filter = query("filter");
      const level = recursion();
      if (level === 0 && !filter) return sync(c, instances.names().map((name) => `${root}/${name}`));
      const found = filterBy(level === 2 ? await instances.listFull() : instances.list(), filter);
      return sync(c, level === 0 ? found.map(({ name }) => `${root}/${name}`) : found);
    },
  );
  route(
    app,
    { method: "post", path: root, tag, summary: "Make an instance", body: instancesPostSchema },
    ({ c, body }) => background(c, instances.create(body)),
  );
  route(
    app,
    {
      method: "put",
      path: root,
      tag,
      summary: "Change the state of all instances",
      body: z.object({ state: statePutSchema.prefault({}) }).loose(),
    },
    ({ c, body }) => background(c, instances.setStates(checkAction(body.state))),
  );
  route(
    app,
    {
      method: "get",
      path,
      tag,
      summary: "Show an instance",
      query: ["recursion"],
      returns: instanceSchema.or(instanceFullSchema),
    },
    async ({ c, param, recursion }) => {
      const name = param("name");
      const view = recursion() > 0 ? await instances.getFull(name) : instances.get(name);
      return sync(c, view, { etag: instances.etag(name) });
    },
  );
  route(
    app,
    {
      method: "put",
      path,
      tag,
      summary: "Replace an instance's settings, or restore a snapshot",
      query: ["detach"],
      body: instancePutSchema,
    },
    ({ c, body, param, query }) => {
      checkEtag(c, instances.etag(param("name")));
      return background(c, instances.update(param("name"), body, detachOptions(query("detach"))));
    },
  );
  route(
    app,
    {
      method: "patch",
      path,
      tag,
      summary: "Change some of an instance's settings",
      query: ["detach"],
      body: patchSchema,
    },
    ({ c, body, param, query }) => {
      checkEtag(c, instances.etag(param("name")));
      const { config, devices, profiles, ...rest } = body;
      const put = {
        ...rest,
        ...(config ? { config } : {}),
        ...(devices ? { devices } : {}),
        ...(profiles ? { profiles } : {}),
      };
      return background(c, instances.patch(param("name"), put, detachOptions(query("detach"))));
    },
  );
  route(
    app,
    { method: "post", path, tag, summary: "Rename an instance", body: renameSchema },
    ({ c, body, param }) => {
      if (body.migration) {
        throw new LidoError("not_implemented", "Moving an instance between pools or servers isn't supported");
      }
      return background(c, instances.rename(param("name"), body.name));
    },
  );
  route(
    app,
    { method: "delete", path, tag, summary: "Delete a stopped instance" },
    ({ c, param }) => background(c, instances.delete(param("name"))),
  );
}

function addState(app: OpenAPIHono, { instances, exec }: Context, root: string): void {
  const tag = "instances";
  const path = `${root}/{name}`;

  route(
    app,
    {
      method: "get",
      path: `${path}/state`,
      tag,
      summary: "Show what an instance does and uses",
      returns: instanceStateSchema,
    },
    async ({ c, param }) => sync(c, await instances.state(param("name"))),
  );
  route(
    app,
    {
      method: "put",
      path: `${path}/state`,
      tag,
      summary: "Start, stop, restart, freeze or unfreeze an instance",
      body: statePutSchema,
    },
    ({ c, body, param }) => background(c, instances.setState(param("name"), checkAction(body))),
  );
  route(
    app,
    {
      method: "post",
      path: `${path}/exec`,
      tag,
      summary: "Run a command in an instance",
      body: instanceExecPostSchema,
    },
    async ({ c, body, param }) => background(c, await exec.start(param("name"), body)),
  );
}

function addSnapshots(app: OpenAPIHono, { instances }: Context, root: string): void {
  const tag = "instances";
  const list = `${root}/{name}/snapshots`;
  const path = `${list}/{snapshot}`;

  route(
    app,
    {
      method: "get",
      path: list,
      tag,
      summary: "List an instance's snapshots",
      query: ["recursion"],
      returns: z.array(z.string()).or(z.array(instanceSnapshotSchema)),
    },
    ({ c, param, recursion }) => {
      const snapshots = instances.snapshots(param("name"));
      if (recursion() > 0) return sync(c, snapshots);
      return sync(c, snapshots.map((each) => `${root}/${param("name")}/snapshots/${each.name}`));
    },
  );
  route(
    app,
    { method: "post", path: list, tag, summary: "Snapshot an instance", body: snapshotsPostSchema },
    ({ c, body, param }) =>
      background(c, instances.createSnapshot(param("name"), { ...body, expires_at: body.expires_at ?? null })),
  );
  route(
    app,
    { method: "get", path, tag, summary: "Show a snapshot", returns: instanceSnapshotSchema },
    ({ c, param }) => {
      const snapshot = instances.snapshot(param("name"), param("snapshot"));
      return sync(c, snapshot, { etag: [snapshot.expires_at] });
    },
  );
  // As LXD: only the expiry can change, so PUT and PATCH do the same.
  for (const method of ["put", "patch"] as const) {
    route(
      app,
      { method, path, tag, summary: "Change a snapshot's expiry", body: snapshotPutSchema },
      ({ c, body, param }) => {
        checkEtag(c, [instances.snapshot(param("name"), param("snapshot")).expires_at]);
        return background(c, instances.updateSnapshot(param("name"), param("snapshot"), body.expires_at));
      },
    );
  }
  route(
    app,
    { method: "post", path, tag, summary: "Rename a snapshot", body: renameSchema },
    ({ c, body, param }) => {
      if (body.migration) throw new LidoError("not_implemented", "Migration between servers isn't supported");
      return background(c, instances.renameSnapshot(param("name"), param("snapshot"), body.name));
    },
  );
  route(
    app,
    { method: "delete", path, tag, summary: "Delete a snapshot" },
    ({ c, param }) => background(c, instances.deleteSnapshot(param("name"), param("snapshot"))),
  );
}

function addLogs(app: OpenAPIHono, { instances, consoles }: Context, root: string): void {
  const tag = "instances";
  const list = `${root}/{name}/logs`;
  const console = `${root}/{name}/console`;

  route(
    app,
    { method: "get", path: list, tag, summary: "List an instance's log files", returns: z.array(z.string()) },
    async ({ c, param }) => {
      const files = await listLogs(instances.logDirectory(param("name")));
      return sync(c, files.map((file) => `${root}/${param("name")}/logs/${file}`));
    },
  );
  route(
    app,
    { method: "get", path: `${list}/{file}`, tag, summary: "Read a log file", bytes: "only" },
    async ({ c, param }) => download(c, await consoles.read(param("name"), param("file")), textHeaders),
  );
  route(
    app,
    { method: "delete", path: `${list}/{file}`, tag, summary: "Delete a log file" },
    async ({ c, param }) => {
      await removeLog(instances.logDirectory(param("name")), param("file"));
      return done(c);
    },
  );
  route(
    app,
    { method: "get", path: console, tag, summary: "Read what the console printed", bytes: "only" },
    async ({ c, param }) => download(c, await consoles.retrieve(param("name")), textHeaders),
  );
  route(
    app,
    { method: "delete", path: console, tag, summary: "Empty the console's log" },
    async ({ c, param }) => {
      await consoles.clear(param("name"));
      return done(c);
    },
  );
  route(
    app,
    { method: "post", path: console, tag, summary: "Attach to the console", body: instanceConsolePostSchema },
    ({ c, body, param }) => background(c, consoles.attach(param("name"), body)),
  );
}

/** @throws {LidoError} bad_request with LXD's text. */
function checkAction(put: z.infer<typeof statePutSchema>): InstanceStatePut {
  const checked = instanceStatePutSchema.safeParse(put);
  if (!checked.success) throw new LidoError("bad_request", `Unknown action: '${put.action}'`);
  return checked.data;
}

const textHeaders = { "content-type": "application/octet-stream" };
