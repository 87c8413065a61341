import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { succeed } from "../support/command.ts";

/** File in which the package's service logs its starts and ends, one line each. */
export const serviceLog = "/var/log/lido-probe";

// Start the child before the trap. A child forked after the trap has the shell's handler until it calls execve; a SIGTERM to the whole group in that
// moment is lost in the child, and systemd waits for it for DefaultTimeoutStopSec, 90 s.
const run = `#!/bin/sh
sleep infinity &
trap 'kill $!; echo ended >>${serviceLog}; exit 0' TERM
echo started >>${serviceLog}
wait $!
`;

const unit = `[Unit]
Description=A service that notes its starts and ends
[Service]
ExecStart=/usr/lib/lido-probe/run
[Install]
WantedBy=multi-user.target
`;

const script = `#!/bin/sh
### BEGIN INIT INFO
# Provides: lido-probe
# Required-Start: $remote_fs
# Required-Stop: $remote_fs
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
# Short-Description: A service that notes its starts and ends
### END INIT INFO
pid=/run/lido-probe.pid
case $1 in
  start) start-stop-daemon --start --background --make-pidfile --pidfile $pid --startas /usr/lib/lido-probe/run ;;
  stop) start-stop-daemon --stop --retry TERM/5/KILL/1 --remove-pidfile --pidfile $pid ;;
  restart | force-reload) $0 stop; $0 start ;;
esac
`;

const postinst = `#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --quiet --now lido-probe
else
  update-rc.d lido-probe defaults
  invoke-rc.d lido-probe start
fi
`;

/** Builds a Debian package with a service, for systemd and for inits that read /etc/init.d. @returns The package's bytes. */
export async function servicePackage(): Promise<Uint8Array> {
  const directory = mkdtempSync(join(tmpdir(), "lido-package-"));
  try {
    const write = (path: string, content: string, mode = 0o644) => {
      const file = join(directory, "tree", path);
      mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
      writeFileSync(file, content);
      chmodSync(file, mode);
    };
    write(
      "DEBIAN/control",
      "Package: lido-probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: A service\n",
    );
    write("DEBIAN/postinst", postinst, 0o755);
    write("usr/lib/lido-probe/run", run, 0o755);
    write("lib/systemd/system/lido-probe.service", unit);
    write("etc/init.d/lido-probe", script, 0o755);
    const file = join(directory, "lido-probe.deb");
    await succeed(["dpkg-deb", "--root-owner-group", "--build", join(directory, "tree"), file]);
    return readFileSync(file);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
