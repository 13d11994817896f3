//! TLS for the doors on the network: which protocol a connection is for stands in its hand-shake (ALPN).

use std::sync::Arc;
use std::time::Duration;

use seam::Rt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use trust::rustls::{ClientConfig, ServerConfig};
use trust::{Access, Member, Role};
use units::SiteId;

use crate::records::Serving;

/// Time for a connection and its hand-shake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Disks, over NBD.
    Disks,
    /// The interface, over HTTP.
    Interface,
}

impl Door {
    const ALL: [Self; 2] = [Self::Disks, Self::Interface];

    fn protocol(self) -> &'static [u8] {
        match self {
            Self::Disks => b"holdfast-nbd/1",
            Self::Interface => b"holdfast-api/1",
        }
    }
}

/// What connections are made with, as it is now.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) site: SiteId,
    pub(crate) server: watch::Receiver<Arc<Access<ServerConfig>>>,
    /// For clients that are no nodes.
    pub(crate) outside: watch::Receiver<Arc<Access<ServerConfig>>>,
    pub(crate) client: watch::Receiver<Arc<Access<ClientConfig>>>,
}

type Refused = Box<dyn std::error::Error + Send + Sync>;

impl Certificates {
    /// Lets a peer in.
    ///
    /// # Errors
    /// When it has no certificate that counts, is too slow, or asks for nothing that there is.
    pub(crate) async fn accept(
        &self,
        rt: &Rt,
        stream: TcpStream,
    ) -> Result<(Door, server::TlsStream<TcpStream>), Refused> {
        net::tune(&stream)?;
        let names: Vec<&[u8]> = Door::ALL.iter().map(|door| door.protocol()).collect();
        let access = self.server.borrow().for_protocols(&names);
        let accepted = seam::timeout(&**rt, HANDSHAKE, TlsAcceptor::from(access.tls.clone()).accept(stream));
        let stream = accepted.await.map_err(|seam::Elapsed| "the hand-shake took too long")??;
        let asked = stream.get_ref().1.alpn_protocol();
        let door = Door::ALL.into_iter().find(|door| asked == Some(door.protocol()));
        Ok((door.ok_or("it asks for nothing that there is")?, stream))
    }

    /// Connects to a door of the compute node that serves.
    ///
    /// # Errors
    /// When it is not there, is another, or is too slow.
    pub(crate) async fn connect(
        &self,
        rt: &Rt,
        serving: &Serving,
        door: Door,
    ) -> Result<client::TlsStream<TcpStream>, Refused> {
        let access = self.client.borrow().for_protocols(&[door.protocol()]);
        let name = Member { site: self.site, role: Role::Compute, node: serving.node }.server_name()?;
        let work = async {
            let stream = TcpStream::connect(serving.address).await?;
            net::tune(&stream)?;
            TlsConnector::from(access.tls.clone()).connect(name, stream).await
        };
        let connected = seam::timeout(&**rt, HANDSHAKE, work).await;
        Ok(connected.map_err(|seam::Elapsed| "it does not answer")??)
    }
}
