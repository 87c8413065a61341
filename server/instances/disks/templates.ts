/** Templates of an image: files that get the instance's name and settings written into them when it is made, copied or started.
 * The language is the small part of LXD's (pongo2) that images use: `{{ container.name }}`, `{{ config_get("user.key", "default") }}`,
 * `{{ properties.key }}` and `{% if a == "b" %} … {% else %} … {% endif %}`. Anything else is an error that names it, not a guess. */

import { LidoError, messageOf } from "../../../api/errors.ts";
import type { Config } from "../../../api/types.ts";
import { parseHostileYaml } from "../../archives/hostile_yaml.ts";

/** Ten times what images have; more would only cost the daemon time and memory. */
const templatesMax = 100, depthMax = 100, outputMax = 1 << 20, shownMax = 200;

export type Trigger = "create" | "copy" | "start";

export interface TemplateFile {
  /** Absolute path in the container. */
  readonly target: string;
  /** File name below the volume's `templates/`. */
  readonly template: string;
  readonly createOnly: boolean;
  readonly properties: Config;
}

export interface TemplateValues {
  readonly name: string;
  readonly architecture: string;
  readonly ephemeral: boolean;
  readonly privileged: boolean;
  readonly config: Config;
}

/** @param metadata Text of `metadata.yaml`. @returns The templates due at `trigger`. @throws {LidoError} bad_request when it is malformed. */
export function templatesFor(metadata: string, trigger: Trigger): TemplateFile[] {
  let templates: unknown;
  try {
    templates = (parseHostileYaml(metadata) as { templates?: unknown } | null)?.templates;
  } catch (error) {
    throw new LidoError("bad_request", `Could not parse metadata.yaml: ${messageOf(error).split("\n")[0]}`);
  }
  if (templates === undefined || templates === null) return [];
  if (typeof templates !== "object") throw new LidoError("bad_request", "Could not parse metadata.yaml: bad templates");
  const due: TemplateFile[] = [];
  for (const [target, value] of Object.entries(templates as Record<string, unknown>)) {
    const entry = value as {
      when?: unknown;
      template?: unknown;
      create_only?: unknown;
      properties?: Record<string, unknown>;
    };
    const when = Array.isArray(entry?.when) ? entry.when : [];
    if (!when.includes(trigger)) continue;
    const template = entry.template;
    // The name comes from the image: it must not lead out of templates/.
    if (typeof template !== "string" || !/^[^/\0]+$/.test(template) || template === "." || template === "..") {
      throw new LidoError("bad_request", `Attempt to read template outside of template directory: "${template}"`);
    }
    due.push({
      target,
      template,
      createOnly: entry.create_only === true,
      properties: Object.fromEntries(Object.entries(entry.properties ?? {}).map(([key, each]) => [key, String(each)])),
    });
  }
  if (due.length > templatesMax) {
    throw new LidoError("bad_request", `metadata.yaml has ${due.length} templates, ${templatesMax} are allowed`);
  }
  return due;
}

/** @throws {LidoError} bad_request for syntax that is not supported. */
export function render(source: string, file: TemplateFile, values: TemplateValues, trigger: Trigger): string {
  const instance: Config = {
    name: values.name,
    type: "container",
    architecture: values.architecture,
    ephemeral: String(values.ephemeral),
    privileged: String(values.privileged),
  };
  const scopes: Readonly<Record<string, Config>> = {
    container: instance,
    instance,
    config: values.config,
    properties: file.properties,
  };
  const evaluate = (text: string): string => {
    const expression = text.trim();
    const literal = /^"([^"]*)"$|^'([^']*)'$/.exec(expression);
    if (literal) return literal[1] ?? literal[2] ?? "";
    const call = /^config_get\(\s*("[^"]*"|'[^']*')\s*,\s*("[^"]*"|'[^']*')\s*\)$/.exec(expression);
    if (call) return values.config[call[1]!.slice(1, -1)] ?? call[2]!.slice(1, -1);
    const lookup = /^([a-z]+)\.([A-Za-z0-9_.-]+)$/.exec(expression);
    if (lookup && Object.hasOwn(scopes, lookup[1]!)) return scopes[lookup[1]!]![lookup[2]!] ?? "";
    if (expression === "trigger") return trigger;
    if (expression === "path") return file.target;
    throw unknown(file, expression);
  };
  const isTrue = (condition: string): boolean => {
    const at = condition.search(/[=!]=/);
    if (at < 0) return !["", "false"].includes(evaluate(condition));
    const isEqual = evaluate(condition.slice(0, at)) === evaluate(condition.slice(at + 2));
    return isEqual === (condition[at] === "=");
  };
  let output = "";
  // One entry an open `if`: whether its current branch is shown.
  const shown: boolean[] = [];
  // A newline after a tag is kept, as pongo2 does.
  for (const token of tokensOf(source)) {
    const visible = shown.every(Boolean);
    if (token.startsWith("{{")) {
      if (visible) output += evaluate(token.slice(2, -2));
    } else if (token.startsWith("{%")) {
      const tag = token.slice(2, -2).replace(/^-|-$/g, "").trim();
      if (tag.startsWith("if ")) {
        if (shown.length === depthMax) throw unknown(file, `more than ${depthMax} if within one another`);
        shown.push(visible && isTrue(tag.slice(3)));
      } else if (tag === "else" && shown.length > 0) shown.push(!shown.pop());
      else if (tag === "endif" && shown.length > 0) shown.pop();
      else throw unknown(file, tag);
    } else if (visible) output += token;
    if (output.length > outputMax) throw unknown(file, `output of more than ${outputMax} characters`);
  }
  if (shown.length > 0) throw unknown(file, "if without endif");
  return output;
}

/** Splits a template into text and tags; an unclosed tag is text. Takes linear time however many tags are opened. */
function* tokensOf(source: string): Generator<string> {
  const tags = [{ open: "{{", close: "}}", at: -1 }, { open: "{%", close: "%}", at: -1 }];
  for (let from = 0;;) {
    for (const tag of tags) if (tag.at < from) tag.at = indexOf(source, tag.open, from);
    const tag = tags[0]!.at < tags[1]!.at ? tags[0]! : tags[1]!;
    if (tag.at === Infinity) return yield source.slice(from);
    const end = source.indexOf(tag.close, tag.at + 2);
    // No later tag of this kind is closed either.
    if (end < 0) tag.at = Infinity;
    else {
      yield source.slice(from, tag.at);
      yield source.slice(tag.at, end + 2);
      from = end + 2;
    }
  }
}

function indexOf(source: string, what: string, from: number): number {
  const at = source.indexOf(what, from);
  return at < 0 ? Infinity : at;
}

const unknown = (file: TemplateFile, what: string): LidoError =>
  new LidoError(
    "bad_request",
    `Failed to render template "${file.template}": unsupported "${what.slice(0, shownMax)}"`,
  );
