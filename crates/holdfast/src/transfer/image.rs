//! An image to be imported: its format, its size, and whether it is whole in itself.
//!
//! The headers are looked at here before qemu-img opens anything: an image that names other files would make it open
//! those, with our rights. A raw image is what a guest wrote, and is never taken for another format.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::code;
use serde_json::Value;

use super::absolute;
use super::format::{HEAD_BYTES, Known, Verdict, judge, least_bytes, promised, recognise};
use super::program::{PROGRAM, last_line, option, start};
use crate::arguments::ImageFormat;
use crate::failure::Failure;

/// Exit codes of `qemu-img check`: sound; damaged; clusters that nothing uses; no way to check this format.
const SOUND: i32 = 0;
const DAMAGED: i32 = 2;
const LEAKS: i32 = 3;
const NO_CHECK: i32 = 63;

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
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let format = self.format.driver();
        let file = if self.is_device { "host_device" } else { "file" };
        let mut options = OsString::from(format!("driver={format},file.driver={file},file.filename="));
        options.push(option(self.path.as_os_str()));
        vec!["--image-opts".into(), options]
    }
}

fn encrypted(path: &Path) -> Failure {
    Failure::of_code(code::IMAGE_ENCRYPTED, format!("{}: it is encrypted", path.display()))
}

/// Looks at an image. Blocks.
pub(super) fn inspect(path: &Path, format: Option<ImageFormat>) -> Result<Image, Failure> {
    let unreadable =
        |reason: String| Failure::of_code(code::IMAGE_UNREADABLE, format!("{}: {reason}", path.display()));
    // Looked at before it is opened: the other end of a pipe may never come.
    let closed = |error: std::io::Error| {
        let failure = unreadable(error.to_string());
        match error.kind() {
            ErrorKind::NotFound => failure.hint("see that it is there and its name is right"),
            ErrorKind::PermissionDenied => Failure::of_io(code::IMAGE_UNREADABLE, path.display(), &error)
                .hint("run the command as a user who may read it"),
            _ => failure,
        }
    };
    let metadata = std::fs::metadata(path).map_err(closed)?;
    let is_device = metadata.file_type().is_block_device();
    if !is_device && !metadata.is_file() {
        return Err(unreadable("it is no file and no block device".to_owned())
            .hint("a stream comes in on standard input: ... | holdfast vm import VM -"));
    }
    let file = File::open(path).map_err(closed)?;
    let (mut head, mut tail) = ([0; HEAD_BYTES], [0; HEAD_BYTES]);
    let have = read_from(&file, &mut head, 0).map_err(|error| unreadable(error.to_string()))?;
    if !is_device && metadata.len() > HEAD_BYTES as u64 {
        let at = metadata.len() - HEAD_BYTES as u64;
        read_from(&file, &mut tail, at).map_err(|error| unreadable(error.to_string()))?;
    }
    let format = match (format, recognise(&head[..have], &tail)) {
        (Some(format), _) => format,
        (None, Known::Wrapper(what, how)) => {
            return Err(unreadable(format!("it is {what}")).hint(raw_or(how)));
        }
        (None, Known::Image(ImageFormat::Raw)) => {
            if let Some(what) = promised(path) {
                let reason = format!("by its name it is {what}, and by its first bytes it is not");
                return Err(unreadable(reason).hint(raw_or("see that the file is whole")));
            }
            ImageFormat::Raw
        }
        (None, Known::Image(format)) => format,
    };
    if have == 0 && !is_device {
        return Err(unreadable("it is empty".to_owned()).hint("see where it came from: a disk is not empty"));
    }
    let whole = |what: &str| {
        Failure::of_code(code::IMAGE_NOT_WHOLE, format!("{}: the image has {what}", path.display()))
    };
    match judge(&head, &tail, format) {
        Verdict::Sound => {}
        Verdict::Other => return Err(unreadable("it is not of the format that -f names".to_owned())),
        Verdict::NotWhole(what) => return Err(whole(what)),
        Verdict::Encrypted => return Err(encrypted(path)),
    }
    let least = least_bytes(&head, format);
    if !is_device && metadata.len() < least {
        return Err(unreadable(format!("its end is missing: {} of {least} bytes are there", metadata.len())));
    }
    let mut image = Image { path: absolute(path)?, bytes: 0, format, is_device };
    let info = info(&image).map_err(|failure| failure.map_message(unreadable))?;
    if let Some(what) = references(&info, &image.path) {
        return Err(whole(what));
    }
    if info["encrypted"] == true {
        return Err(encrypted(path));
    }
    image.bytes =
        info["virtual-size"].as_u64().ok_or_else(|| unreadable(format!("{PROGRAM} says no size")))?;
    check(&image).map_err(|failure| failure.map_message(unreadable))?;
    Ok(image)
}

/// Reads until `out` is full or the file ends; gives how much was read.
fn read_from(file: &File, out: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut have = 0;
    while have < out.len() {
        match file.read_at(&mut out[have..], at + have as u64)? {
            0 => break,
            count => have += count,
        }
    }
    Ok(have)
}

/// What to do with what is no image, or is to be taken as it is.
pub(super) fn raw_or(how: &str) -> String {
    format!("{how}; -f raw takes the bytes as they are")
}

/// Has qemu-img see that all an image tells of is there: what is missing at its end would read as zeros. One that was not
/// closed, or has clusters that nothing uses, is whole.
fn check(image: &Image) -> Result<(), Failure> {
    if image.format == ImageFormat::Raw {
        return Ok(());
    }
    let mut command = Command::new(PROGRAM);
    command.arg("check").args(image.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = start(&mut command)?
        .wait_with_output()
        .map_err(|error| Failure::failed(code::PROGRAM_FAILED, format!("{PROGRAM}: {error}")))?;
    match output.status.code() {
        Some(SOUND | LEAKS | NO_CHECK) => Ok(()),
        Some(DAMAGED) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
            Err(Failure::of_code(
                code::IMAGE_UNREADABLE,
                format!("it is damaged or its end is missing: {first}"),
            ))
        }
        _ => Err(Failure::of_code(code::IMAGE_UNREADABLE, last_line(&output.stderr))),
    }
}

/// What qemu-img says of an image.
fn info(image: &Image) -> Result<Value, Failure> {
    let mut command = Command::new(PROGRAM);
    command.args(["info", "--output=json"]).args(image.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = start(&mut command)?
        .wait_with_output()
        .map_err(|error| Failure::failed(code::PROGRAM_FAILED, format!("{PROGRAM}: {error}")))?;
    if !output.status.success() {
        return Err(Failure::of_code(code::IMAGE_UNREADABLE, last_line(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::failed(code::PROGRAM_FAILED, format!("{PROGRAM} info: {error}")))
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
    // What is no text in a path qemu-img shows in its own way, in both places.
    let own = path.to_str().or_else(|| info["filename"].as_str()).unwrap_or_default();
    let foreign =
        extents.into_iter().any(|extent| extent["filename"].as_str().is_none_or(|name| name != own));
    foreign.then_some("extents in other files")
}
