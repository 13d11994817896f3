//! Stands between a store and a member: holds answers back, cuts connections, lets none be made.

use std::sync::Arc;
use std::time::Duration;

use seam::Rt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes and connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Road {
    Open,
    /// What the member answers is held back.
    Deaf,
    /// Connections end, and no others are made.
    Cut,
}

/// A way to one member. It ends with the test's runtime.
pub(super) struct Proxy {
    port: u16,
    road: Arc<watch::Sender<Road>>,
}

impl Proxy {
    pub(super) async fn to(rt: &Rt, endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = endpoint.trim_start_matches("http://").to_owned();
        let road = Arc::new(watch::Sender::new(Road::Open));
        let (own, told) = (rt.clone(), road.clone());
        let serve = async move {
            while let Ok((client, _)) = listener.accept().await {
                if *told.borrow() == Road::Cut {
                    continue;
                }
                let Ok(member) = TcpStream::connect(&address).await else { continue };
                let ((from, to), (back, out)) = (client.into_split(), member.into_split());
                own.spawn("proxy", Box::pin(pass(from, out, told.subscribe(), false)));
                own.spawn("proxy", Box::pin(pass(back, to, told.subscribe(), true)));
            }
        };
        rt.spawn("proxy", Box::pin(serve));
        Self { port, road }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it is so, also for the connections that are there.
    pub(super) fn set(&self, road: Road) {
        self.road.send_replace(road);
    }
}

/// Passes bytes on until either end is gone or the road is cut.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut road: watch::Receiver<Road>,
    answers: bool,
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = road.wait_for(|road| *road == Road::Cut) => return,
        };
        let Ok(count @ 1..) = read else { return };
        let passes = |road: &Road| *road != Road::Deaf || !answers;
        let cut = road.wait_for(passes).await.map_or(true, |road| *road == Road::Cut);
        if cut || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A port at which nobody answers, and nobody refuses.
pub(super) async fn silent(rt: &Rt) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = rt.clone();
    let hold = async move {
        let mut held = Vec::new();
        while let Ok((client, _)) = listener.accept().await {
            held.push(client);
            own.sleep(Duration::ZERO).await;
        }
    };
    rt.spawn("silent", Box::pin(hold));
    format!("http://127.0.0.1:{port}")
}
