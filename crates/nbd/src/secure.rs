//! What is said before TLS, for whoever puts TLS in front of a server: STARTTLS, and nothing else.
//!
//! ```text
//!  client ── greeting, flags, STARTTLS ──► begin_tls ══ TLS ══► the rest of the hand-shake ──► a server whose own greeting
//!                                                                                              pass_greeting takes
//! ```
//! Neither has a deadline of its own.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::proto::{self, CLIENT_FIXED_NEWSTYLE, OptionHeader, opt, rep};

/// Options before STARTTLS. Clients that would rather go without it try a few.
const MAX_OPTIONS: usize = 16;
/// Longest payload of such an option, bytes.
const MAX_PAYLOAD: u32 = 4096;
/// Bytes of a server's greeting.
const GREETING: usize = 18;

/// The flags that a client said, which hold behind TLS too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFlags(u32);

fn bad(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

/// Greets a client and refuses whatever it asks for until it asks for TLS, which is to follow at once. `None` when it leaves.
///
/// # Errors
/// Those of the stream; `InvalidData` for a client that does not speak fixed newstyle, asks for an export at once, or asks on
/// and on.
pub async fn begin_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<Option<ClientFlags>> {
    let mut out = Vec::new();
    proto::encode_greeting(&mut out);
    stream.write_all(&out).await?;
    let mut flags = [0; 4];
    stream.read_exact(&mut flags).await?;
    let flags = proto::decode_client_flags(&flags).filter(|flags| flags & CLIENT_FIXED_NEWSTYLE != 0);
    let flags = flags.ok_or_else(|| bad("the client does not speak fixed newstyle"))?;
    for _ in 0..MAX_OPTIONS {
        let mut head = [0; OptionHeader::BYTES];
        stream.read_exact(&mut head).await?;
        let OptionHeader { option, length } =
            proto::decode_option_header(&head).ok_or_else(|| bad("not an option"))?;
        if length > MAX_PAYLOAD || option == opt::EXPORT_NAME {
            return Err(bad("an option that cannot be answered before TLS"));
        }
        let mut payload = [0; MAX_PAYLOAD as usize];
        stream.read_exact(&mut payload[..length as usize]).await?;
        let (kind, text) = match option {
            opt::STARTTLS if length == 0 => (rep::ACK, ""),
            opt::STARTTLS => (rep::ERR_INVALID, "the option has no payload"),
            opt::ABORT => (rep::ACK, ""),
            _ => (rep::ERR_TLS_REQD, "this port wants TLS with a certificate first"),
        };
        out.clear();
        proto::encode_option_reply(&mut out, option, kind, text);
        stream.write_all(&out).await?;
        match (option, kind) {
            (opt::STARTTLS, rep::ACK) => return Ok(Some(ClientFlags(flags))),
            (opt::ABORT, _) => return Ok(None),
            _ => {}
        }
    }
    Err(bad("options without end"))
}

/// Takes the greeting of a server on behalf of a client that has had one, and says its flags.
///
/// # Errors
/// Those of the stream; `InvalidData` when it is no NBD server.
pub async fn pass_greeting<S>(stream: &mut S, flags: ClientFlags) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut greeting = [0; GREETING];
    stream.read_exact(&mut greeting).await?;
    let mut expected = Vec::new();
    proto::encode_greeting(&mut expected);
    if greeting[..] != expected[..] {
        return Err(bad("no NBD server of this program"));
    }
    stream.write_all(&flags.0.to_be_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(option: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        out.extend(option.to_be_bytes());
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out
    }

    /// What becomes of a client that says `said`, and the kinds of the replies to its options.
    async fn answered(flags: u32, said: &[Vec<u8>]) -> (Result<Option<ClientFlags>>, Vec<u32>) {
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        client.write_all(&flags.to_be_bytes()).await.unwrap();
        for option in said {
            client.write_all(option).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let outcome = begin_tls(&mut server).await;
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        let (mut kinds, mut rest) = (Vec::new(), &told[GREETING..]);
        while let Some((head, behind)) = rest.split_at_checked(20) {
            let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
            kinds.push(word(12));
            rest = &behind[word(16) as usize..];
        }
        (outcome, kinds)
    }

    #[tokio::test]
    async fn nothing_is_told_before_tls() {
        let (asks, wrong) = (option(opt::STARTTLS, b""), option(opt::STARTTLS, b"x"));
        let (outcome, kinds) =
            answered(3, &[option(opt::LIST, b""), option(opt::GO, b"name"), wrong, asks]).await;
        assert_eq!(outcome.unwrap(), Some(ClientFlags(3)));
        assert_eq!(kinds, [rep::ERR_TLS_REQD, rep::ERR_TLS_REQD, rep::ERR_INVALID, rep::ACK]);
        let (outcome, kinds) = answered(1, &[option(opt::ABORT, b"")]).await;
        assert_eq!((outcome.unwrap(), kinds), (None, vec![rep::ACK]));
        for said in
            [vec![option(opt::EXPORT_NAME, b"a")], vec![option(opt::LIST, &[0; 5000])], vec![vec![0; 16]]]
        {
            assert_eq!(answered(3, &said).await.0.unwrap_err().kind(), ErrorKind::InvalidData);
        }
        let endless = vec![option(opt::LIST, b""); MAX_OPTIONS];
        assert_eq!(answered(3, &endless).await.0.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(answered(2, &[]).await.0.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(answered(3, &[vec![1; 3]]).await.0.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
