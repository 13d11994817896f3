//! A node's key and certificate, and TLS with them.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};
use seam::Rt;
use units::SiteId;

use crate::{Member, Role, TrustError, bad};

/// A key that has no certificate yet.
pub struct NewIdentity {
    key: KeyPair,
}

/// A node's key and certificate. Cheap to clone; the key is never shown.
#[derive(Clone)]
pub struct Identity {
    member: Member,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: Arc<[u8]>,
}

impl std::fmt::Debug for NewIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewIdentity")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.member.name())
    }
}

/// What connections are made with, and whose are not to go on.
pub struct Access<C> {
    /// For new connections.
    pub tls: Arc<C>,
    revoked: Option<CertificateRevocationListDer<'static>>,
}

impl<C> std::fmt::Debug for Access<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

impl<C> Access<C> {
    /// Whether a connection with the holder of this certificate is to end: it is revoked, or that cannot be told.
    pub fn forbids(&self, certificate: &CertificateDer<'_>) -> bool {
        let Some(revoked) = &self.revoked else { return false };
        let list = webpki::OwnedCertRevocationList::from_der(revoked).map(webpki::CertRevocationList::from);
        match (list, serial(certificate)) {
            (Ok(list), Ok(serial)) => !matches!(list.find_serial(&serial), Ok(None)),
            _ => true,
        }
    }
}

impl Access<ServerConfig> {
    /// The same for a port that serves several protocols, each of a name of its own (ALPN).
    #[must_use]
    pub fn for_protocols(&self, names: &[&[u8]]) -> Arc<Self> {
        let mut tls = ServerConfig::clone(&self.tls);
        tls.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        Arc::new(Self { tls: Arc::new(tls), revoked: self.revoked.clone() })
    }
}

impl Access<ClientConfig> {
    /// The same, asking for one of these protocols.
    #[must_use]
    pub fn for_protocols(&self, names: &[&[u8]]) -> Arc<Self> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        Arc::new(Self { tls: Arc::new(tls), revoked: self.revoked.clone() })
    }
}

/// The serial number of a certificate, by which it is revoked.
///
/// # Errors
/// When it is none.
pub fn serial(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, TrustError> {
    Ok(webpki::EndEntityCert::try_from(certificate).map_err(bad)?.serial().to_vec())
}

impl NewIdentity {
    /// Makes a key.
    ///
    /// # Errors
    /// When none can be made.
    pub fn create() -> Result<Self, TrustError> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(|key| Self { key }).map_err(bad)
    }

    /// The key that [`NewIdentity::key`] was of.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn load(key: &[u8]) -> Result<Self, TrustError> {
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), algorithm);
        key.map(|key| Self { key }).map_err(bad)
    }

    /// The private key, PKCS#8, to be kept where only the node reads it.
    pub fn key(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// The request that the authority issues a certificate for: the public key, signed with the private one.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, TrustError> {
        Ok(CertificateParams::default().serialize_request(&self.key).map_err(bad)?.der().to_vec())
    }

    /// The identity, with the certificate that was issued and the authority's own.
    ///
    /// # Errors
    /// When the certificate is for another key or names no member.
    pub fn complete(
        self,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Identity, TrustError> {
        Identity::load(certificate, authority, &self.key.serialize_der())
    }
}

impl Identity {
    /// The identity of a key (PKCS#8) and its certificate.
    ///
    /// # Errors
    /// When the certificate is for another key or names no member.
    pub fn load(
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: &[u8],
    ) -> Result<Self, TrustError> {
        let member = Member::of(&certificate)?;
        let own = Self { member, certificate, authority, key: key.into() };
        rustls::sign::CertifiedKey::from_der(vec![own.certificate.clone()], own.private_key(), &provider())
            .map_err(bad)?;
        Ok(own)
    }

    /// Who it is.
    pub fn member(&self) -> Member {
        self.member
    }

    /// A request for its next certificate, with the key it has.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, TrustError> {
        NewIdentity::load(&self.key)?.request()
    }

    /// The same member and key with another certificate.
    ///
    /// # Errors
    /// When the certificate is for another key or another member.
    pub fn renewed(&self, certificate: CertificateDer<'static>) -> Result<Self, TrustError> {
        let renewed = Self::load(certificate, self.authority.clone(), &self.key)?;
        if renewed.member == self.member { Ok(renewed) } else { Err(bad("it is for another member")) }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The private key, PKCS#8, to be kept where only the node reads it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.to_vec()).into()
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(bad)?;
        Ok(Arc::new(roots))
    }

    /// What this node serves with: clients of the site in these roles, and nobody else.
    ///
    /// # Errors
    /// When key or certificates make no sense.
    pub fn server(
        &self,
        rt: &Rt,
        allowed: &[Role],
        revoked: Option<&CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<Access<ServerConfig>>, TrustError> {
        self.serve(rt, allowed, revoked, true)
    }

    /// The same for a port where who has no certificate yet may ask too: a certificate that is shown must be sound, and
    /// that none was shown is for the caller to see. The authority's certificate is shown with its own, so that
    /// [`crate::joining_client`] finds it.
    ///
    /// # Errors
    /// When key or certificates make no sense.
    pub fn open_server(
        &self,
        rt: &Rt,
        allowed: &[Role],
        revoked: Option<&CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<Access<ServerConfig>>, TrustError> {
        self.serve(rt, allowed, revoked, false)
    }

    fn serve(
        &self,
        rt: &Rt,
        allowed: &[Role],
        revoked: Option<&CertificateRevocationListDer<'static>>,
        mandatory: bool,
    ) -> Result<Arc<Access<ServerConfig>>, TrustError> {
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .with_crls(revoked.cloned())
            .build()
            .map_err(bad)?;
        let (site, allowed) = (self.member.site, allowed.to_vec());
        let clients = Arc::new(Clients { inner: clients, site, allowed, mandatory });
        let mut chain = vec![self.certificate.clone()];
        if !mandatory {
            chain.push(self.authority.clone());
        }
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(Clock(rt.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(bad)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, self.private_key())
            .map_err(bad)?;
        // A session that goes on would not look at what was revoked meanwhile.
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(Access { tls: Arc::new(config), revoked: revoked.cloned() }))
    }

    /// What this node asks with. Whom it asks is in the name that it asks for: [`Member::server_name`].
    ///
    /// # Errors
    /// When key or certificates make no sense.
    pub fn client(
        &self,
        rt: &Rt,
        revoked: Option<&CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<Access<ClientConfig>>, TrustError> {
        let servers = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider())
            .with_crls(revoked.cloned())
            .build()
            .map_err(bad)?;
        let mut config = ClientConfig::builder_with_details(provider(), Arc::new(Clock(rt.clone())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(bad)?
            .with_webpki_verifier(servers)
            .with_client_auth_cert(vec![self.certificate.clone()], self.private_key())
            .map_err(bad)?;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(Access { tls: Arc::new(config), revoked: revoked.cloned() }))
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The time of the runtime.
pub(crate) struct Clock(pub(crate) Rt);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall_ms())))
    }
}

/// Whom a server lets in: clients with a sound certificate of the site, in one of some roles.
#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    site: SiteId,
    allowed: Vec<Role>,
    mandatory: bool,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match Member::of(end_entity) {
            Ok(member) if member.site == self.site && self.allowed.contains(&member.role) => Ok(verified),
            _ => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
