//! A libvirtd of our own, and one domain in it.
//!
//! It runs as on a machine of its own: in name spaces where all it writes to `/etc`, `/run` and `/var` goes to memory.
//! So it knows no domain or network of the machine's, leaves nothing behind, and ends with all its guests when this
//! program does, however that ends.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::Image;
use crate::lab::console::Console;
use crate::process::{bound, must};
use crate::{Result, failed};

const START_LIMIT: Duration = Duration::from_secs(60);
/// libvirt gives QEMU 15 s to end by itself before it kills it.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);
const DOMAIN: &str = "holdfast-guest";

/// What runs in the name spaces, as their first process: `$1` is where libvirt's own logs go. No name of a user that
/// Debian's libvirt insists on may be missing, and nothing of the machine's libvirt may be seen.
const INSIDE: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
for directory in etc var; do
  mkdir -p "/run/over/$directory/upper" "/run/over/$directory/work"
  mount -t overlay overlay "/$directory" \
    -o "lowerdir=/$directory,upperdir=/run/over/$directory/upper,workdir=/run/over/$directory/work"
done
mkdir -p /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
for directory in /etc/libvirt /var/lib/libvirt /var/cache/libvirt; do mount -t tmpfs tmpfs "$directory"; done
mount --bind "$1" /var/log/libvirt
mount -t sysfs sysfs /sys
getent passwd libvirt-qemu >/dev/null || echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin' >>/etc/passwd
getent group libvirt-qemu >/dev/null || echo 'libvirt-qemu:x:64055:' >>/etc/group
getent group kvm >/dev/null || echo 'kvm:x:64056:' >>/etc/group
cat >/etc/libvirt/libvirtd.conf <<'CONF'
unix_sock_group = "root"
auth_unix_rw = "none"
CONF
cat >/etc/libvirt/qemu.conf <<'CONF'
# QEMU as root, as which the site's sockets and the image may be opened; no confinement of its own.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
# No virtlogd.
stdio_handler = "file"
CONF
# Not exec: libvirtd would not reap what QEMU leaves to the first process.
libvirtd &
wait $!
"#;

/// libvirtd in its name spaces. Dropping it kills it and all its domains.
pub(super) struct Libvirt {
    spaces: Child,
    folder: PathBuf,
}

impl Libvirt {
    /// Starts it and waits until it answers. What it says goes to `logs`.
    pub(super) fn start(logs: &Path) -> Result<Self> {
        let folder = logs.join("libvirt");
        let fail = |error: std::io::Error| failed(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(fail)?;
        let log = File::create(folder.join("libvirtd.log")).map_err(fail)?;
        let log_too = log.try_clone().map_err(fail)?;
        let mut command = bound("unshare");
        command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", INSIDE, "libvirtd"]).arg(&folder);
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        let spaces = command.spawn().map_err(|error| failed(format!("unshare: {error}")))?;
        let mut libvirt = Self { spaces, folder };
        let start = Instant::now();
        while let Err(error) = libvirt.virsh(&["version"]) {
            let ended = matches!(libvirt.spaces.try_wait(), Ok(Some(_)));
            if ended || start.elapsed() > START_LIMIT {
                let said = std::fs::read_to_string(libvirt.folder.join("libvirtd.log")).unwrap_or_default();
                return Err(failed(format!("libvirtd does not serve: {error:?}\n{said}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(libvirt)
    }

    /// Starts a domain with these disks, the first of them its root, and waits for its shell.
    pub(super) fn boot(&self, image: &Image, disks: &[String], name: &str) -> Result<Console<UnixStream>> {
        let fail = |error: std::io::Error| failed(format!("{}: {error}", self.folder.display()));
        let serial = self.folder.join("serial.sock");
        let definition = self.folder.join("domain.xml");
        std::fs::write(&definition, domain(image, disks, &serial)).map_err(fail)?;
        // Not started at once: nothing the guest says may be lost.
        self.virsh(&["create", &definition.display().to_string(), "--paused"])?;
        let output = UnixStream::connect(&serial).map_err(fail)?;
        let input = output.try_clone().map_err(fail)?;
        let mut console = Console::new(input, output, &self.folder.join(name))?;
        self.virsh(&["resume", DOMAIN])?;
        console.booted()?;
        Ok(console)
    }

    /// The guest loses its power.
    pub(super) fn pull_plug(&self) -> Result {
        self.virsh(&["destroy", DOMAIN]).map(drop)
    }

    /// Waits until the guest has switched itself off.
    pub(super) fn wait_off(&self) -> Result {
        let start = Instant::now();
        while self.virsh(&["list", "--name"])?.lines().any(|name| name == DOMAIN) {
            if start.elapsed() > POWER_OFF_LIMIT {
                return Err(failed("the guest does not power off"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Versions of libvirt and QEMU.
    pub(super) fn version(&self) -> Result<String> {
        let text = self.virsh(&["version", "--daemon"])?;
        let wanted = |line: &&str| line.starts_with("Running");
        Ok(text.lines().filter(wanted).collect::<Vec<_>>().join(", "))
    }

    fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.spaces.id().to_string()).arg("--mount");
        command.args(["virsh", "--quiet", "--connect", "qemu:///system"]).args(arguments);
        Ok(must(&mut command, COMMAND_LIMIT)?.output)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // `--kill-child`: with it goes the first process of the name space, and so every other.
        let _ = self.spaces.kill();
        let _ = self.spaces.wait();
    }
}

/// The domain around the disks' elements, which stand in it as they are.
fn domain(image: &Image, disks: &[String], serial: &Path) -> String {
    format!(
        "<domain type='qemu'>
  <name>{DOMAIN}</name>
  <memory unit='MiB'>1024</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>root=/dev/vda rw console=ttyS0 quiet panic=-1</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{disks}
    <serial type='unix'><source mode='bind' path='{serial}'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
",
        kernel = escaped(&image.kernel),
        initrd = escaped(&image.initrd),
        disks = disks.join("\n"),
        serial = escaped(serial),
    )
}

/// A path inside an attribute or a text of XML.
fn escaped(path: &Path) -> String {
    let text = path.display().to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_stand_in_the_domain_as_they_are() {
        let image = Image { disk: "/d".into(), kernel: "/a'b&c".into(), initrd: "/i".into() };
        let disk = "<disk type='network'>\n  <target dev='vda'/>\n</disk>".to_owned();
        let text = domain(&image, &[disk.clone(), "<disk/>".to_owned()], Path::new("/s"));
        assert!(text.contains(&format!("\n{disk}\n<disk/>\n")), "{text}");
        assert!(text.contains("<kernel>/a&apos;b&amp;c</kernel>"), "{text}");
    }
}
