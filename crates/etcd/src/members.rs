//! The members of etcd: whom to ask, how long, and whether to ask again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use meta::{Error, ErrorKind, Result};
use seam::Rt;

use crate::Options;
use crate::fault::Fault;

/// Rest between two rounds through all members, and before a stream that broke is opened again.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// A connection with something under way is probed so often. etcd ends connections that are probed more often than every
/// five seconds.
const PROBE: Duration = Duration::from_secs(6);

/// What a request does, and so what becomes of it when it may have happened and no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that anybody need know of: it is asked again, and in the end it was unavailable.
    None,
    /// The same when it is done twice: it is asked again, and in the end its outcome is unknown.
    Same,
    /// Another each time: it is not asked again, its outcome is unknown.
    Once,
}

/// One etcd server, and the connection to it, which is made when it is needed and again when it is lost.
pub(crate) struct Member {
    endpoint: String,
    options: ConnectOptions,
    client: Client,
}

impl Member {
    /// What to ask it with.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The same with a connection of its own, so that whoever does not read its answers holds up nobody else.
    pub(crate) async fn apart(&self) -> std::result::Result<Client, Fault> {
        Ok(Client::connect([&self.endpoint], Some(self.options.clone())).await?)
    }
}

/// All members that were named.
pub(crate) struct Members {
    rt: Rt,
    deadline: Duration,
    all: Vec<Arc<Member>>,
    /// Who is asked first: whoever answered last.
    current: AtomicUsize,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|member| &member.endpoint)).finish()
    }
}

impl Members {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// `Invalid` when endpoints or certificates are malformed.
    pub(crate) async fn new(rt: Rt, options: &Options) -> Result<Self> {
        if options.endpoints.is_empty() || options.deadline.is_zero() {
            return Err(Error::invalid("etcd needs an endpoint and a deadline"));
        }
        // A member that does not answer leaves time for each of the others.
        let slice = slice(options.deadline, options.endpoints.len());
        let mut connect = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(slice)
            .with_keep_alive(PROBE, options.deadline)
            .with_keep_alive_while_idle(false);
        if let Some(tls) = &options.tls {
            let mut trust = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authority));
            if let Some(name) = &tls.name {
                trust = trust.domain_name(name);
            }
            connect = connect.with_tls(trust.identity(Identity::from_pem(&tls.certificate, &tls.key)));
        }
        let mut all = Vec::with_capacity(options.endpoints.len());
        for endpoint in &options.endpoints {
            if options.tls.is_none() && endpoint.starts_with("https:") {
                return Err(Error::invalid(format!("{endpoint} needs certificates")));
            }
            let bad = |error| Error::invalid(format!("{endpoint}: {error}"));
            let client = Client::connect([endpoint], Some(connect.clone())).await.map_err(bad)?;
            all.push(Arc::new(Member { endpoint: endpoint.clone(), options: connect.clone(), client }));
        }
        Ok(Self { rt, deadline: options.deadline, all, current: AtomicUsize::new(0) })
    }

    pub(crate) fn rt(&self) -> &Rt {
        &self.rt
    }

    /// Asks one member after another until one answers, the answer is a refusal, or the deadline is over. `attempt` gets
    /// the member and whether an earlier attempt may have happened.
    ///
    /// # Errors
    /// What was refused; `Unknown` when it may have happened and that matters; else `Unavailable`.
    pub(crate) async fn ask<T, F>(
        &self,
        what: &str,
        effect: Effect,
        attempt: impl Fn(Arc<Member>, bool) -> F,
    ) -> std::result::Result<T, Fault>
    where
        F: Future<Output = std::result::Result<T, Fault>>,
    {
        let end = self.rt.now() + self.deadline;
        let (mut lost, mut tried, mut why) = (false, 0, String::new());
        loop {
            let left = end.saturating_sub(self.rt.now());
            if left.is_zero() {
                let unknown = lost && effect != Effect::None;
                return Err(if unknown { not_known(what, &why) } else { self.given_up(what, &why) });
            }
            let at = self.current.load(Ordering::Relaxed) % self.all.len();
            let member = &self.all[at];
            let limit = match effect {
                Effect::None | Effect::Same => left.min(slice(self.deadline, self.all.len())),
                Effect::Once => left,
            };
            let fault = match seam::timeout(&*self.rt, limit, attempt(member.clone(), lost)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) => fault,
                Err(seam::Elapsed) => Fault::Lost(format!("no answer within {} ms", limit.as_millis())),
            };
            why = match fault {
                Fault::Away(why) => format!("{}: {why}", member.endpoint),
                Fault::Lost(why) => {
                    lost = true;
                    format!("{}: {why}", member.endpoint)
                }
                fault => return Err(fault),
            };
            tracing::debug!("etcd: {what} at {why}");
            self.leave(at);
            if lost && effect == Effect::Once {
                return Err(not_known(what, &why));
            }
            tried += 1;
            if tried % self.all.len() == 0 {
                self.rt.sleep(PAUSE.min(end.saturating_sub(self.rt.now()))).await;
            }
        }
    }

    /// The next member is asked first from now on, unless somebody has seen to that.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.all.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn given_up(&self, what: &str, why: &str) -> Fault {
        let (count, seconds) = (self.all.len(), self.deadline.as_secs_f32());
        let context = format!("no answer to {what} from {count} members of etcd within {seconds} s; {why}");
        Fault::refused(ErrorKind::Unavailable, context)
    }
}

fn not_known(what: &str, why: &str) -> Fault {
    Fault::refused(ErrorKind::Unknown, format!("whether {what} happened is not known: {why}"))
}

/// The time one of `members` may take of a deadline.
fn slice(deadline: Duration, members: usize) -> Duration {
    deadline / u32::try_from(members).unwrap_or(u32::MAX).saturating_add(1)
}
