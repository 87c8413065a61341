/** The devices that a running container has mounted: not always those of its settings, for a change may have been cut off between the two. */
export const instanceMounts = `
CREATE TABLE instance_mounts (
  instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE, devices TEXT NOT NULL
) STRICT;
`;
