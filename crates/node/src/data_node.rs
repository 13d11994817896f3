//! A data node from its start to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use api::{Error, Result, code};
use machine::{Lock, Opener};
use media::Backend;
use net::{Limits, Listener, SeatLimits, Server};
use seam::Rt;
use tokio::sync::watch;
use trust::rustls::ServerConfig;
use trust::rustls::pki_types::CertificateRevocationListDer;
use trust::{Access, Identity, Member, Role};

use crate::directory::Directory;
use crate::identity::{load_identity, save_certificate, save_revoked};
use crate::shelf::Shelf;

/// Connections of all compute nodes together.
const SEATS: SeatLimits = SeatLimits { knocking: 256, knocking_each: 32, seated: 1024, seated_each: 6 };

/// How to start a data node.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's directory.
    pub dir: PathBuf,
    /// Media: files or block devices that are there. What the node was given before it remembers.
    pub media: Vec<PathBuf>,
    /// Where compute nodes find it.
    pub listen: SocketAddr,
    /// How media are read and written.
    pub backend: Backend,
}

/// What connections are made with: the node's certificate, and whose are revoked.
type ServedWith = (Identity, Option<CertificateRevocationListDer<'static>>);

/// A running data node.
pub struct DataNode {
    rt: Rt,
    directory: Directory,
    member: Member,
    served_with: Mutex<ServedWith>,
    address: SocketAddr,
    shelf: Arc<Shelf>,
    access: watch::Sender<Arc<Access<ServerConfig>>>,
    stop: watch::Sender<bool>,
    _lock: Lock,
}

impl std::fmt::Debug for DataNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataNode({} at {})", self.member.node, self.address)
    }
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::new(code::IDENTITY_DAMAGED, error.to_string())
}

impl DataNode {
    /// Opens the media and serves them.
    ///
    /// # Errors
    /// `not_joined`, `identity_damaged`, `site_busy` when it runs already, `port_in_use`, and what reading its files can
    /// meet. Media that cannot be used are no error.
    pub async fn start(rt: Rt, options: Options) -> Result<Self> {
        let directory = Directory::new(&options.dir)?;
        let (identity, revoked) = load_identity(&directory)?;
        let member = identity.member();
        if member.role != Role::Data {
            let reason = format!("{}: its certificate is that of another role", directory.root().display());
            return Err(Error::new(code::IDENTITY_DAMAGED, reason));
        }
        let lock = Lock::take(&directory.file("lock"))?;
        let opener = Opener::new(&rt, options.backend)?;
        let shelf = Arc::new(Shelf::open(&rt, member.site, &directory, opener, &options.media).await?);
        let access = identity.server(&rt, &[Role::Compute], revoked.as_ref()).map_err(|e| refused(&e))?;
        let (access, served) = watch::channel(access);
        let media: Arc<dyn proto::Transport> = shelf.clone();
        let server = Server { rt: rt.clone(), media, node: member.node, limits: Limits::default() };
        let unusable = |error: net::NetError| {
            let reason = format!("{}: {error}", options.listen);
            Error::new(code::PORT_IN_USE, reason)
        };
        let listener = Listener::bind(options.listen, server, served, SEATS).await.map_err(unusable)?;
        let address = listener.address().map_err(unusable)?;
        let (stop, stopped) = watch::channel(false);
        rt.spawn("data node", Box::pin(listener.run(stopped)));
        let (media, usable) = shelf.counts();
        tracing::info!(node = %member.node, %address, media, usable, "data node serves");
        let served_with = Mutex::new((identity, revoked));
        Ok(Self { rt, directory, member, served_with, address, shelf, access, stop, _lock: lock })
    }

    /// Who it is.
    pub fn member(&self) -> Member {
        self.member
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many media it was given, and how many of them it serves.
    pub fn media(&self) -> (usize, usize) {
        self.shelf.counts()
    }

    /// Takes a new list of revoked certificates: connections of theirs end, and none is made.
    ///
    /// # Errors
    /// When it cannot be kept or makes no sense.
    pub fn revoke(&self, revoked: &CertificateRevocationListDer<'static>) -> Result<()> {
        self.change(|with| with.1 = Some(revoked.clone()), || save_revoked(&self.directory, revoked))
    }

    /// Goes on with another certificate for the same key. Connections that are there stay.
    ///
    /// # Errors
    /// When it is of another member, cannot be kept or makes no sense.
    pub fn renew(&self, identity: &Identity) -> Result<()> {
        if identity.member() != self.member {
            return Err(refused(&"the certificate is of another member"));
        }
        self.change(|with| with.0 = identity.clone(), || save_certificate(&self.directory, identity))
    }

    /// Changes what connections are made with: once it makes sense, and is kept.
    fn change(&self, change: impl FnOnce(&mut ServedWith), keep: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut with = self.served_with.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = with.clone();
        change(&mut next);
        let access = next.0.server(&self.rt, &[Role::Compute], next.1.as_ref());
        let access = access.map_err(|error| refused(&error))?;
        keep()?;
        self.access.send_replace(access);
        *with = next;
        Ok(())
    }

    /// Stops: connections end. What was begun on media goes on to its end.
    pub fn stop(self) {
        self.stop.send_replace(true);
    }
}
