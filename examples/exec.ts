/** Runs commands in an instance from a program, and reads their output.
 *
 *   node_modules/.bin/deno run -A examples/exec.ts c1        (or: node_modules/.bin/bun examples/exec.ts c1)
 *
 * The daemon is the one of $LIDO_DIR. */
import { connect } from "../mod.ts";

const [name = "c1"] = process.argv.slice(2);
await using lido = await connect();
const instance = lido.instance(name);

// Output and exit code.
const uname = await instance.exec(["uname", "-n"]);
console.log("hostname:", (await new Response(uname.stdout).text()).trim(), await uname.status);

// Input through a stream: it comes back in upper case.
const upper = await instance.exec(["tr", "a-z", "A-Z"]);
const writer = upper.stdin.getWriter();
await writer.write(new TextEncoder().encode("shouted\n"));
await writer.close();
console.log("tr:", (await new Response(upper.stdout).text()).trim(), await upper.status);

// A terminal, and a signal.
const sleeper = await instance.exec(["sh", "-c", "stty size; exec sleep 1000"], {
  terminal: { width: 100, height: 40 },
});
const reader = sleeper.stdout.getReader();
console.log("stty:", new TextDecoder().decode((await reader.read()).value).trim());
sleeper.kill(9);
console.log("killed:", await sleeper.status);
