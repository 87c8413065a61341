/** Detachable sessions that run, for the next daemon: it cannot take them up, but says what became of them. */
export const execSessions = `
CREATE TABLE exec_sessions (
  id TEXT PRIMARY KEY, instance TEXT NOT NULL, command TEXT NOT NULL, interactive INTEGER NOT NULL, created_at TEXT NOT NULL
) STRICT;
`;
