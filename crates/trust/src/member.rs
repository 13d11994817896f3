//! Names of members in certificates.

use std::fmt::Write as _;

use rustls::pki_types::{CertificateDer, ServerName};
use units::{NodeId, SiteId};

use crate::{TrustError, bad};

/// What every name ends with: reserved for private use, so that no public authority gives it.
const SUFFIX: &str = "holdfast.internal";

/// What a node does, as its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds media.
    Data,
    /// Runs disks.
    Compute,
    /// Manages the site.
    Manager,
    /// Opens disks from outside, and is no node.
    Client,
}

impl Role {
    const ALL: [Self; 4] = [Self::Data, Self::Compute, Self::Manager, Self::Client];

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// As it stands in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Compute => "compute",
            Self::Manager => "manager",
            Self::Client => "client",
        }
    }
}

/// A node of a site in one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The site.
    pub site: SiteId,
    /// What the node does.
    pub role: Role,
    /// The node: random, made when it joins.
    pub node: NodeId,
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().fold(String::with_capacity(32), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn of_hex(text: &str) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(number.to_be_bytes())
}

/// The names of a site end with this.
pub(crate) fn domain(site: SiteId) -> String {
    format!("{}.{SUFFIX}", hex(&site.0))
}

/// What every member of etcd that serves a site may be asked for: the role keeps it apart from a node's name.
pub fn etcd_name(site: SiteId) -> String {
    format!("etcd.{}", domain(site))
}

impl Member {
    /// Its name: `NODE.ROLE.SITE.holdfast.internal`, ids in hex.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", hex(&self.node.0), self.role.as_str(), domain(self.site))
    }

    /// Reads a name; `None` when it is no member's.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '.');
        let node = NodeId(of_hex(parts.next()?)?);
        let role = Role::parse(parts.next()?)?;
        let site = SiteId(of_hex(parts.next()?)?);
        (parts.next()? == SUFFIX).then_some(Self { site, role, node })
    }

    /// What a client asks for that wants this member and no other.
    ///
    /// # Errors
    /// Never: the name is a DNS name.
    pub fn server_name(&self) -> Result<ServerName<'static>, TrustError> {
        ServerName::try_from(self.name()).map_err(bad)
    }

    /// Whom a certificate names. It says nothing of whether the certificate is to be trusted.
    ///
    /// # Errors
    /// When it names nobody, or several.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TrustError> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(bad)?;
        let mut names = parsed.valid_dns_names();
        match (names.next().and_then(Self::parse), names.next()) {
            (Some(member), None) => Ok(member),
            _ => Err(bad("the certificate does not name one node of a site in one role")),
        }
    }
}
