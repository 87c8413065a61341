/** How each instance ended last: an `InstanceExit` as JSON. Not in its configuration, for that goes to LXD, which refuses keys that it does not know. */
export const instanceExits = `
CREATE TABLE instance_exits (
  instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE, exit TEXT NOT NULL
) STRICT;
`;
