/** Running detachable sessions, for the next daemon: it cannot continue them, but reports that they were lost. */
export const execSessions = `
CREATE TABLE exec_sessions (
  id TEXT PRIMARY KEY, instance TEXT NOT NULL, command TEXT NOT NULL, interactive INTEGER NOT NULL, created_at TEXT NOT NULL
) STRICT;
`;
