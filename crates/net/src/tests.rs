//! Goal: what is asked over a stream is answered as without one, whatever the other end does.

mod tcp;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::wire::{self, FRAME_BYTES, Hello, Refusal};
use proto::{CallError, CallErrorKind, ReadBytes, Request, Response, Transport};
use seam::testing::run;
use seam::{BoxFuture, Rt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use units::{ContainerId, Incarnation, MediumId, NodeId, PAGE, PageBuf};

use crate::{Client, Dial, Limits, NetError, Remote, Server, refuse, serve};

const NODE: NodeId = NodeId([7; 16]);
const BY: units::Epoch = units::Epoch(5);
const MEDIUM: MediumId = MediumId([1; 16]);
/// A medium that answers nothing.
const SILENT: MediumId = MediumId([2; 16]);
/// What the stream holds between its ends.
const PIPE: usize = 10_000;
const LIMIT: Duration = Duration::from_secs(30);

/// Media that answer a read with bytes that the request determines, after a while.
struct Media {
    rt: Rt,
    under_way: AtomicUsize,
    most: AtomicUsize,
    taken_back: AtomicUsize,
}

struct UnderWay<'a>(&'a Media, usize, bool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(self.1, Ordering::Relaxed);
        self.0.taken_back.fetch_add(usize::from(!self.2), Ordering::Relaxed);
    }
}

fn content(offset: u32, length: u32) -> PageBuf {
    let mut buf = PageBuf::zeroed(length as usize);
    for (at, byte) in buf.as_mut().iter_mut().enumerate() {
        *byte = (offset as usize * 31 + at * 7) as u8;
    }
    buf
}

impl Transport for Media {
    fn call_by(
        &self,
        _: units::Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(async move {
            let cost = wire::cost(&request);
            let mut under_way = UnderWay(self, cost, false);
            let now = self.under_way.fetch_add(cost, Ordering::Relaxed) + cost;
            self.most.fetch_max(now, Ordering::Relaxed);
            let wait = if medium == SILENT { LIMIT * 100 } else { Duration::from_millis(cost as u64 % 13) };
            self.rt.sleep(wait).await;
            under_way.2 = true;
            match request {
                Request::FragmentRead { offset, length, .. } => {
                    Ok(Response::Bytes(ReadBytes::new(content(offset, length), 0, length as usize)))
                }
                Request::SegmentAppend { bytes, .. } if bytes.as_ref().iter().all(|byte| *byte == 9) => {
                    Ok(Response::Done)
                }
                Request::Info { .. } => Ok(Response::Info(proto::MediumInfo::default())),
                _ => {
                    let reason = "not here".to_owned();
                    Err(CallError { kind: CallErrorKind::NotFound, medium, reason })
                }
            }
        })
    }
}

fn limits() -> Limits {
    Limits { bytes: 1 << 20, ..Limits::default() }
}

fn server(rt: &Rt) -> (Server, Arc<Media>) {
    let (under_way, most, taken_back) = Default::default();
    let media = Arc::new(Media { rt: rt.clone(), under_way, most, taken_back });
    (Server { rt: rt.clone(), media: media.clone(), node: NODE, limits: limits() }, media)
}

type Ended = Arc<Mutex<Option<Result<(), NetError>>>>;

/// Serves one end of a stream; gives the other, and where it will be told how that ended.
fn served(rt: &Rt, server: Server) -> (DuplexStream, Ended) {
    let (here, there) = duplex(PIPE);
    let ended = Ended::default();
    let told = ended.clone();
    let work = async move {
        let result = serve(server, there).await;
        *told.lock().unwrap() = Some(result);
    };
    rt.spawn("server", Box::pin(work));
    (here, ended)
}

async fn ended(rt: &Rt, ended: &Ended) -> Result<(), NetError> {
    for _ in 0..10_000 {
        if let Some(result) = ended.lock().unwrap().take() {
            return result;
        }
        rt.sleep(Duration::from_millis(20)).await;
    }
    panic!("the server goes on");
}

async fn connect(rt: &Rt, stream: DuplexStream) -> Result<Client, NetError> {
    Client::connect(rt.clone(), stream, NodeId([8; 16]), Some(NODE), limits(), std::future::pending()).await
}

fn read(offset: u32, length: u32) -> Request {
    let container = ContainerId { incarnation: Incarnation(1), number: 2, class: 3, row: 4 };
    Request::FragmentRead { container, index: 0, offset, length, verify: false }
}

fn append(pages: usize) -> Request {
    let id = proto::SegmentId { epoch: units::Epoch(1), stream: Incarnation(2), number: 3 };
    let mut bytes = PageBuf::zeroed(pages * PAGE);
    bytes.as_mut().fill(9);
    Request::SegmentAppend { id, offset: 0, bytes: bytes.share() }
}

#[test]
fn many_requests_are_answered_each_with_its_own() {
    for seed in 0..20 {
        run(seed, async |rt: Rt| {
            let (server, media) = server(&rt);
            let (stream, done) = served(&rt, server);
            let client = connect(&rt, stream).await.unwrap();
            let calls = (0..400u32).map(|number| {
                let client = client.clone();
                async move {
                    let length = number * 977 % 200_000;
                    match number % 4 {
                        0 => {
                            let answer =
                                client.call(BY, MEDIUM, append(number as usize % 50 + 1), LIMIT).await;
                            assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
                        }
                        1 => {
                            let answer = client.call(BY, MEDIUM, Request::SegmentList, LIMIT).await;
                            let error = answer.unwrap_err();
                            // More than this node takes at all.
                            assert_eq!(error.kind, CallErrorKind::Invalid);
                        }
                        2 => {
                            let free = Request::FragmentFree(Vec::new());
                            let error = client.call(BY, MEDIUM, free, LIMIT).await.unwrap_err();
                            assert_eq!((error.kind, error.medium), (CallErrorKind::NotFound, MEDIUM));
                        }
                        _ => {
                            let answer = client.call(BY, MEDIUM, read(number, length), LIMIT).await.unwrap();
                            let Response::Bytes(bytes) = answer else { panic!("{answer:?}") };
                            assert!(bytes.as_ref() == &content(number, length).as_ref()[..length as usize]);
                        }
                    }
                }
            });
            seam::join_all(calls).await;
            let most = media.most.load(Ordering::Relaxed);
            assert!(most <= 1 << 20 && most > 500_000, "{most}");
            drop(client);
            assert_eq!(ended(&rt, &done).await, Ok(()));
        });
    }
}

#[test]
fn who_gives_up_takes_back_and_nothing_stays_counted() {
    run(1, async |rt: Rt| {
        let (server, media) = server(&rt);
        let (stream, _) = served(&rt, server);
        let client = connect(&rt, stream).await.unwrap();
        for _ in 0..3 {
            // Together they take the whole budget.
            let calls = (0..6).map(|_| client.call(BY, SILENT, read(0, 165_000), Duration::from_secs(1)));
            for answer in seam::join_all(calls).await {
                assert_eq!(answer.unwrap_err().kind, CallErrorKind::Unreachable);
            }
            rt.sleep(Duration::from_secs(1)).await;
            assert_eq!(media.under_way.load(Ordering::Relaxed), 0);
        }
        assert_eq!(media.taken_back.load(Ordering::Relaxed), 18);
        assert!(client.call(BY, MEDIUM, read(0, 1_000_000), LIMIT).await.is_ok(), "the whole budget is free");
        // A caller that goes without waiting.
        {
            let mut call = Box::pin(client.call(BY, SILENT, read(0, 100), LIMIT));
            assert!(seam::timeout(&*rt, Duration::from_secs(1), &mut call).await.is_err());
        }
        rt.sleep(Duration::from_secs(1)).await;
        assert_eq!(media.taken_back.load(Ordering::Relaxed), 19);
        assert_eq!(client.ended(), None);
    });
}

#[test]
fn a_connection_that_breaks_answers_all_that_wait() {
    run(2, async |rt: Rt| {
        let (server, _) = server(&rt);
        let (mut near, _) = served(&rt, server);
        // A line that breaks after so many bytes back.
        let (here, mut far) = duplex(PIPE);
        let relay = async move {
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        };
        let cut = rt.clone();
        let relay = async move {
            let _ = seam::timeout(&*cut, Duration::from_millis(500), relay).await;
        };
        rt.spawn("line", Box::pin(relay));
        let client = connect(&rt, here).await.unwrap();
        assert!(client.call(BY, MEDIUM, read(1, 5), LIMIT).await.is_ok());
        let begun = rt.now();
        let calls = (0..5).map(|_| client.call(BY, SILENT, read(1, 5), LIMIT));
        for answer in seam::join_all(calls).await {
            assert_eq!(answer.unwrap_err().kind, CallErrorKind::Unreachable);
        }
        assert!(rt.now() - begun < Duration::from_secs(1), "nobody waits for a line that is cut");
        assert!(matches!(client.ended(), Some(NetError::Stream(_))));
        let error = client.call(BY, MEDIUM, read(1, 5), LIMIT).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Unreachable);
    });
}

#[test]
fn strangers_are_refused() {
    run(3, async |rt: Rt| {
        // Another version.
        let (mut stream, done) = served(&rt, server(&rt).0);
        let later = Hello { least: 8, most: 9, in_flight_bytes: 0, node: NodeId([1; 16]) };
        stream.write_all(&later.encode()).await.unwrap();
        let mut answer = [0; wire::HELLO_BYTES];
        stream.read_exact(&mut answer).await.unwrap();
        let refusal = Refusal::Version { least: wire::VERSION_LEAST, most: wire::VERSION };
        assert_eq!(Hello::decode(&answer), Ok(Err(refusal)));
        assert_eq!(ended(&rt, &done).await, Err(NetError::Refused(refusal)));
        // Something else, and nothing at all.
        let (mut stream, done) = served(&rt, server(&rt).0);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n\r\n\r\n").await.unwrap();
        assert!(matches!(ended(&rt, &done).await, Err(NetError::Protocol(_))));
        let (_stream, done) = served(&rt, server(&rt).0);
        assert_eq!(ended(&rt, &done).await, Err(NetError::Slow(limits().handshake)));
        // A node that is not the one, one that is too busy, one that says nothing.
        let (stream, _) = served(&rt, server(&rt).0);
        let other = Client::connect(
            rt.clone(),
            stream,
            NodeId([8; 16]),
            Some(NodeId([9; 16])),
            limits(),
            std::future::pending(),
        )
        .await;
        assert_eq!(other.unwrap_err(), NetError::OtherNode);
        let (here, there) = duplex(PIPE);
        let busy = server(&rt).0;
        let work = async move { refuse(&busy, there, Refusal::Busy).await.unwrap() };
        rt.spawn("busy node", Box::pin(work));
        assert_eq!(connect(&rt, here).await.unwrap_err(), NetError::Refused(Refusal::Busy));
        let (here, _there) = duplex(PIPE);
        assert_eq!(connect(&rt, here).await.unwrap_err(), NetError::Slow(limits().handshake));
    });
}

/// A connection behind its hand-shake, to send anything on.
async fn raw(rt: &Rt) -> (DuplexStream, Ended, Arc<Media>) {
    let (server, media) = server(rt);
    let (mut stream, done) = served(rt, server);
    stream.write_all(&Hello::new(0, NodeId([8; 16])).encode()).await.unwrap();
    let mut answer = [0; wire::HELLO_BYTES];
    stream.read_exact(&mut answer).await.unwrap();
    let hello = Hello::decode(&answer).unwrap().unwrap();
    assert_eq!((hello.most, hello.in_flight_bytes, hello.node), (wire::VERSION, 1 << 20, NODE));
    (stream, done, media)
}

#[test]
fn hostile_peers_harm_nobody() {
    run(4, async |rt: Rt| {
        let sent = |number| wire::request(number, BY, SILENT, 30_000, &read(0, 100_000)).unwrap().front;
        // More under way than it may.
        let (mut stream, done, media) = raw(&rt).await;
        for number in 0..11 {
            stream.write_all(&sent(number)).await.unwrap();
        }
        assert_eq!(ended(&rt, &done).await, Err(NetError::Flood));
        assert!(media.most.load(Ordering::Relaxed) <= 1 << 20);
        // The same number twice, an answer, a frame that is damaged, one that is too long, one that is none.
        let answer = wire::answer(1, &Ok(Response::Done)).unwrap().front;
        let mut damaged = sent(1);
        damaged[FRAME_BYTES + 3] ^= 1;
        let mut long = sent(1);
        long[20..24].fill(0xff);
        let hostile = [[sent(1), sent(1)].concat(), answer, damaged, long, vec![0; 64]];
        for bytes in hostile {
            let (mut stream, done, _) = raw(&rt).await;
            stream.write_all(&bytes).await.unwrap();
            assert!(matches!(ended(&rt, &done).await, Err(NetError::Stream(_) | NetError::Protocol(_))));
        }
        // A frame that never ends, and a peer that takes no answers.
        for length in [10, FRAME_BYTES, FRAME_BYTES + 4] {
            let (mut stream, done, _) = raw(&rt).await;
            stream.write_all(&sent(1)[..length]).await.unwrap();
            assert_eq!(ended(&rt, &done).await, Err(NetError::Slow(limits().stall)), "{length}");
        }
        let (mut stream, done, _) = raw(&rt).await;
        for number in 0..4 {
            let ask = wire::request(number, BY, MEDIUM, 30_000, &read(0, 100_000)).unwrap();
            stream.write_all(&ask.front).await.unwrap();
        }
        assert_eq!(ended(&rt, &done).await, Err(NetError::Slow(limits().stall)));
        // Cancelling what is not there is no harm, and an idle connection stays.
        let (mut stream, done, _) = raw(&rt).await;
        stream.write_all(&wire::cancellation(99).front).await.unwrap();
        rt.sleep(limits().stall * 10).await;
        assert!(done.lock().unwrap().is_none());
        drop(stream);
        assert_eq!(ended(&rt, &done).await, Ok(()));
    });
}

#[test]
fn a_node_that_answers_nonsense_is_left() {
    run(5, async |rt: Rt| {
        let done = wire::answer(1, &Ok(Response::Done)).unwrap().front;
        let other = wire::answer(5, &Ok(Response::Done)).unwrap().front;
        let asks = wire::request(1, BY, MEDIUM, 1, &read(0, 1)).unwrap().front;
        let mut damaged = done.clone();
        damaged[5] ^= 9;
        for (bytes, is_right) in [(done, true), (other, false), (asks, false), (damaged, false)] {
            let (here, mut there) = duplex(PIPE);
            let node = async move {
                let mut hello = [0; wire::HELLO_BYTES];
                there.read_exact(&mut hello).await.unwrap();
                there.write_all(&Hello::new(1 << 20, NODE).encode()).await.unwrap();
                let mut asked = [0; FRAME_BYTES];
                there.read_exact(&mut asked).await.unwrap();
                there.write_all(&bytes).await.unwrap();
                // Stays open: the client ends by itself.
                while there.read(&mut asked).await.is_ok_and(|count| count > 0) {}
            };
            rt.spawn("node", Box::pin(node));
            let client = connect(&rt, here).await.unwrap();
            let begun = rt.now();
            let answer = client.call(BY, MEDIUM, Request::Info { extent: 1 }, LIMIT).await;
            assert_eq!(answer.is_ok(), is_right, "{answer:?}");
            assert_eq!(client.ended().is_none(), is_right);
            assert!(rt.now() - begun < Duration::from_secs(1));
        }
    });
}

/// Nodes that answer or do not, and how often each was dialed.
struct Nodes {
    rt: Rt,
    server: Server,
    is_up: Mutex<bool>,
    dialed: AtomicUsize,
    lines: Mutex<Vec<tokio::sync::oneshot::Sender<()>>>,
}

impl Nodes {
    fn dialed(&self) -> usize {
        self.dialed.load(Ordering::Relaxed)
    }

    /// All connections break, and there are others from here on, or none.
    fn restart(&self, is_up: bool) {
        *self.is_up.lock().unwrap() = is_up;
        self.lines.lock().unwrap().clear();
    }
}

impl Dial for Nodes {
    fn dial(&self, node: NodeId) -> BoxFuture<'_, Result<Client, NetError>> {
        Box::pin(async move {
            self.dialed.fetch_add(1, Ordering::Relaxed);
            self.rt.sleep(Duration::from_millis(10)).await;
            if !*self.is_up.lock().unwrap() || node != NODE {
                return Err(NetError::Stream("connection refused".to_owned()));
            }
            let (here, there) = duplex(PIPE);
            let (line, cut) = tokio::sync::oneshot::channel::<()>();
            self.lines.lock().unwrap().push(line);
            let server = self.server.clone();
            let work = async move {
                tokio::select! {
                    biased;
                    _ = cut => {}
                    _ = serve(server, there) => {}
                }
            };
            self.rt.spawn("node", Box::pin(work));
            connect(&self.rt, here).await
        })
    }
}

#[test]
fn connections_to_nodes_are_made_anew_and_not_too_often() {
    for seed in 0..20 {
        run(seed, async |rt: Rt| {
            let nodes = Arc::new(Nodes {
                rt: rt.clone(),
                server: server(&rt).0,
                is_up: Mutex::new(true),
                dialed: AtomicUsize::new(0),
                lines: Mutex::default(),
            });
            let remote = Remote::new(rt.clone(), nodes.clone());
            let ask = |medium| remote.call(medium, read(1, 5));
            assert_eq!(ask(MEDIUM).await.unwrap_err().kind, CallErrorKind::Unreachable, "it is nowhere yet");
            remote.place(MEDIUM, NODE);
            remote.place(SILENT, NODE);
            // Those that come together share one connection, whichever medium they ask.
            for answer in seam::join_all((0..50).map(|_| ask(MEDIUM))).await {
                assert!(answer.is_ok(), "{answer:?}");
            }
            assert_eq!(nodes.dialed(), 1);
            // What waits when it breaks is told, and the next goes over another.
            let breaks = async {
                rt.sleep(Duration::from_secs(1)).await;
                nodes.restart(true);
            };
            let (waiting, ()) = tokio::join!(biased; ask(SILENT), breaks);
            assert_eq!(waiting.unwrap_err().kind, CallErrorKind::Unreachable);
            assert!(ask(MEDIUM).await.is_ok());
            assert_eq!(nodes.dialed(), 2);
            // A node that is down: nobody waits for it, and it is not asked all the time.
            nodes.restart(false);
            rt.sleep(Duration::from_secs(1)).await;
            let begun = rt.now();
            while rt.now() < begun + Duration::from_secs(60) {
                let asked = rt.now();
                assert_eq!(ask(MEDIUM).await.unwrap_err().kind, CallErrorKind::Unreachable);
                assert!(rt.now() - asked < Duration::from_millis(100));
                rt.sleep(Duration::from_millis(3)).await;
            }
            let dialed = nodes.dialed() - 2;
            assert!((15..25).contains(&dialed), "{dialed}");
            // It is back: found again within the longest pause.
            nodes.restart(true);
            let begun = rt.now();
            while ask(MEDIUM).await.is_err() {
                rt.sleep(Duration::from_millis(3)).await;
            }
            assert!(rt.now() - begun < Duration::from_secs(6));
            // A medium goes to another node, which is not there, and back.
            remote.place(MEDIUM, NodeId([9; 16]));
            assert!(ask(MEDIUM).await.is_err());
            remote.place(MEDIUM, NODE);
            assert!(ask(MEDIUM).await.is_ok());
            remote.remove(MEDIUM);
            assert!(ask(MEDIUM).await.is_err());
        });
    }
}
