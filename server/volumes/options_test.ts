import assert from "node:assert/strict";
import type { Driver } from "../../drivers/storage/driver.ts";
import { refuseOverPool } from "./options.ts";

Deno.test("the pool is asked for its size once, and again when a volume seems too large", async () => {
  let total = 1000n, asked = 0;
  const resources = () => {
    asked++;
    return Promise.resolve({ space: { used: 0n, total }, inodes: { used: 0n, total: 0n } });
  };
  const driver = { resources } as unknown as Driver;
  await refuseOverPool(driver, "v", undefined);
  assert.equal(asked, 0);
  for (let count = 0; count < 3; count++) await refuseOverPool(driver, "v", 1000n);
  assert.equal(asked, 1);
  await assert.rejects(
    refuseOverPool(driver, "v", 1001n),
    { message: 'Invalid size of volume "v": 1001B is more than its pool has, 1000B' },
  );
  total = 2000n; // the pool has grown
  await refuseOverPool(driver, "v", 1001n);
  assert.equal(asked, 3);
});
