//! A watch: a place in the history, and a stream of etcd that is opened anew behind it when it breaks.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};
use meta::{Batch, Error, ErrorKind, Event, KeyRange, Result, Revision, Watch};
use seam::BoxFuture;

use crate::fault::Fault;
use crate::members::{Effect, Member, Members, PAUSE};
use crate::names::{Names, Span, revision, signed};

/// Longest message of a stream, in bytes. etcd cuts what is longer than one request may be: 2 MiB, or what it is set to.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A running watch.
pub(crate) struct Cursor {
    members: Arc<Members>,
    names: Names,
    /// None when no key can be in it.
    span: Option<Span>,
    /// Everything up to here was given or does not concern the range.
    seen: Revision,
    stream: Stream,
    /// Whether a stream broke: the next one is opened after a rest.
    broke: bool,
    /// Events of a revision whose others are still to come.
    part: Vec<Event>,
}

/// Where the events come from. Opening is kept, so that a caller that gives up waiting does not begin it again.
enum Stream {
    Closed,
    Opening(BoxFuture<'static, std::result::Result<Open, Fault>>),
    Open(Box<Open>),
}

struct Open {
    events: WatchStream,
    /// The connection, which is this watch's alone.
    _client: Client,
}

impl Cursor {
    pub(crate) fn new(members: Arc<Members>, names: Names, range: &KeyRange, from: Revision) -> Result<Self> {
        range.check()?;
        let Some(seen) = from.0.checked_sub(1).map(Revision) else {
            return Err(Error::invalid("a watch begins at revision 1 or later"));
        };
        let span = names.span(range);
        Ok(Self { members, names, span, seen, stream: Stream::Closed, broke: false, part: Vec::new() })
    }

    async fn advance(&mut self) -> Result<Batch> {
        let Some(span) = self.span.clone() else { return std::future::pending().await };
        loop {
            match &mut self.stream {
                Stream::Closed => {
                    self.part.clear();
                    let rest = if std::mem::take(&mut self.broke) { PAUSE } else { Duration::ZERO };
                    let opening = open(self.members.clone(), rest, span.clone(), self.seen.next());
                    self.stream = Stream::Opening(Box::pin(opening));
                }
                Stream::Opening(opening) => {
                    let opened = opening.await;
                    self.stream = Stream::Closed;
                    self.stream = Stream::Open(Box::new(opened?));
                }
                Stream::Open(open) => match open.events.message().await {
                    Ok(Some(message)) => {
                        if let Some(batch) = self.take(&message)? {
                            return Ok(batch);
                        }
                    }
                    ended => {
                        tracing::debug!("etcd: a watch is opened again behind {}: {ended:?}", self.seen);
                        (self.stream, self.broke) = (Stream::Closed, true);
                    }
                },
            }
        }
    }

    /// Takes a message of the stream; gives the revisions that it completes.
    fn take(&mut self, message: &WatchResponse) -> Result<Option<Batch>> {
        if message.compact_revision() > 0 || message.canceled() {
            (self.stream, self.broke) = (Stream::Closed, true);
            return if message.compact_revision() > 0 { Err(compacted(message)) } else { Ok(None) };
        }
        for event in message.events() {
            let event = self.event(event).inspect_err(|_| self.stream = Stream::Closed)?;
            self.part.push(event);
        }
        // A message that is cut ends within a revision, whose rest comes with the next.
        let last = self.part.last().map(Event::revision);
        let whole = match last {
            Some(last) if message.0.fragment => self.part.partition_point(|event| event.revision() < last),
            _ => self.part.len(),
        };
        let events: Vec<Event> = self.part.drain(..whole).collect();
        if let Some(revision) = events.last().map(Event::revision) {
            self.seen = revision;
            return Ok(Some(Batch { events, revision }));
        }
        // Nothing happened in the range up to here. The first message only says that the stream is open.
        if self.part.is_empty() && !message.created() {
            let told = revision(message.header().map_or(0, |header| header.revision()))?;
            self.seen = self.seen.max(told);
        }
        Ok(None)
    }

    fn event(&self, event: &etcd_client::Event) -> Result<Event> {
        let Some(kv) = event.kv() else {
            return Err(Error::new(ErrorKind::Corrupt, "etcd tells of a change of no key"));
        };
        Ok(match event.event_type() {
            EventType::Put => Event::Put(self.names.entry(kv.clone())?),
            EventType::Delete => {
                Event::Delete { key: self.names.back(kv.key())?, revision: revision(kv.mod_revision())? }
            }
        })
    }
}

fn compacted(message: &WatchResponse) -> Error {
    let floor = message.compact_revision();
    Error::new(ErrorKind::Compacted, format!("etcd keeps no changes before revision {floor}"))
}

/// Opens a stream of the events in `span` from revision `from` on, after a rest.
async fn open(
    members: Arc<Members>,
    rest: Duration,
    span: Span,
    from: Revision,
) -> std::result::Result<Open, Fault> {
    if !rest.is_zero() {
        members.rt().sleep(rest).await;
    }
    let options = WatchOptions::new()
        .with_range(span.end)
        .with_start_revision(signed(from.0))
        .with_progress_notify()
        .with_fragment();
    let attempt = |member: Arc<Member>, _| {
        let (start, options) = (span.start.clone(), options.clone());
        async move {
            let client = member.apart().await?;
            let mut watches = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut events = watches.watch(start, Some(options)).await?;
            match events.message().await? {
                Some(first) if first.compact_revision() > 0 => Err(Fault::Refused(compacted(&first))),
                Some(first) if first.created() && !first.canceled() => Ok(Open { events, _client: client }),
                Some(first) => Err(Fault::Away(first.cancel_reason().to_owned())),
                None => Err(Fault::Away("the stream ended before it began".to_owned())),
            }
        }
    };
    members.ask("a watch", Effect::None, attempt).await
}

impl Watch for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(self.advance())
    }
}
