import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "zod";
import { imageAliasEntrySchema, imageAliasesPostSchema, imagePutSchema, imageSchema } from "../../api/types.ts";
import { LidoError } from "../../api/errors.ts";
import { filterBy } from "../filter/filter.ts";
import type { Context } from "../context.ts";
import { limitUpload } from "../http/stall.ts";
import { download } from "./download.ts";
import { background, checkEtag, created, done, newApp, route, sync } from "./route.ts";

const tag = "images";
const one = "/1.0/images/{fingerprint}";
const aliases = "/1.0/images/aliases";

export function imageRoutes({ images }: Pick<Context, "images">): OpenAPIHono {
  const app = newApp();
  // Before the route `one`, which would take "aliases" for a fingerprint.
  addAliases(app, images);

  route(app, {
    method: "get",
    path: "/1.0/images",
    summary: "List images",
    tag,
    query: ["filter", "recursion"],
    returns: z.array(z.union([z.string(), imageSchema])),
  }, (request) => {
    const found = filterBy(images.list(), request.query("filter"));
    return sync(
      request.c,
      request.recursion() > 0 ? found : found.map(({ fingerprint }) => `/1.0/images/${fingerprint}`),
    );
  });

  route(app, {
    method: "post",
    path: "/1.0/images",
    summary: "Import an image: one tarball, or metadata and rootfs as a form",
    tag,
  }, async ({ c }) => {
    const contentType = c.req.header("content-type") ?? "";
    if (contentType.startsWith("application/json")) {
      throw new LidoError("not_implemented", "Only uploaded images can be imported: a tarball, or metadata and rootfs");
    }
    const body = c.req.raw.body as unknown as ReadableStream<Uint8Array> | null;
    const operation = await images.import(body ? limitUpload(Readable.fromWeb(body)) : Readable.from([]), {
      contentType,
      filename: (c.req.header("x-lxd-filename") ?? "").split("/").at(-1)!.slice(0, 255),
      isPublic: /^(1|true)$/.test(c.req.header("x-lxd-public") ?? ""),
      properties: Object.fromEntries(new URLSearchParams(c.req.header("x-lxd-properties") ?? "")),
      fingerprint: c.req.header("x-lxd-fingerprint") ?? "",
    });
    return background(c, operation);
  });

  route(
    app,
    { method: "get", path: one, summary: "An image", tag, returns: imageSchema },
    ({ c, param }) => sync(c, images.get(param("fingerprint")), { etag: images.etag(param("fingerprint")) }),
  );

  for (const method of ["put", "patch"] as const) {
    route(app, { method, path: one, summary: "Change an image", tag, body: imagePutSchema }, ({ c, param, body }) => {
      checkEtag(c, images.etag(param("fingerprint")));
      images.update(param("fingerprint"), body, method === "patch");
      return done(c);
    });
  }

  route(
    app,
    { method: "delete", path: one, summary: "Delete an image", tag },
    ({ c, param }) => background(c, images.delete(param("fingerprint"))),
  );

  route(
    app,
    { method: "get", path: `${one}/export`, summary: "The image's files", tag, bytes: "only" },
    async ({ c, param }) => {
      const { image, files } = await images.export(param("fingerprint"));
      const [first, second] = files;
      if (!second) {
        return download(c, first!.open(), {
          "content-type": "application/octet-stream",
          "content-length": String(first!.sizeBytes),
          "content-disposition": `inline;filename="${image.filename.replaceAll('"', "") || image.fingerprint}"`,
        });
      }
      const boundary = image.fingerprint.slice(0, 32);
      const headers = { "content-type": `multipart/form-data; boundary=${boundary}` };
      return download(c, Readable.from(form(boundary, files)), headers);
    },
  );

  return app;
}

async function* form(
  boundary: string,
  files: { name: string; path: string; open: () => Readable }[],
): AsyncGenerator<Uint8Array> {
  for (const { name, path, open } of files) {
    const filename = path.split("/").at(-1);
    yield Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${name}"; filename="${filename}"\r\nContent-Type: application/octet-stream\r\n\r\n`,
    );
    yield* open();
    yield Buffer.from("\r\n");
  }
  yield Buffer.from(`--${boundary}--\r\n`);
}

function addAliases(app: OpenAPIHono, images: Context["images"]): void {
  // The name of an alias may contain slashes: it is the rest of the path.
  const path = `${aliases}/{name}`;

  route(app, {
    method: "get",
    path: aliases,
    summary: "List image aliases",
    tag,
    query: ["recursion"],
    returns: z.array(z.union([z.string(), imageAliasEntrySchema])),
  }, (request) => {
    const found = images.aliases();
    return sync(request.c, request.recursion() > 0 ? found : found.map(({ name }) => `${aliases}/${name}`));
  });

  route(
    app,
    { method: "post", path: aliases, summary: "Create an image alias", tag, body: imageAliasesPostSchema },
    ({ c, body }) => {
      images.createAlias(body);
      return created(c, `${aliases}/${body.name}`);
    },
  );

  route(
    app,
    { method: "get", path, summary: "An image alias", tag, returns: imageAliasEntrySchema },
    ({ c, param }) => sync(c, images.alias(param("name")), { etag: images.alias(param("name")) }),
  );

  const putSchema = z.object({ description: z.string(), target: z.string() }).partial().loose().meta({
    id: "ImageAliasPut",
  });
  for (const method of ["put", "patch"] as const) {
    route(app, { method, path, summary: "Change an image alias", tag, body: putSchema }, ({ c, param, body }) => {
      checkEtag(c, images.alias(param("name")));
      images.updateAlias(param("name"), body);
      return done(c);
    });
  }

  const renameSchema = z.object({ name: z.string() }).loose().meta({ id: "ImageAliasPost" });
  route(
    app,
    { method: "post", path, summary: "Rename an image alias", tag, body: renameSchema },
    ({ c, param, body }) => {
      images.renameAlias(param("name"), body.name);
      return created(c, `${aliases}/${body.name}`);
    },
  );

  route(app, { method: "delete", path, summary: "Delete an image alias", tag }, ({ c, param }) => {
    images.deleteAlias(param("name"));
    return done(c);
  });
}
