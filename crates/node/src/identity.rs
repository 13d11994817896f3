//! Who the node is, as its directory has it.

use std::path::Path;

use api::{Error, Result, code};
use trust::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use trust::{Identity, TrustError};

use crate::directory::Directory;

const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.crt";
const AUTHORITY: &str = "authority.crt";
const REVOKED: &str = "revoked.crl";

fn damaged(path: &Path, error: &TrustError) -> Error {
    Error::new(code::IDENTITY_DAMAGED, format!("{}: {error}", path.display()))
}

/// Reads who the node is, and which certificates are revoked.
///
/// # Errors
/// `not_joined` when it is nobody yet; `identity_damaged`.
pub fn load_identity(
    directory: &Directory,
) -> Result<(Identity, Option<CertificateRevocationListDer<'static>>)> {
    let read = |name: &str| -> Result<Vec<u8>> {
        let path = directory.file(name);
        machine::read_file(&path)?.ok_or_else(|| {
            let reason = format!("{}: the node has joined no site", path.display());
            Error::new(code::NOT_JOINED, reason)
        })
    };
    // The certificate comes last: with it the node has joined.
    let certificate = CertificateDer::from(read(CERTIFICATE)?);
    let authority = CertificateDer::from(read(AUTHORITY)?);
    let identity = Identity::load(certificate, authority, &read(KEY)?)
        .map_err(|error| damaged(&directory.file(CERTIFICATE), &error))?;
    let revoked = machine::read_file(&directory.file(REVOKED))?.map(CertificateRevocationListDer::from);
    Ok((identity, revoked))
}

/// Keeps who the node is, durably.
///
/// # Errors
/// When a file cannot be written.
pub fn save_identity(directory: &Directory, identity: &Identity) -> Result<()> {
    machine::make_directory(directory.root())?;
    machine::replace_file(&directory.file(KEY), identity.key())?;
    machine::replace_file(&directory.file(AUTHORITY), identity.authority())?;
    machine::replace_file(&directory.file(CERTIFICATE), identity.certificate())
}

/// Keeps the next certificate of a node that has joined, durably.
///
/// # Errors
/// When the file cannot be written.
pub fn save_certificate(directory: &Directory, identity: &Identity) -> Result<()> {
    machine::replace_file(&directory.file(CERTIFICATE), identity.certificate())
}

/// Keeps the list of revoked certificates, durably.
///
/// # Errors
/// When the file cannot be written.
pub fn save_revoked(directory: &Directory, revoked: &CertificateRevocationListDer<'_>) -> Result<()> {
    machine::replace_file(&directory.file(REVOKED), revoked)
}
