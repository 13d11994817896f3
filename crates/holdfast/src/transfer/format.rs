//! What an image is, by its first and last bytes.
//!
//! Whatever is not known is raw: what a guest wrote. What is known and is no disk by itself, such as an archive, is
//! refused with what to do, unless raw bytes are asked for.

use std::path::Path;

use crate::arguments::{ExportFormat, ImageFormat};
use crate::failure::Failure;

/// Bytes of a header that are looked at, and of a footer.
pub(super) const HEAD_BYTES: usize = 512;
const QCOW2: &[u8] = b"QFI\xfb";
const VMDK: &[u8] = b"KDMV";
/// A VMDK that is a list of other files.
const VMDK_LIST: &[u8] = b"# Disk Desc";
const VHD: &[u8] = b"conectix";
/// Type of a VHD that has a parent.
const VHD_DIFFERENCING: u32 = 4;
const VDI: &[u8] = b"\x7f\x10\xda\xbe";
const VDI_AT: usize = 64;
const QED: &[u8] = b"QED\0";
/// Feature of QED: it has a backing file.
const QED_BACKED: u64 = 1;
const VHDX: &[u8] = b"vhdxfile";
const PARALLELS: [&[u8]; 2] = [b"WithoutFreeSpace", b"WithouFreSpacExt"];
/// Incompatible features of qcow2: the data is in another file.
const QCOW2_DATA_FILE: u64 = 1 << 2;

/// What is no image of a disk, where its mark stands, and how a disk comes out of it.
const WRAPPERS: [(&str, usize, &[u8], &str); 9] = [
    ("gzip", 0, b"\x1f\x8b\x08", "gzip -dc IMAGE | holdfast vm import VM -"),
    ("xz", 0, b"\xfd7zXZ\0", "xz -dc IMAGE | holdfast vm import VM -"),
    ("bzip2", 4, b"1AY&SY", "bzip2 -dc IMAGE | holdfast vm import VM -"),
    ("zstd", 0, b"\x28\xb5\x2f\xfd", "zstd -dc IMAGE | holdfast vm import VM -"),
    ("lz4", 0, b"\x04\x22\x4d\x18", "lz4 -dc IMAGE | holdfast vm import VM -"),
    ("a zip archive", 0, b"PK\x03\x04", "unzip IMAGE, then import the disk in it"),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", "7z x IMAGE, then import the disk in it"),
    ("a tar archive, such as an OVA", 257, b"ustar", "tar -xf IMAGE, then import the .vmdk in it"),
    (
        "an ESX sparse extent",
        0,
        b"COWD",
        "on its host: vmkfstools -i IMAGE.vmdk WHOLE.vmdk -d thin, then import that",
    ),
];

/// Endings of names that say what a file is to be, with the mark that it then has.
const ENDINGS: [(&str, Known); 14] = [
    ("raw", Known::Image(ImageFormat::Raw)),
    ("qcow2", Known::Image(ImageFormat::Qcow2)),
    ("vmdk", Known::Image(ImageFormat::Vmdk)),
    ("vhdx", Known::Image(ImageFormat::Vhdx)),
    ("vhd", Known::Image(ImageFormat::Vhd)),
    ("vpc", Known::Image(ImageFormat::Vhd)),
    ("vdi", Known::Image(ImageFormat::Vdi)),
    ("qed", Known::Image(ImageFormat::Qed)),
    ("hdd", Known::Image(ImageFormat::Parallels)),
    ("gz", Known::Wrapper("gzip", "")),
    ("xz", Known::Wrapper("xz", "")),
    ("bz2", Known::Wrapper("bzip2", "")),
    ("zst", Known::Wrapper("zstd", "")),
    ("ova", Known::Wrapper("a tar archive, such as an OVA", "")),
];

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It holds a disk in this format.
    Image(ImageFormat),
    /// It is something that a disk has to be taken out of: what it is, and how.
    Wrapper(&'static str, &'static str),
}

/// What a header says of an image of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be opened.
    Sound,
    /// It is not of this format.
    Other,
    /// It takes data from other files.
    NotWhole(&'static str),
    Encrypted,
}

/// What the first bytes and the last [`HEAD_BYTES`] show.
pub(super) fn recognise(head: &[u8], tail: &[u8]) -> Known {
    let has = |at: usize, mark: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let format = if has(0, QCOW2) {
        ImageFormat::Qcow2
    } else if has(0, VMDK) || is_vmdk_list(head) {
        ImageFormat::Vmdk
    } else if has(0, VHDX) {
        ImageFormat::Vhdx
    } else if has(0, VHD) || tail.starts_with(VHD) {
        ImageFormat::Vhd
    } else if has(VDI_AT, VDI) {
        ImageFormat::Vdi
    } else if has(0, QED) {
        ImageFormat::Qed
    } else if PARALLELS.iter().any(|mark| has(0, mark)) {
        ImageFormat::Parallels
    } else {
        let wrapper = WRAPPERS.iter().find(|(_, at, mark, _)| has(*at, mark));
        let wrapper = wrapper.map(|(what, _, _, how)| Known::Wrapper(what, how));
        return wrapper.unwrap_or(Known::Image(ImageFormat::Raw));
    };
    Known::Image(format)
}

/// Bytes that an image has at least, as far as its header says; qemu-img asks that itself of the other formats.
pub(super) fn least_bytes(head: &[u8; HEAD_BYTES], format: ImageFormat) -> u64 {
    let little =
        |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    match format {
        // Where data begins, and as many blocks of so many bytes.
        ImageFormat::Vdi => little(0x158).saturating_add(little(0x184).saturating_mul(little(0x178))),
        _ => 0,
    }
}

/// What the ending of a name says that a file is.
fn by_name(path: &Path) -> Option<Known> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(ENDINGS.iter().find(|(known, _)| *known == ending)?.1)
}

/// What the ending of a name promises, where the bytes show nothing of it.
pub(super) fn promised(path: &Path) -> Option<&'static str> {
    match by_name(path)? {
        Known::Image(ImageFormat::Raw) => None,
        Known::Image(format) => Some(format.name()),
        Known::Wrapper(what, _) => Some(what),
    }
}

/// The format that a file is written in: the one asked for, else the one of its name. A name that says another is refused:
/// whoever reads the file would take it for what it is not.
pub(super) fn format_of(file: &Path, asked: Option<ExportFormat>) -> Result<ExportFormat, Failure> {
    let wanted = asked.unwrap_or(ExportFormat::Raw);
    let (said, hint) = match (by_name(file), asked) {
        (None, _) => return Ok(wanted),
        (Some(Known::Image(ImageFormat::Qcow2)), None | Some(ExportFormat::Qcow2)) => {
            return Ok(ExportFormat::Qcow2);
        }
        (Some(Known::Image(ImageFormat::Raw)), None | Some(ExportFormat::Raw)) => {
            return Ok(ExportFormat::Raw);
        }
        (Some(Known::Image(named @ (ImageFormat::Qcow2 | ImageFormat::Raw))), Some(_)) => {
            (named.name(), "leave -f out, or give the file another ending".to_owned())
        }
        (Some(Known::Image(named)), _) => {
            let hint = "export a .qcow2, then convert it: qemu-img convert -O";
            (named.name(), format!("{hint} {} FILE.qcow2 {}", named.driver(), file.display()))
        }
        (Some(Known::Wrapper(what, _)), _) => (
            what,
            "have raw bytes on standard output, and pack these: holdfast vm export VM - | ...".to_owned(),
        ),
    };
    let message =
        format!("{}: by its name it would be {said}, and {} would be in it", file.display(), wanted.driver());
    Err(Failure::usage(message, hint))
}

/// A list of extents: text whose first words, behind comments, are its version.
fn is_vmdk_list(head: &[u8]) -> bool {
    if head.starts_with(VMDK_LIST) {
        return true;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let is_comment = |line: &&[u8]| line.is_empty() || line.starts_with(b"#");
    head.starts_with(b"#")
        && lines.find(|line| !is_comment(line)).is_some_and(|line| line.starts_with(b"version="))
}

/// Judges a header of this format, and the footer, zeros where the file is shorter.
pub(super) fn judge(head: &[u8; HEAD_BYTES], tail: &[u8; HEAD_BYTES], format: ImageFormat) -> Verdict {
    let big = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let big_32 = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let little = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    match format {
        ImageFormat::Raw => Verdict::Sound,
        ImageFormat::Qcow2 if !head.starts_with(QCOW2) => Verdict::Other,
        ImageFormat::Qcow2 if big(8) != 0 => Verdict::NotWhole("a backing file"),
        ImageFormat::Qcow2 if big_32(32) != 0 => Verdict::Encrypted,
        ImageFormat::Qcow2 if big_32(4) >= 3 && big(72) & QCOW2_DATA_FILE != 0 => {
            Verdict::NotWhole("a data file")
        }
        ImageFormat::Vmdk if is_vmdk_list(head) => Verdict::NotWhole("extents in other files"),
        ImageFormat::Vmdk if !head.starts_with(VMDK) => Verdict::Other,
        // Without a size of its own it is a list of extents too.
        ImageFormat::Vmdk if little(12) == 0 => Verdict::NotWhole("extents in other files"),
        ImageFormat::Vhd if !head.starts_with(VHD) && !tail.starts_with(VHD) => Verdict::Other,
        ImageFormat::Vhd => {
            let footer = if head.starts_with(VHD) { head } else { tail };
            let kind = footer[60..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            if kind == VHD_DIFFERENCING { Verdict::NotWhole("a parent") } else { Verdict::Sound }
        }
        ImageFormat::Qed if !head.starts_with(QED) => Verdict::Other,
        ImageFormat::Qed if little(16) & QED_BACKED != 0 => Verdict::NotWhole("a backing file"),
        ImageFormat::Vdi if !head[VDI_AT..].starts_with(VDI) => Verdict::Other,
        ImageFormat::Vhdx if !head.starts_with(VHDX) => Verdict::Other,
        ImageFormat::Parallels if !PARALLELS.iter().any(|mark| head.starts_with(mark)) => Verdict::Other,
        _ => Verdict::Sound,
    }
}
