//! The virtual machine: QEMU without KVM, its disk over NBD, a root shell on the serial console.

use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use super::Image;
use super::console::Console;
use crate::process::{bound, ended};
use crate::{Result, failed};

/// From power on to a shell: 10 s to 20 s emulated on an idle machine, far more on a busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(180);
const QUICK_LIMIT: Duration = Duration::from_secs(60);

/// A running guest. Dropping it pulls the plug.
pub(super) struct Guest {
    qemu: Child,
    pub(super) console: Console<ChildStdin>,
}

impl Guest {
    /// Boots the image's kernel with the disk at `uri` and waits for the shell.
    pub(super) fn boot(image: &Image, uri: &str, transcript: &Path) -> Result<Self> {
        let mut command = bound("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        command.args([
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
            "-nic",
            "none",
            "-no-reboot",
        ]);
        command.args(["-drive", &format!("file={uri},format=raw,if=virtio,cache=none")]);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
        command.args(["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = command.spawn().map_err(|error| failed(format!("qemu-system-x86_64: {error}")))?;
        let input = qemu.stdin.take().expect("stdin is piped");
        let output = qemu.stdout.take().expect("stdout is piped");
        let console = Console::new(input, output, transcript)?;
        let mut guest = Self { qemu, console };
        guest.console.wait_for("console-shell-ready", BOOT_LIMIT)?;
        // No echo, no prompts, no kernel messages between the answers.
        guest.console.run("stty -echo; PS1=; PS2=; dmesg -n 1", QUICK_LIMIT)?;
        Ok(guest)
    }

    /// Shuts the guest down as its administrator would: file systems unmounted, caches flushed.
    pub(super) fn power_off(mut self) -> Result {
        self.console.send("poweroff")?;
        if ended(&mut self.qemu, POWER_OFF_LIMIT) {
            Ok(())
        } else {
            Err(failed("the guest does not power off"))
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
