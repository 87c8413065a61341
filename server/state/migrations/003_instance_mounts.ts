/** The devices that a running container has mounted: not always those of its settings, as a change may have been interrupted between the two. */
export const instanceMounts = `
CREATE TABLE instance_mounts (
  instance_id INTEGER PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE, devices TEXT NOT NULL
) STRICT;
`;
