import process from "node:process";

/** How many times slower than a plain host this machine is; tests multiply their limits by it. Set on emulated machines. */
export const slowness = Number(process.env.LIDO_TEST_SLOWNESS ?? 1);
