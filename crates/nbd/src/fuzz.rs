//! The decoders and a whole session, fed with anything. Nothing here may panic or hang.

use std::sync::Arc;
use std::time::Duration;

use budget::Budget;
use seam::{Rt, TokioRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::link::Link;
use crate::proto::{self, InfoRequest, MetaQuery, Request};
use crate::ram::{RamDevice, RamExports};
use crate::request::{self, Facts, Terms};
use crate::server::Limits;
use crate::transmission;

/// Bytes of the disk behind a fuzzed session.
const DISK: usize = 64 << 10;
/// Bytes that fit between client and server: small, so that both sides have to wait.
const PIPE: usize = 4 << 10;

/// Decodes `data` as every message a client can send, then plays it to a server as a client that sends all of it,
/// closes its sending side and reads to the end.
///
/// # Panics
/// Only on a bug: that is its purpose.
pub fn fuzz_body(data: &[u8]) {
    decode(data);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime of one thread needs only memory");
    let rt: Rt = Arc::new(TokioRuntime::new(runtime.handle().clone()));
    runtime.block_on(session(rt, data));
}

fn decode(data: &[u8]) {
    let _ = proto::decode_client_flags(data);
    let _ = proto::decode_option_header(data);
    if let Ok(info) = InfoRequest::decode(data) {
        let _ = info.wants(proto::info::BLOCK_SIZE);
    }
    if let Ok(query) = MetaQuery::decode(data) {
        let _ = query.asks(proto::BASE_ALLOCATION);
    }
    let Some(request) = Request::decode(data) else { return };
    for number in 0_u8..16 {
        let facts = Facts {
            size: if number & 1 == 0 { DISK as u64 } else { u64::MAX },
            read_only: number & 2 != 0,
            zeroes_are_fast: number & 4 != 0,
        };
        let terms =
            Terms { structured: number & 8 != 0, allocation: number & 8 != 0, contexts: number & 16 != 0 };
        if let Ok(plan) = request::check(&request, facts, terms) {
            assert!(plan.cost() <= (proto::MAX_REQUEST as usize) + DISK * 4, "a request of any cost passed");
        }
    }
}

async fn session(rt: Rt, data: &[u8]) {
    let (client, server) = tokio::io::duplex(PIPE);
    let (server_reader, server_writer) = tokio::io::split(server);
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let exports = RamExports::new("disk", Arc::new(RamDevice::new(DISK)));
    let limits = Limits { stall: Duration::from_secs(5), ..Limits::default() };
    let budget = Budget::new(budget::BYTES_MIN);
    let account = budget.open(PIPE).expect("nothing is set aside yet");
    let link = Arc::new(Link::new(limits, account, None, None));
    let serving = transmission::serve(rt.clone(), &exports, link, limits, server_reader, server_writer);
    let sending = async {
        // The server may hang up before it has read everything.
        let _ = client_writer.write_all(data).await;
        let _ = client_writer.shutdown().await;
    };
    let mut replies = vec![0; PIPE];
    let receiving = async { while !matches!(client_reader.read(&mut replies).await, Ok(0) | Err(_)) {} };
    let all = async {
        tokio::join!(sending, receiving, async {
            // A client may break the protocol; that it ends is all that counts.
            let _ = serving.await;
        })
    };
    seam::timeout(&*rt, Duration::from_secs(4), all).await.expect("a session ends when its client has left");
}
