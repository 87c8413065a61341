import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { LidoError } from "../../api/errors.ts";
import { operationHeader } from "../../api/progress.ts";
import {
  storageVolumeBackupSchema,
  storageVolumeBackupsPostSchema,
  storageVolumePatchSchema,
  storageVolumePostSchema,
  storageVolumePutSchema,
  storageVolumeSchema,
  storageVolumeSnapshotPatchSchema,
  storageVolumeSnapshotPutSchema,
  storageVolumeSnapshotSchema,
  storageVolumeSnapshotsPostSchema,
  storageVolumesPostSchema,
  storageVolumeStateSchema,
} from "../../api/types.ts";
import type { Context } from "../context.ts";
import { volumeTypes } from "../volumes/options.ts";
import { filterBy } from "../filter/filter.ts";
import { limitUpload } from "../http/stall.ts";
import { download } from "./download.ts";
import { addFiles } from "./files.ts";
import { background, checkEtag, created, done, newApp, route, type RouteRequest, sync } from "./route.ts";

const tag = "storage volumes";
const all = "/1.0/storage-pools/{pool}/volumes";
const one = `${all}/{type}/{name}`;
const snapshotsPath = `${one}/snapshots`;
const snapshotPath = `${snapshotsPath}/{snapshot}`;

type Services = Pick<Context, "volumes" | "volumeSnapshots" | "volumeCopies" | "volumeBackups">;

export function storageVolumeRoutes(context: Services): OpenAPIHono {
  const app = newApp();
  addVolumes(app, context);
  addSnapshots(app, context);
  addBackups(app, context);
  addFiles(app, {
    path: `${one}/files`,
    tag,
    open: (request) => {
      const [pool, type, name] = keyOf(request);
      return context.volumes.files(pool, needCustom(type, name));
    },
  });
  return app;
}

function addVolumes(
  app: OpenAPIHono,
  { volumes, volumeSnapshots, volumeCopies, volumeBackups }: Services,
): void {
  for (const path of [all, `${all}/{type}`]) {
    route(app, {
      method: "get",
      path,
      summary: "List storage volumes",
      tag,
      query: ["filter", "recursion"],
      returns: z.array(z.union([z.string(), storageVolumeSchema])),
    }, (request) => {
      const found = volumes.list(request.param("pool"), request.param("type") || undefined);
      const shown = filterBy(found, request.query("filter"));
      if (request.recursion() > 0) return sync(request.c, shown);
      return sync(
        request.c,
        shown.map(({ type, name }) => {
          const [volume, snapshot] = name.split("/");
          const path = `/1.0/storage-pools/${request.param("pool")}/volumes/${type}/${volume}`;
          return snapshot === undefined ? path : `${path}/snapshots/${snapshot}`;
        }),
      );
    });

    route(app, {
      method: "post",
      path,
      summary: "Create or copy a storage volume, or restore an uploaded backup (named by X-LXD-name)",
      tag,
      body: storageVolumesPostSchema,
      upload: async ({ c, param }) => {
        needCustom(param("type") || "custom", "");
        const body = c.req.raw.body as unknown as ReadableStream<Uint8Array> | null;
        const name = c.req.header("x-lxd-name") ?? "";
        const sizeBytes = Number(c.req.header("content-length")) || undefined;
        return background(
          c,
          await volumeBackups.import(
            param("pool"),
            name,
            body ? limitUpload(Readable.fromWeb(body)) : Readable.from([]),
            sizeBytes,
          ),
        );
      },
    }, async (request) => {
      const { c, body, param } = request;
      const post = { ...body, type: param("type") || body.type };
      if (post.source.type === "copy" || post.source.name) return background(c, volumeCopies.copy(param("pool"), post));
      if (post.source.type !== "" && post.source.type !== "none") {
        throw new LidoError("bad_request", `Unknown source type "${post.source.type}": "copy" is allowed`);
      }
      await volumes.create(param("pool"), post);
      return created(c, `/1.0/storage-pools/${param("pool")}/volumes/${post.type}/${post.name}`);
    });
  }

  route(
    app,
    { method: "get", path: one, summary: "A storage volume", tag, returns: storageVolumeSchema },
    (request) => {
      const { c } = request;
      const key = keyOf(request);
      return sync(c, volumes.get(...key), { etag: volumes.etag(...key) });
    },
  );

  for (const method of ["put", "patch"] as const) {
    route(
      app,
      {
        method,
        path: one,
        summary: "Change or restore a storage volume",
        tag,
        body: method === "patch" ? storageVolumePatchSchema : storageVolumePutSchema,
      },
      async (request) => {
        const { c, body } = request;
        const key = keyOf(request);
        checkEtag(c, volumes.etag(...key));
        if (body.restore) await volumeSnapshots.restore(key[0], needCustom(key[1], key[2]), body.restore).done();
        else await volumes.update(...key, body, method === "patch");
        return done(c);
      },
    );
  }

  route(app, {
    method: "post",
    path: one,
    summary: "Rename or move a storage volume",
    tag,
    body: storageVolumePostSchema,
  }, async (request) => {
    const { c, body } = request;
    const [pool, type, name] = keyOf(request);
    const to = body.name || name;
    if (body.pool && body.pool !== pool) {
      return background(c, volumeCopies.move(pool, needCustom(type, name), body.pool, to));
    }
    await volumes.rename(pool, needCustom(type, name), to);
    return created(c, `/1.0/storage-pools/${pool}/volumes/${type}/${to}`);
  });

  route(app, { method: "delete", path: one, summary: "Delete a storage volume", tag }, async (request) => {
    await volumes.delete(...keyOf(request));
    return done(request.c);
  });

  route(app, {
    method: "get",
    path: `${one}/state`,
    summary: "What a volume takes up",
    tag,
    returns: storageVolumeStateSchema,
  }, async (request) => sync(request.c, await volumes.state(...keyOf(request))));
}

function addBackups(app: OpenAPIHono, { volumeBackups }: Services): void {
  const list = `${one}/backups`;
  const path = `${list}/{backup}`;
  const keyed = (request: RouteRequest<unknown>): [string, string] => {
    const [pool, type, name] = keyOf(request);
    return [pool, needCustom(type, name)];
  };

  route(app, {
    method: "get",
    path: list,
    summary: "List a volume's backups",
    tag,
    query: ["recursion"],
    returns: z.array(z.union([z.string(), storageVolumeBackupSchema])),
  }, (request) => {
    const [pool, name] = keyed(request);
    const found = volumeBackups.list(pool, name);
    if (request.recursion() > 0) return sync(request.c, found);
    return sync(
      request.c,
      found.map((backup) => `/1.0/storage-pools/${pool}/volumes/custom/${name}/backups/${backup.name}`),
    );
  });
  route(
    app,
    {
      method: "post",
      path: list,
      summary: "Prepare a backup; it is made while it is downloaded, with the content of that moment",
      tag,
      body: storageVolumeBackupsPostSchema,
    },
    (request) => background(request.c, volumeBackups.create(...keyed(request), request.body)),
  );
  route(
    app,
    { method: "get", path, summary: "A backup", tag, returns: storageVolumeBackupSchema },
    (request) => sync(request.c, volumeBackups.get(...keyed(request), request.param("backup"))),
  );
  route(
    app,
    { method: "delete", path, summary: "Forget a backup", tag },
    (request) => background(request.c, volumeBackups.delete(...keyed(request), request.param("backup"))),
  );
  route(
    app,
    { method: "get", path: `${path}/export`, summary: "Download a backup", tag, bytes: "only" },
    async (request) => {
      const { stream, operation } = await volumeBackups.export(...keyed(request), request.param("backup"));
      const headers = { "content-type": "application/octet-stream", [operationHeader]: operation.id };
      return download(request.c, stream, headers, { isOperations: true });
    },
  );
}

function addSnapshots(app: OpenAPIHono, { volumeSnapshots }: Services): void {
  const keyed = (request: RouteRequest<unknown>): [string, string] => {
    const [pool, type, name] = keyOf(request);
    return [pool, needCustom(type, name)];
  };

  route(app, {
    method: "get",
    path: snapshotsPath,
    summary: "List a volume's snapshots",
    tag,
    query: ["recursion"],
    returns: z.array(z.union([z.string(), storageVolumeSnapshotSchema])),
  }, (request) => {
    const [pool, type, name] = keyOf(request);
    const found = volumeSnapshots.list(pool, type, name);
    if (request.recursion() > 0) return sync(request.c, found);
    return sync(
      request.c,
      found.map((snapshot) => `/1.0/storage-pools/${pool}/volumes/${type}/${name}/snapshots/${snapshot.name}`),
    );
  });

  route(app, {
    method: "post",
    path: snapshotsPath,
    summary: "Take a snapshot",
    tag,
    body: storageVolumeSnapshotsPostSchema,
  }, (request) => background(request.c, volumeSnapshots.create(...keyed(request), request.body)));

  route(
    app,
    { method: "get", path: snapshotPath, summary: "A snapshot", tag, returns: storageVolumeSnapshotSchema },
    (request) => {
      const key = [...keyOf(request), request.param("snapshot")] as const;
      return sync(request.c, volumeSnapshots.get(...key), { etag: volumeSnapshots.etag(...key) });
    },
  );

  for (const method of ["put", "patch"] as const) {
    route(
      app,
      {
        method,
        path: snapshotPath,
        summary: "Change a snapshot",
        tag,
        body: method === "patch" ? storageVolumeSnapshotPatchSchema : storageVolumeSnapshotPutSchema,
      },
      (request) => {
        const key = [...keyed(request), request.param("snapshot")] as const;
        checkEtag(request.c, volumeSnapshots.etag(key[0], "custom", key[1], key[2]));
        volumeSnapshots.update(...key, request.body);
        return done(request.c);
      },
    );
  }

  route(
    app,
    {
      method: "post",
      path: snapshotPath,
      summary: "Rename a snapshot",
      tag,
      body: z.object({ name: z.string() }).loose().meta({ id: "StorageVolumeSnapshotPost" }),
    },
    (request) =>
      background(request.c, volumeSnapshots.rename(...keyed(request), request.param("snapshot"), request.body.name)),
  );

  route(
    app,
    {
      method: "post",
      path: `${snapshotPath}/restore`,
      summary:
        "Make the volume what the snapshot holds, in the background: API extension storage_volume_snapshot_restore",
      tag,
    },
    (request) => background(request.c, volumeSnapshots.restore(...keyed(request), request.param("snapshot"))),
  );

  route(
    app,
    { method: "delete", path: snapshotPath, summary: "Delete a snapshot", tag },
    (request) => background(request.c, volumeSnapshots.delete(...keyed(request), request.param("snapshot"))),
  );
}

function keyOf(request: RouteRequest<unknown>): [pool: string, type: string, name: string] {
  return [request.param("pool"), request.param("type"), request.param("name")];
}

function needCustom(type: string, name: string): string {
  if (type === "custom") return name;
  const known = (volumeTypes as readonly string[]).includes(type);
  throw new LidoError(
    "bad_request",
    known
      ? `Storage volume "${name}" of type "${type}" belongs to an ${type === "image" ? "image" : "instance"}`
      : `Invalid storage volume type "${type}"`,
  );
}
