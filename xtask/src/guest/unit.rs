//! The unit for systemd, in the guest: a real systemd starts, watches and stops a site there.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::lab::console::Console;
use crate::lab::{Progress, Stage};
use crate::process::must;
use crate::{Result, failed, tree};

/// Size of the disk that carries program and unit into the guest: a debug build has 60 MB and more.
pub(super) const DISK_SIZE: &str = "512M";

const PACK_LIMIT: Duration = Duration::from_secs(120);
/// The unit's own limits, and a machine five times slower than any.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// The header of the unit, done: the user, and a site made by that user.
const INSTALL: &str = "mkdir -p /mnt/unit && mount -o ro /dev/vdd /mnt/unit && cp /mnt/unit/holdfast /usr/bin && \
    cp /mnt/unit/holdfast.service /etc/systemd/system && umount /mnt/unit && systemctl daemon-reload && \
    useradd --system --home-dir /var/lib/holdfast --create-home holdfast && \
    systemd-analyze verify --man=no holdfast.service";
const MAKE_SITE: &str = "cd / && export HOLDFAST_SITE=/var/lib/holdfast/site && \
    { setpriv --reuid holdfast --regid holdfast --init-groups holdfast standalone --dir $HOLDFAST_SITE \
    --file-media 3x1G --recovery-key-file /var/lib/holdfast/recovery-key & } && server=$! && \
    until holdfast vm list; do kill -0 $server || break; sleep 0.2; done 2>/dev/null && kill $server && wait $server";
/// After `systemctl start` the next command finds the site serving: confined, without privileges, on `io_uring`.
const START: &str = "systemctl start holdfast && holdfast vm create a --disk 64M && \
    process=$(systemctl show -p MainPID --value holdfast) && \
    grep -q 'Seccomp:.2' /proc/$process/status && grep -q 'CapEff:.0*$' /proc/$process/status && \
    ls -l /proc/$process/fd | grep -q io_uring";
/// A killed server is started again, and serves before systemd calls it active.
const KILL: &str = "kill -9 $process && \
    until [ \"$(systemctl show -p NRestarts --value holdfast)\" = 1 ]; do sleep 0.2; done && \
    until systemctl is-active -q holdfast; do sleep 0.2; done && holdfast vm list | grep -q ^a";
const STOP: &str =
    "systemctl stop holdfast && [ \"$(systemctl show -p Result --value holdfast)\" = success ]";
/// A site that cannot start is said at once, not after a wait. `reset-failed` forgets how often it was tried.
const BAD: &str = "mv $HOLDFAST_SITE/site.json /root && echo bad >$HOLDFAST_SITE/site.json && \
    { timeout 60 systemctl start holdfast; [ $? = 1 ]; } && systemctl stop holdfast && \
    { systemctl reset-failed holdfast; mv /root/site.json $HOLDFAST_SITE; } && systemctl start holdfast && systemctl stop holdfast";

/// A disk image with program and unit, for the guest.
pub(super) fn pack(stage: &Stage) -> Result<std::path::PathBuf> {
    let folder = stage.logs.join("unit");
    let fail = |error: std::io::Error| failed(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(fail)?;
    std::fs::copy(&stage.binary, folder.join("holdfast")).map_err(fail)?;
    let unit: &Path = &tree::root().join("packaging/holdfast.service");
    std::fs::copy(unit, folder.join("holdfast.service")).map_err(fail)?;
    let image = stage.logs.join("unit.img");
    let mut command = Command::new("mkfs.ext4");
    must(command.args(["-q", "-d"]).arg(&folder).arg(&image).arg(DISK_SIZE), PACK_LIMIT)?;
    Ok(image)
}

/// Starts, kills, stops and spoils a site under the guest's systemd.
pub(super) fn check<W: Write>(console: &mut Console<W>, progress: &Progress) -> Result {
    console.run(INSTALL, STEP_LIMIT)?;
    console.run(MAKE_SITE, STEP_LIMIT)?;
    console.run(START, STEP_LIMIT)?;
    progress.note("systemd starts it: confined, no privileges, io_uring");
    console.run(KILL, STEP_LIMIT)?;
    progress.note("kill -9: it is started again");
    console.run(STOP, STEP_LIMIT)?;
    console.run(BAD, STEP_LIMIT)?;
    progress.note("it stops cleanly, and a start that fails says so at once");
    Ok(())
}
