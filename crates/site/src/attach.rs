//! How a guest gets a disk: the lines that QEMU and libvirt take.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use api::types::AttachInfo;

/// Seconds that a guest's requests wait while the server is away: a restart of the machine's services takes less.
const RECONNECT_SECONDS: u32 = 300;

/// The disk that is the `position`th of its VM, from 0.
pub(crate) fn disk(export: &str, position: usize, socket: &Path) -> AttachInfo {
    let (_, disk) = export.split_once('/').unwrap_or(("", export));
    let uri = nbd_uri(export, socket);
    let socket = socket.display().to_string();
    let blockdev = serde_json::json!({
        "node-name": disk,
        "driver": "nbd",
        "server": {"type": "unix", "path": &socket},
        "export": export,
        "reconnect-delay": RECONNECT_SECONDS,
        "cache": {"direct": true, "no-flush": false},
        "discard": "unmap",
        "detect-zeroes": "unmap",
    });
    let device = format!("virtio-blk-pci,drive={disk},id={disk}-device,serial={disk}");
    let qemu = [format!("-blockdev {}", quoted(&blockdev.to_string())), format!("-device {device}")];
    AttachInfo {
        uri,
        qemu: qemu.to_vec(),
        libvirt: libvirt(export, &socket, &target(position)),
        export: export.to_owned(),
        socket,
    }
}

/// A file that is the `position`th of its VM, from 0, as a CD-ROM.
pub(crate) fn file(export: &str, position: usize, socket: &Path) -> AttachInfo {
    let uri = nbd_uri(export, socket);
    let socket = socket.display().to_string();
    // A file's name is too long, or begins as no name in QEMU may.
    let node = format!("cdrom{position}");
    let blockdev = serde_json::json!({
        "node-name": node,
        "driver": "nbd",
        "read-only": true,
        "server": {"type": "unix", "path": &socket},
        "export": export,
        "reconnect-delay": RECONNECT_SECONDS,
    });
    let device = format!("ide-cd,drive={node},id={node}-device");
    let qemu = [format!("-blockdev {}", quoted(&blockdev.to_string())), format!("-device {device}")];
    AttachInfo {
        uri,
        qemu: qemu.to_vec(),
        libvirt: libvirt_cdrom(export, &socket, &target(position).replace("vd", "sd")),
        export: export.to_owned(),
        socket,
    }
}

fn libvirt_cdrom(export: &str, socket: &str, target: &str) -> String {
    let socket = escaped_in_xml(socket);
    format!(
        "<disk type='network' device='cdrom'>\n  \
           <driver name='qemu' type='raw'/>\n  \
           <source protocol='nbd' name='{export}'>\n    \
             <host transport='unix' socket='{socket}'/>\n    \
             <reconnect delay='{RECONNECT_SECONDS}'/>\n  \
           </source>\n  \
           <target dev='{target}' bus='sata'/>\n  \
           <readonly/>\n\
         </disk>"
    )
}

fn libvirt(export: &str, socket: &str, target: &str) -> String {
    let socket = escaped_in_xml(socket);
    format!(
        "<disk type='network' device='disk'>\n  \
           <driver name='qemu' type='raw' cache='none' discard='unmap' detect_zeroes='unmap'/>\n  \
           <source protocol='nbd' name='{export}'>\n    \
             <host transport='unix' socket='{socket}'/>\n    \
             <reconnect delay='{RECONNECT_SECONDS}'/>\n  \
           </source>\n  \
           <target dev='{target}' bus='virtio'/>\n\
         </disk>"
    )
}

/// `vda` for the first disk, `vdaa` for the 27th.
fn target(position: usize) -> String {
    let letter = |number: usize| char::from(b'a' + (number % 26) as u8);
    match position / 26 {
        0 => format!("vd{}", letter(position)),
        more => format!("vd{}{}", letter(more - 1), letter(position)),
    }
}

/// The address of an export: what is not plain in the socket's path is escaped.
pub fn nbd_uri(export: &str, socket: &Path) -> String {
    let escaped = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
            char::from(*byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    let socket: String = socket.as_os_str().as_bytes().iter().map(escaped).collect();
    format!("nbd+unix:///{export}?socket={socket}")
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn escaped_in_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;")
}
