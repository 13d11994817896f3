//! A node that joins, and asks for its next certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Error, Result, code};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use node::Directory;
use seam::Rt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use trust::rustls::ClientConfig;
use trust::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};
use trust::{Fingerprint, Identity, Member, NewIdentity, TrustError};

use crate::KEY_FILE;
use crate::access::EtcdAccess;
use crate::text::check_name;
use crate::token::JoinToken;
use crate::wire::{ANSWER_MAX, Join, Joined, Renew, Renewed, refusal};

/// No answer within this time counts as none.
const DEADLINE: Duration = Duration::from_secs(20);
/// The key of a node that has no certificate yet, PKCS#8.
const NEW_KEY: &str = "joining.key";

/// What a node joins as.
#[derive(Debug, Clone)]
pub struct Joining {
    /// Its name.
    pub name: String,
    /// Where other nodes find it, if it listens.
    pub address: Option<SocketAddr>,
}

fn untrusted(error: &TrustError) -> Error {
    Error::new(code::IDENTITY_DAMAGED, format!("the manager's answer: {error}"))
}

/// Joins a site with a token. The same again after a crash or a lost answer.
///
/// # Errors
/// `already_joined` when the directory is a node's already; `invalid_name`; `manager_unreachable`; what the manager refuses
/// (`token_refused`, `node_name_taken`, ...).
pub async fn join(rt: &Rt, directory: &Directory, token: &JoinToken, joining: &Joining) -> Result<Member> {
    check_name(&joining.name)?;
    if machine::read_file(&directory.file("node.crt"))?.is_some() {
        let reason = format!("{}: the directory is a node's already", directory.root().display());
        return Err(Error::new(code::ALREADY_JOINED, reason));
    }
    let key_file = directory.file(NEW_KEY);
    let damaged = |error: &TrustError| {
        let reason = format!("{}: {error}", key_file.display());
        Error::new(code::IDENTITY_DAMAGED, reason)
    };
    let new = match machine::read_file(&key_file)? {
        Some(key) => NewIdentity::load(&key).map_err(|error| damaged(&error))?,
        None => {
            let new = NewIdentity::create().map_err(|error| damaged(&error))?;
            machine::make_directory(directory.root())?;
            machine::replace_file(&key_file, &new.key())?;
            new
        }
    };
    let request_file = directory.file("joining.csr");
    // The manager knows a request by its bytes, and each signature differs.
    let request = match machine::read_file(&request_file)? {
        Some(request) => request,
        None => {
            let request = new.request().map_err(|error| damaged(&error))?;
            machine::replace_file(&request_file, &request)?;
            request
        }
    };
    let tls = trust::joining_client(rt, token.authority).map_err(|error| untrusted(&error))?;
    let (name, address) = (joining.name.clone(), joining.address);
    let asked = Join { secret: *token.secret(), name, address, request };
    let any = ServerName::IpAddress(token.manager.ip().into());
    let answer = Joined::decode(&ask(rt, token.manager, any, tls, "/v1/join", asked.encode()?).await?)?;

    let authority = CertificateDer::from(answer.authority);
    if Fingerprint::of(&authority) != token.authority {
        let reason = "the manager's answer names another authority than the token";
        return Err(Error::new(code::IDENTITY_DAMAGED, reason));
    }
    let identity = new.complete(CertificateDer::from(answer.certificate), authority);
    let identity = identity.map_err(|error| untrusted(&error))?;
    let access = EtcdAccess::new(answer.endpoints, answer.managers)?;
    EtcdAccess { listen: joining.address, ..access }.save(directory)?;
    if let Some(key) = answer.key {
        machine::replace_file(&directory.file(KEY_FILE), &key)?;
    }
    if let Some(revoked) = answer.revoked {
        node::save_revoked(directory, &CertificateRevocationListDer::from(revoked))?;
    }
    // Last: with it the node has joined.
    node::save_identity(directory, &identity)?;
    for leftover in [key_file, request_file] {
        // They are of no use any more, and do no harm.
        let _ = std::fs::remove_file(leftover);
    }
    Ok(identity.member())
}

/// Asks a manager, the one node that `manager` names, for the next certificate.
pub(crate) async fn renew(
    rt: &Rt,
    identity: &Identity,
    manager: &Member,
    address: SocketAddr,
) -> Result<Identity> {
    let tls = identity.client(rt, None).map_err(|error| untrusted(&error))?;
    let name = manager.server_name().map_err(|error| untrusted(&error))?;
    let asked = Renew(identity.request().map_err(|error| untrusted(&error))?).encode()?;
    let answer = Renewed::decode(&ask(rt, address, name, tls.tls.clone(), "/v1/renew", asked).await?)?;
    identity.renewed(CertificateDer::from(answer.0)).map_err(|error| untrusted(&error))
}

async fn ask(
    rt: &Rt,
    manager: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    path: &str,
    body: Vec<u8>,
) -> Result<Vec<u8>> {
    let unreachable =
        |why: String| Error::new(code::MANAGER_UNREACHABLE, format!("the manager at {manager}: {why}"));
    let said = |error: &dyn std::fmt::Display| unreachable(error.to_string());
    let work = async {
        let stream = TcpStream::connect(manager).await.map_err(|error| said(&error))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| said(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
        rt.spawn(
            "a manager is asked",
            Box::pin(async move {
                // What went wrong the request says.
                let _ = connection.await;
            }),
        );
        let request = Request::post(path)
            .header(header::HOST, manager.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| said(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| said(&error))?;
        let is_good = answer.status().is_success();
        let read = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let bytes = read.map_err(|error| said(&error))?.to_bytes();
        if is_good { Ok(bytes.to_vec()) } else { Err(refusal(&bytes)) }
    };
    let answer = seam::timeout(&**rt, DEADLINE, work).await;
    answer.unwrap_or_else(|seam::Elapsed| {
        Err(unreachable(format!("no answer within {} s", DEADLINE.as_secs())))
    })
}
