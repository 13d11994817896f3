//! The virtual machine: QEMU without KVM, its disk over NBD, a root shell on the serial console.

use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use crate::lab::Image;
use crate::lab::console::Console;
use crate::process::{bound, ended};
use crate::{Result, failed};

const POWER_OFF_LIMIT: Duration = Duration::from_secs(180);

/// How long a guest's requests wait for a server, as `disk attach-info` has it.
const PATIENCE_SECONDS: u32 = 300;

/// A running guest. Dropping it pulls the plug.
pub(super) struct Machine {
    qemu: Child,
    pub(super) console: Console<ChildStdin>,
}

impl Machine {
    /// Boots the image's kernel with the disk at `uri` and waits for the shell.
    pub(super) fn boot(image: &Image, uri: &str, transcript: &Path) -> Result<Self> {
        let drive = format!("file={uri},format=raw,if=virtio,cache=none");
        Self::boot_with(image, &["-drive".to_owned(), drive], transcript)
    }

    /// The same with a disk of which QEMU keeps the guest's requests while the socket answers nobody.
    pub(super) fn boot_patient(
        image: &Image,
        export: &str,
        socket: &Path,
        transcript: &Path,
    ) -> Result<Self> {
        let node = format!(
            "driver=nbd,node-name=disk0,server.type=unix,server.path={},export={export},\
             reconnect-delay={PATIENCE_SECONDS},cache.direct=on,discard=unmap,detect-zeroes=unmap",
            socket.display().to_string().replace(',', ",,")
        );
        let device = "virtio-blk-pci,drive=disk0".to_owned();
        Self::boot_with(image, &["-blockdev".to_owned(), node, "-device".to_owned(), device], transcript)
    }

    fn boot_with(image: &Image, disk: &[String], transcript: &Path) -> Result<Self> {
        let mut command = bound("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
        command.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
        command.args(["-serial", "stdio"]);
        command.args(disk);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
        command.args(["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = command.spawn().map_err(|error| failed(format!("qemu-system-x86_64: {error}")))?;
        let input = qemu.stdin.take().expect("stdin is piped");
        let output = qemu.stdout.take().expect("stdout is piped");
        let console = Console::new(input, output, transcript)?;
        let mut machine = Self { qemu, console };
        machine.console.booted()?;
        Ok(machine)
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

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
