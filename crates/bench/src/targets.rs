//! What is measured: servers that export one disk each, started in a folder of their own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Server, bound, on_path, run};
use crate::serve::{self, Behind};
use crate::{Failure, images};

/// Far above any sound start: the machine may be busy with other things.
const START_LIMIT: Duration = Duration::from_secs(300);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;
/// What a medium has for journal and tables.
const FIXED_BYTES: u64 = 300 * MIB;

/// A server that can be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// What it is, with the options that matter.
    pub(crate) about: &'static str,
    /// Part of a run that does not name its targets.
    pub(crate) usual: bool,
    /// What is written is there to be read.
    pub(crate) keeps_data: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `holdfast standalone`, with its media: how many, GiB of each, and the width of a stripe for one part of data.
    Holdfast {
        count: u64,
        gib: u64,
        widening: f64,
    },
    /// qemu-storage-daemon, with the image's format, around the page cache or through it.
    Qemu {
        format: &'static str,
        direct: bool,
    },
    Own(Behind),
}

/// The target that others are compared with.
pub(crate) const BASE: &str = "qsd-raw";
/// The target that shows what the front end can do at most.
pub(crate) const CEILING: &str = "null";

/// Every target.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "holdfast-6",
        about: "holdfast standalone with six file media: 4+2, journal on 3 media",
        usual: true,
        keeps_data: true,
        kind: Kind::Holdfast { count: 6, gib: 16, widening: 1.5 },
    },
    Target {
        name: "holdfast-1",
        about: "holdfast standalone with one file medium",
        usual: true,
        keeps_data: true,
        kind: Kind::Holdfast { count: 1, gib: 32, widening: 1.0 },
    },
    Target {
        name: BASE,
        about: "qemu-storage-daemon, raw file, cache.direct=on",
        usual: true,
        keeps_data: true,
        kind: Kind::Qemu { format: "raw", direct: true },
    },
    Target {
        name: "qsd-raw-cached",
        about: "qemu-storage-daemon, raw file, cache.direct=off: the kernel's page cache",
        usual: false,
        keeps_data: true,
        kind: Kind::Qemu { format: "raw", direct: false },
    },
    Target {
        name: "qsd-qcow2",
        about: "qemu-storage-daemon, qcow2 file, cache.direct=on",
        usual: true,
        keeps_data: true,
        kind: Kind::Qemu { format: "qcow2", direct: true },
    },
    Target {
        name: CEILING,
        about: "Holdfast's NBD server over a device that answers at once and keeps nothing",
        usual: true,
        keeps_data: false,
        kind: Kind::Own(Behind::Null),
    },
    Target {
        name: "ram",
        about: "Holdfast's NBD server over memory",
        usual: false,
        keeps_data: true,
        kind: Kind::Own(Behind::Ram),
    },
];

/// A target that serves. Dropping it ends its server and removes its files.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
    pub(crate) export: String,
    /// What was found out at its start: how it reads and writes.
    pub(crate) note: String,
    /// The holdfast program and the site it serves.
    site: Option<(PathBuf, PathBuf)>,
    // After the server: files go when nobody uses them.
    _home: images::Folder,
}

impl Running {
    /// Share of its media that is used, where it has some.
    pub(crate) fn used(&self) -> Result<Option<f64>, Failure> {
        let Some((holdfast, site)) = &self.site else { return Ok(None) };
        let mut status = bound(holdfast);
        status.arg("--site").arg(site).args(["-o", "json", "status"]);
        let said = run(status, &site.with_file_name("status.log"), COMMAND_LIMIT)?.output;
        Ok(used_in(&said))
    }
}

fn used_in(status: &str) -> Option<f64> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let bytes = |name: &str| status.get(name).and_then(serde_json::Value::as_u64);
    Some(bytes("raw_bytes")? as f64 / bytes("raw_capacity_bytes").filter(|whole| *whole > 0)? as f64)
}

impl Target {
    /// Starts it in the new folder `home` with a disk of `size` bytes. With `room`, data of so many bytes are all that
    /// fits beside the journal, where a target has media.
    pub(crate) fn start(
        &self,
        home: &Path,
        size: u64,
        room: Option<u64>,
        holdfast: &Path,
    ) -> Result<Running, Failure> {
        let folder = images::Folder::new(home)?;
        match self.kind {
            Kind::Holdfast { count, gib, widening } => {
                let bytes = room.map_or(gib << 30, |room| {
                    (room as f64 * widening / count as f64) as u64 / MIB * MIB + FIXED_BYTES
                });
                start_holdfast(folder, holdfast, &format!("{count}x{}M", bytes / MIB), size)
            }
            Kind::Qemu { format, direct } => start_qemu(folder, format, direct, size),
            Kind::Own(behind) => start_own(folder, behind, size),
        }
    }
}

/// A running site without VMs.
pub(crate) fn start_site(home: &Path, holdfast: &Path, media: &str) -> Result<Server, Failure> {
    let site = home.join("site");
    let mut command = bound(holdfast);
    command.arg("standalone").arg("--dir").arg(&site).args(["--file-media", media, "--log", "warn"]);
    command.arg("--recovery-key-file").arg(home.join("recovery-key"));
    let mut server = Server::start(command, &home.join("server.log"))?;
    server.wait_until(START_LIMIT, || UnixStream::connect(site.join("api.sock")).is_ok())?;
    Ok(server)
}

/// Makes a VM with one disk of `size` bytes; its export is `NAME/disk0`.
pub(crate) fn create_vm(home: &Path, holdfast: &Path, name: &str, size: u64) -> Result<(), Failure> {
    let mut command = bound(holdfast);
    command.arg("--site").arg(home.join("site")).args(["vm", "create", name, "--disk", &size.to_string()]);
    run(command, &home.join("create.log"), COMMAND_LIMIT)?;
    Ok(())
}

fn start_holdfast(
    folder: images::Folder,
    holdfast: &Path,
    media: &str,
    size: u64,
) -> Result<Running, Failure> {
    let server = start_site(folder.path(), holdfast, media)?;
    create_vm(folder.path(), holdfast, "bench", size)?;
    Ok(Running {
        server,
        socket: folder.path().join("site/nbd.sock"),
        export: "bench/disk0".to_owned(),
        note: media.to_owned(),
        site: Some((holdfast.to_owned(), folder.path().join("site"))),
        _home: folder,
    })
}

fn start_qemu(folder: images::Folder, format: &str, direct: bool, size: u64) -> Result<Running, Failure> {
    for program in ["qemu-storage-daemon", "qemu-img"] {
        if !on_path(program) {
            return Err(Failure::failed(format!("{program} is not installed")));
        }
    }
    let home = folder.path();
    let image = home.join("image");
    let mut create = bound("qemu-img");
    create.args(["create", "-q", "-f", format]).arg(&image).arg(size.to_string());
    run(create, &home.join("create.log"), COMMAND_LIMIT)?;
    let socket = home.join("nbd.sock");
    let mut refused = None;
    // Linux's native way wants O_DIRECT.
    let ways: &[&str] = if direct { &["io_uring", "native", "threads"] } else { &["io_uring", "threads"] };
    for aio in ways {
        let log = home.join("server.log");
        let mut server = Server::start(qemu((format, direct), aio, &image, &socket), &log)?;
        match server.wait_until(START_LIMIT, || UnixStream::connect(&socket).is_ok()) {
            Ok(()) => {
                let export = serve::EXPORT.to_owned();
                return Ok(Running {
                    server,
                    socket,
                    export,
                    note: format!("aio={aio}"),
                    site: None,
                    _home: folder,
                });
            }
            Err(Failure::Stopped) => return Err(Failure::Stopped),
            Err(why) => refused = Some(why),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::failed("qemu-storage-daemon did not start")))
}

fn qemu((format, direct): (&str, bool), aio: &str, image: &Path, socket: &Path) -> Command {
    let direct = if direct { "on" } else { "off" };
    let mut command = bound("qemu-storage-daemon");
    let (image, socket) = (image.display(), socket.display());
    command.arg("--blockdev");
    command.arg(format!("driver=file,node-name=file,filename={image},aio={aio},cache.direct={direct}"));
    command.args(["--blockdev", &format!("driver={format},node-name=disk,file=file,cache.direct={direct}")]);
    command.args(["--nbd-server", &format!("addr.type=unix,addr.path={socket}")]);
    let name = serve::EXPORT;
    command.args(["--export", &format!("type=nbd,id=export,node-name=disk,name={name},writable=on")]);
    command
}

fn start_own(folder: images::Folder, behind: Behind, size: u64) -> Result<Running, Failure> {
    let socket = folder.path().join("nbd.sock");
    let mut command = bound(std::env::current_exe()?);
    let kind = match behind {
        Behind::Null => "null",
        Behind::Ram => "ram",
    };
    command.args(["serve", kind, "--size", &size.to_string(), "--socket"]).arg(&socket);
    let mut server = Server::start(command, &folder.path().join("server.log"))?;
    server.wait_until(START_LIMIT, || UnixStream::connect(&socket).is_ok())?;
    Ok(Running {
        server,
        socket,
        export: serve::EXPORT.to_owned(),
        note: String::new(),
        site: None,
        _home: folder,
    })
}
