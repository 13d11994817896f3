//! An image to be imported: its format, its size, and whether it is whole in itself.
//!
//! The headers are looked at here before qemu-img opens anything: an image that names other files would make it open
//! those, with our rights. A raw image is what a guest wrote, and is never taken for another format.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::absolute;
use super::program::{PROGRAM, last_line, option, start};
use crate::arguments::ImageFormat;
use crate::failure::Failure;

/// Bytes of a header that are looked at.
const HEAD_BYTES: usize = 512;
const QCOW2: &[u8] = b"QFI\xfb";
const VMDK: &[u8] = b"KDMV";
/// A VMDK that is a list of other files.
const VMDK_LIST: &[u8] = b"# Disk Desc";
/// Incompatible features of qcow2: the data is in another file.
const QCOW2_DATA_FILE: u64 = 1 << 2;

/// An image that can be imported.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// Size of the disk in it.
    pub(super) bytes: u64,
    format: ImageFormat,
    is_device: bool,
}

impl Image {
    /// The image as qemu-img is told of it: format and file spelled out, so that nothing is guessed.
    pub(super) fn arguments(&self) -> Vec<String> {
        let format = match self.format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Vmdk => "vmdk",
        };
        let file = if self.is_device { "host_device" } else { "file" };
        let path = option(&self.path.display().to_string());
        vec!["--image-opts".to_owned(), format!("driver={format},file.driver={file},file.filename={path}")]
    }
}

/// What a header says.
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

/// The format that a header shows; anything unknown is raw.
pub(super) fn recognise(head: &[u8]) -> ImageFormat {
    if head.starts_with(QCOW2) {
        ImageFormat::Qcow2
    } else if head.starts_with(VMDK) || head.starts_with(VMDK_LIST) {
        ImageFormat::Vmdk
    } else {
        ImageFormat::Raw
    }
}

/// Judges a header of this format, zeros where the file is shorter.
pub(super) fn judge(head: &[u8; HEAD_BYTES], format: ImageFormat) -> Verdict {
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
        ImageFormat::Qcow2 => Verdict::Sound,
        ImageFormat::Vmdk if head.starts_with(VMDK_LIST) => Verdict::NotWhole("extents in other files"),
        ImageFormat::Vmdk if !head.starts_with(VMDK) => Verdict::Other,
        // Without a size of its own it is a list of extents too.
        ImageFormat::Vmdk if little(12) == 0 => Verdict::NotWhole("extents in other files"),
        ImageFormat::Vmdk => Verdict::Sound,
    }
}

/// Looks at an image. Blocks.
pub(super) fn inspect(path: &Path, format: Option<ImageFormat>) -> Result<Image, Failure> {
    let unreadable =
        |reason: String| Failure::of_code("image_unreadable", format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
    let is_device = metadata.file_type().is_block_device();
    if !is_device && !metadata.is_file() {
        return Err(unreadable("it is no file and no block device".to_owned()));
    }
    let mut head = [0; HEAD_BYTES];
    let mut have = 0;
    while have < HEAD_BYTES {
        match file.read_at(&mut head[have..], have as u64).map_err(|error| unreadable(error.to_string()))? {
            0 => break,
            count => have += count,
        }
    }
    let format = format.unwrap_or_else(|| recognise(&head[..have]));
    let whole =
        |what: &str| Failure::of_code("image_not_whole", format!("{}: the image has {what}", path.display()));
    match judge(&head, format) {
        Verdict::Sound => {}
        Verdict::Other => return Err(unreadable("it is not of the format that -f names".to_owned())),
        Verdict::NotWhole(what) => return Err(whole(what)),
        Verdict::Encrypted => {
            return Err(Failure::of_code("image_encrypted", format!("{}: it is encrypted", path.display())));
        }
    }
    let mut image = Image { path: absolute(path)?, bytes: 0, format, is_device };
    let info = info(&image).map_err(|failure| failure.map_message(unreadable))?;
    if let Some(what) = references(&info, &image.path) {
        return Err(whole(what));
    }
    if info["encrypted"] == true {
        return Err(Failure::of_code("image_encrypted", format!("{}: it is encrypted", path.display())));
    }
    image.bytes =
        info["virtual-size"].as_u64().ok_or_else(|| unreadable(format!("{PROGRAM} says no size")))?;
    Ok(image)
}

/// What qemu-img says of an image.
fn info(image: &Image) -> Result<Value, Failure> {
    let mut command = Command::new(PROGRAM);
    command.args(["info", "--output=json"]).args(image.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = start(&mut command)?
        .wait_with_output()
        .map_err(|error| Failure::failed("program_failed", format!("{PROGRAM}: {error}")))?;
    if !output.status.success() {
        return Err(Failure::of_code("image_unreadable", last_line(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::failed("program_failed", format!("{PROGRAM} info: {error}")))
}

/// Other files that an image takes data from.
pub(super) fn references(info: &Value, path: &Path) -> Option<&'static str> {
    if !info["backing-filename"].is_null() || !info["full-backing-filename"].is_null() {
        return Some("a backing file");
    }
    let data = &info["format-specific"]["data"];
    if !data["data-file"].is_null() {
        return Some("a data file");
    }
    let extents = data["extents"].as_array().into_iter().flatten();
    let own = path.display().to_string();
    let foreign =
        extents.into_iter().any(|extent| extent["filename"].as_str().is_none_or(|name| name != own));
    foreign.then_some("extents in other files")
}
