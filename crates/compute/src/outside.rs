//! The door for NBD clients that are no nodes: STARTTLS, a certificate of a client, and then as through a host's own socket.

use std::sync::{Arc, Weak};
use std::time::Duration;

use net::{Knock, Seat};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server};
use trust::Member;

use crate::front::{ACCEPT_PAUSE, HANDED_ON_BYTES, PATIENCE, Served, Serves, Shared};
use crate::records::Serving;
use crate::tls::Door;

/// Time for everything before the first option behind TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Bytes on their way in each direction of a connection that is refused.
const REFUSED_BYTES: usize = 4 << 10;
/// Connections of one client at once.
const OF_ONE_CLIENT: usize = 256;

type Refused = Box<dyn std::error::Error + Send + Sync>;

/// Both ends of a connection that somebody serves.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Shared {
    /// Takes clients that come over the network.
    pub(crate) async fn outside(mut self, listener: TcpListener) {
        let seats = self.seats(OF_ONE_CLIENT);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stopped.changed() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(knock) = seats.knock(peer.ip()) else { continue };
            let shared = self.clone();
            let work = async move {
                if let Err(error) = shared.client(stream, knock).await {
                    tracing::debug!(%peer, %error, "a client's connection ended");
                }
            };
            self.rt.spawn("compute, a client", Box::pin(work));
        }
    }

    async fn client(&self, mut stream: TcpStream, knock: Knock) -> Result<(), Refused> {
        net::tune(&stream)?;
        let tls = self.certificates.outside.borrow().tls.clone();
        let begun = seam::timeout(&*self.rt, HANDSHAKE, async {
            let Some(flags) = nbd::begin_tls(&mut stream).await? else { return Ok::<_, Refused>(None) };
            let stream = TlsAcceptor::from(tls).accept(stream).await?;
            Ok(Some((flags, stream)))
        });
        let Some((flags, stream)) = begun.await.map_err(|seam::Elapsed| "the hand-shake took too long")??
        else {
            return Ok(());
        };
        let (seat, memory) = (seat(knock, &stream), self.clients.budget.open(2 * HANDED_ON_BYTES));
        let (Some(_seat), Some(_memory)) = (seat, memory) else {
            return self.refuse_behind_tls(stream, flags).await;
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let forbidden = net::forbidden(self.rt.clone(), self.certificates.outside.clone(), certificate);
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            _ = stopped.changed() => Ok(()),
            error = forbidden => Err(error.into()),
            served = self.serve_client(stream, flags) => served,
        }
    }

    /// Tells a client that there is no seat for it.
    async fn refuse_behind_tls(
        &self,
        mut client: server::TlsStream<TcpStream>,
        flags: nbd::ClientFlags,
    ) -> Result<(), Refused> {
        let (mut own, its) = duplex(REFUSED_BYTES);
        self.refuse(its).await;
        let told = seam::timeout(&*self.rt, HANDSHAKE, async {
            nbd::pass_greeting(&mut own, flags).await?;
            copy_bidirectional_with_sizes(&mut client, &mut own, REFUSED_BYTES, REFUSED_BYTES).await
        });
        told.await.map_err(|seam::Elapsed| "a refused client stays")??;
        Ok(())
    }

    /// Carries bytes between a client and whoever serves, until either is done or another serves.
    async fn serve_client(
        &self,
        mut client: server::TlsStream<TcpStream>,
        flags: nbd::ClientFlags,
    ) -> Result<(), Refused> {
        let mut served = self.served.clone();
        let end = self.rt.now() + PATIENCE;
        let (mut stream, by) = loop {
            let now = served.borrow_and_update().clone();
            match self.reach(&now).await {
                Ok(Some(stream)) => break (stream, Way::of(now)),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "who serves is not reached"),
            }
            let left = end.saturating_sub(self.rt.now());
            if left.is_zero() {
                return Err("nobody serves the site".into());
            }
            let _ = seam::timeout(&*self.rt, left.min(Duration::from_millis(300)), served.changed()).await;
        };
        let greeted = seam::timeout(&*self.rt, HANDSHAKE, nbd::pass_greeting(&mut stream, flags)).await;
        greeted.map_err(|seam::Elapsed| "who serves says nothing")??;
        let carried =
            copy_bidirectional_with_sizes(&mut client, &mut stream, HANDED_ON_BYTES, HANDED_ON_BYTES);
        tokio::select! {
            carried = carried => drop(carried?),
            _ = served.wait_for(|now| !by.is(now)) => {}
        }
        Ok(())
    }

    /// A connection to whoever serves.
    async fn reach(&self, now: &Served) -> Result<Option<Box<dyn Stream>>, Refused> {
        Ok(match now {
            Served::Nowhere => None,
            Served::By(serving) => {
                Some(Box::new(self.certificates.connect(&self.rt, serving, Door::Disks).await?))
            }
            Served::Here(serves) => {
                let (own, its) = duplex(HANDED_ON_BYTES);
                let served = serves.serve(its, Door::Disks).await;
                self.rt.spawn("compute, a client's disk", served);
                Some(Box::new(own))
            }
        })
    }
}

fn seat(knock: Knock, stream: &server::TlsStream<TcpStream>) -> Option<Seat> {
    let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
    knock.sit(Member::of(peer).ok()?.node)
}

/// Who serves a connection, without keeping what serves.
enum Way {
    Here(Weak<Serves>),
    By(Serving),
    Nowhere,
}

impl Way {
    fn of(served: Served) -> Self {
        match served {
            Served::Here(serves) => Self::Here(Arc::downgrade(&serves)),
            Served::By(serving) => Self::By(serving),
            Served::Nowhere => Self::Nowhere,
        }
    }

    fn is(&self, served: &Served) -> bool {
        match (self, served) {
            (Self::Here(one), Served::Here(other)) => std::ptr::eq(one.as_ptr(), Arc::as_ptr(other)),
            (Self::By(one), Served::By(other)) => one == other,
            _ => false,
        }
    }
}
