//! A client's side of the hand-shake, blocking.

use std::io::{Error, ErrorKind, Read, Result, Write};

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
/// Fixed newstyle, and no zeroes behind the export's flags.
const CLIENT_FLAGS: u32 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
/// Longest payload of a reply to an option that is read, bytes: far above any.
const PAYLOAD_MAX: u32 = 64 << 10;

/// Opens `export` on a connection just made, and gives its size in bytes: from then on the stream carries requests
/// and simple replies. Set time-outs on the stream before.
///
/// # Errors
/// Those of the stream; `InvalidData` when the server does not speak fixed newstyle or refuses the export, with what it
/// says of the reason.
pub fn hand_shake(stream: &mut (impl Read + Write), export: &str) -> Result<u64> {
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    if greeting[..16] != *GREETING {
        return Err(bad("no fixed-newstyle NBD server"));
    }
    let mut hello = CLIENT_FLAGS.to_be_bytes().to_vec();
    hello.extend(&GREETING[8..]);
    hello.extend(OPTION_GO.to_be_bytes());
    hello.extend((export.len() as u32 + 6).to_be_bytes());
    hello.extend((export.len() as u32).to_be_bytes());
    hello.extend(export.as_bytes());
    // No information is asked for.
    hello.extend([0, 0]);
    stream.write_all(&hello)?;
    let mut size = None;
    loop {
        let mut head = [0; 20];
        stream.read_exact(&mut head)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, length) = (word(12), word(16));
        if length > PAYLOAD_MAX {
            return Err(bad("an endless answer in the hand-shake"));
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        match (kind, payload.first_chunk::<12>()) {
            (REPLY_ACK, _) => return size.ok_or_else(|| bad("the server does not tell the size")),
            // An export's size: type 0, 8 bytes of size, 2 of flags.
            (REPLY_INFO, Some([0, 0, bytes @ .., _, _])) => size = Some(u64::from_be_bytes(*bytes)),
            (REPLY_INFO, _) => {}
            _ => {
                let why = String::from_utf8_lossy(&payload);
                return Err(bad(&format!("export {export:?} refused: {kind:#x} {why}")));
            }
        }
    }
}

fn bad(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("NBD: {reason}"))
}
