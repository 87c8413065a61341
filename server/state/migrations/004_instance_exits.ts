/** How each instance ended last: an `InstanceExit` as JSON. Not in its configuration, which LXD may read, too: LXD refuses unknown keys. */
export const instanceExits = `
CREATE TABLE instance_exits (
  instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE, exit TEXT NOT NULL
) STRICT;
`;
