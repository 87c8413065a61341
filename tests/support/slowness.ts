import process from "node:process";

/** How many times slower than a plain host this machine is: limits of tests are multiplied by it. An emulated one says so. */
export const slowness = Number(process.env.LIDO_TEST_SLOWNESS ?? 1);
