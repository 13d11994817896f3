//! A transport that fails, loses, repeats, delays and spoils chosen requests, and writes down all of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use data::LocalTransport;
use proto::{CallError, CallErrorKind, ReadBytes, Request, Response, Transport};
use seam::{BoxFuture, Rt};
use units::{Epoch, MediumId, PageBuf};

use crate::stripe::lock;

/// When a late message arrives at last.
pub(super) const LATE: Duration = Duration::from_secs(5);

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
    Header,
    Free,
    List,
    Info,
    Other,
}

pub(super) fn kind_of(request: &Request) -> Kind {
    match request {
        Request::FragmentWrite { .. } => Kind::Write,
        Request::FragmentRead { .. } => Kind::Read,
        Request::FragmentHeader { .. } => Kind::Header,
        Request::FragmentFree(_) | Request::FragmentFreeAt(_) => Kind::Free,
        Request::FragmentList { .. } => Kind::List,
        Request::Info { .. } => Kind::Info,
        _ => Kind::Other,
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Refused, and not carried out.
    Refused(CallErrorKind),
    /// Never arrives.
    Dropped,
    /// Carried out, and the answer is lost.
    AnswerLost,
    /// Carried out twice, almost at once; answered as soon as the second is.
    Twice,
    /// No answer; carried out [`LATE`].
    Late,
    /// Carried out [`LATE`], and answered then.
    Slow,
    /// Refused as failed [`LATE`].
    SlowFailure,
    /// A bit of what was read flips on the way.
    Flipped,
    /// Half of what was read is cut off.
    Short,
    /// Answered with the answer to another question.
    Nonsense,
}

/// Which requests meet which fate.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    pub(super) medium: Option<MediumId>,
    /// Matching requests that pass first.
    pub(super) skip: u64,
    /// Matching requests that are struck then.
    pub(super) times: u64,
    pub(super) fate: Fate,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    log: Vec<(MediumId, Kind)>,
    fired: u64,
}

pub(super) struct Script {
    inner: Arc<LocalTransport>,
    rt: Rt,
    state: Mutex<State>,
}

impl Script {
    pub(super) fn new(inner: Arc<LocalTransport>, rt: Rt) -> Self {
        Self { inner, rt, state: Mutex::default() }
    }

    pub(super) fn rule(&self, rule: Rule) {
        lock(&self.state).rules.push(rule);
    }

    /// `times` requests of `kind`, to any medium, after `skip` others.
    pub(super) fn strike(&self, kind: Kind, skip: u64, times: u64, fate: Fate) {
        self.rule(Rule { kind, medium: None, skip, times, fate });
    }

    /// Every request of `kind` to `medium`.
    pub(super) fn strike_all(&self, kind: Kind, medium: MediumId, fate: Fate) {
        self.rule(Rule { kind, medium: Some(medium), skip: 0, times: u64::MAX, fate });
    }

    pub(super) fn clear(&self) {
        lock(&self.state).rules.clear();
    }

    /// Requests struck so far.
    pub(super) fn fired(&self) -> u64 {
        lock(&self.state).fired
    }

    /// Forgets the requests seen so far, and gives them.
    pub(super) fn take_log(&self) -> Vec<(MediumId, Kind)> {
        std::mem::take(&mut lock(&self.state).log)
    }

    fn fate(&self, medium: MediumId, kind: Kind) -> Option<Fate> {
        let mut state = lock(&self.state);
        state.log.push((medium, kind));
        let matches = |rule: &&mut Rule| {
            rule.kind == kind && rule.medium.is_none_or(|wanted| wanted == medium) && rule.times > 0
        };
        let mut fate = None;
        for rule in state.rules.iter_mut().filter(matches) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if fate.is_none() {
                rule.times -= 1;
                fate = Some(rule.fate);
            }
        }
        state.fired += u64::from(fate.is_some());
        fate
    }

    fn late(&self, medium: MediumId, request: Request) {
        let (inner, rt) = (self.inner.clone(), self.rt.clone());
        let work = async move {
            rt.sleep(LATE).await;
            let _ = inner.call(medium, request).await;
        };
        self.rt.spawn("late message", Box::pin(work));
    }

    async fn meet(&self, medium: MediumId, request: Request) -> Result<Response, CallError> {
        let fate = self.fate(medium, kind_of(&request));
        let error = |kind| Err(CallError { kind, medium, reason: "so says the script".into() });
        match fate {
            None => self.inner.call(medium, request).await,
            Some(Fate::Refused(kind)) => error(kind),
            Some(Fate::Dropped) => error(CallErrorKind::Unreachable),
            Some(Fate::AnswerLost) => {
                let _ = self.inner.call(medium, request).await;
                error(CallErrorKind::Unreachable)
            }
            Some(Fate::Twice) => {
                let (inner, first) = (self.inner.clone(), request.clone());
                self.rt.spawn("first", Box::pin(async move { drop(inner.call(medium, first).await) }));
                self.rt.sleep(Duration::from_micros(1)).await;
                self.inner.call(medium, request).await
            }
            Some(Fate::Late) => {
                self.late(medium, request);
                error(CallErrorKind::Unreachable)
            }
            Some(Fate::Slow) => {
                self.rt.sleep(LATE).await;
                self.inner.call(medium, request).await
            }
            Some(Fate::SlowFailure) => {
                self.rt.sleep(LATE).await;
                error(CallErrorKind::Failed)
            }
            Some(Fate::Flipped) => Ok(altered(self.inner.call(medium, request).await?, |bytes| {
                let at = bytes.len() / 2;
                bytes[at] ^= 4;
            })),
            Some(Fate::Short) => {
                Ok(altered(self.inner.call(medium, request).await?, |bytes| bytes.truncate(bytes.len() / 2)))
            }
            Some(Fate::Nonsense) => Ok(Response::Segments(Vec::new())),
        }
    }
}

fn altered(response: Response, change: impl FnOnce(&mut Vec<u8>)) -> Response {
    let Response::Bytes(bytes) = response else { return response };
    let mut bytes = bytes.as_ref().to_vec();
    change(&mut bytes);
    let length = bytes.len();
    Response::Bytes(ReadBytes::new(PageBuf::copy_of(&bytes), 0, length))
}

impl Transport for Script {
    fn call_by(
        &self,
        _: Epoch,
        medium: MediumId,
        request: Request,
    ) -> BoxFuture<'_, Result<Response, CallError>> {
        Box::pin(self.meet(medium, request))
    }
}
