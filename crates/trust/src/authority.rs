//! The site's certificate authority.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertificateSigningRequestParams,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer,
};
use seam::Runtime;
use units::SiteId;

use crate::member::{domain, etcd_name};
use crate::{Member, TrustError, bad};

const DAY: Duration = Duration::from_secs(86_400);
/// The authority outlives what it stands for.
const AUTHORITY_DAYS: u32 = 50 * 365;
/// Certificates hold from so long ago: clocks differ.
pub(crate) const BEFORE: Duration = DAY;

/// A certificate that is not to be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When it was revoked, ms since the Unix epoch.
    pub at_ms: u64,
}

/// A site's certificate authority.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// `ms` since the epoch, moved, as certificates have it.
fn moment(ms: u64, later: Duration, earlier: Duration) -> Result<time::OffsetDateTime, TrustError> {
    let ms = u128::from(ms) + later.as_millis() - earlier.as_millis().min(u128::from(ms));
    let nanos = i128::try_from(ms).unwrap_or(i128::MAX).saturating_mul(1_000_000);
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(bad)
}

fn random_serial(rt: &dyn Runtime) -> SerialNumber {
    let mut serial = [0; 16];
    rt.fill_random(&mut serial);
    // Positive, and of the same length always.
    serial[0] = serial[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&serial)
}

fn params(rt: &dyn Runtime, name: &str, valid: Duration) -> Result<CertificateParams, TrustError> {
    let mut params = CertificateParams::default();
    let now = rt.wall_ms();
    params.not_before = moment(now, Duration::ZERO, BEFORE)?;
    params.not_after = moment(now, valid, Duration::ZERO)?;
    params.serial_number = Some(random_serial(rt));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Authority {
    /// Makes the authority of a new site.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn create(rt: &dyn Runtime, site: SiteId) -> Result<Self, TrustError> {
        let mut params = params(rt, &domain(site), DAY * AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let permitted_subtrees = vec![GeneralSubtree::DnsName(domain(site))];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(bad)?;
        let certificate = params.self_signed(&key).map_err(bad)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// The authority that [`Authority::key`] and [`Authority::certificate`] were of.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn load(certificate: CertificateDer<'static>, key: &[u8]) -> Result<Self, TrustError> {
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), algorithm).map_err(bad)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(bad)?;
        Ok(Self { certificate, issuer })
    }

    /// Its certificate, which every node trusts.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A code that nobody makes who has not the authority's key, for what stands where others may write.
    pub fn code_of(&self, what: &[u8]) -> [u8; 32] {
        let own = hmac::Key::new(hmac::HMAC_SHA256, &self.key());
        let key = hmac::sign(&own, b"holdfast 2026 code of records");
        let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), what);
        code.as_ref().try_into().expect("a code of SHA-256 has 32 bytes")
    }

    /// Its private key, PKCS#8. Whoever has it can name nodes.
    pub fn key(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// A certificate for `member` with the public key of a request. Whatever else the request asks for is ignored.
    ///
    /// # Errors
    /// When the request is none, or not signed with its own key.
    pub fn issue(
        &self,
        rt: &dyn Runtime,
        request: &[u8],
        member: &Member,
        valid: Duration,
    ) -> Result<CertificateDer<'static>, TrustError> {
        self.issue_at(rt, request, member, &[], valid)
    }

    /// The same with addresses in it, for clients that know a member by where they find it.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_at(
        &self,
        rt: &dyn Runtime,
        request: &[u8],
        member: &Member,
        addresses: &[IpAddr],
        valid: Duration,
    ) -> Result<CertificateDer<'static>, TrustError> {
        let request = CertificateSigningRequestDer::from(request);
        let asked = CertificateSigningRequestParams::from_der(&request).map_err(bad)?;
        let name = member.name();
        let mut params = params(rt, name.split('.').next().unwrap_or_default(), valid)?;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(bad)?)];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed =
            CertificateSigningRequestParams { params, ..asked }.signed_by(&self.issuer).map_err(bad)?;
        Ok(signed.der().clone())
    }

    /// A key (PKCS#8) and a certificate for a member of the etcd that serves the site, reached at `addresses`. It is no
    /// node's: its name is [`etcd_name`].
    ///
    /// # Errors
    /// When no key can be made.
    pub fn issue_etcd(
        &self,
        rt: &dyn Runtime,
        site: SiteId,
        label: &str,
        addresses: &[IpAddr],
        valid: Duration,
    ) -> Result<(CertificateDer<'static>, Vec<u8>), TrustError> {
        // No user of etcd has that name.
        let mut params = params(rt, &format!("etcd-{label}"), valid)?;
        let name = etcd_name(site).try_into().map_err(bad)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Members of etcd ask each other too.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(bad)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(bad)?;
        Ok((signed.der().clone(), key.serialize_der()))
    }

    /// The list of what is revoked, the `number`th that is given out.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn revoke(
        &self,
        rt: &dyn Runtime,
        number: u64,
        revoked: &[Revoked],
    ) -> Result<CertificateRevocationListDer<'static>, TrustError> {
        let now = rt.wall_ms();
        let entries = revoked.iter().map(|revoked| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&revoked.serial),
                revocation_time: moment(revoked.at_ms, Duration::ZERO, Duration::ZERO)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: moment(now, Duration::ZERO, BEFORE)?,
            next_update: moment(now, DAY * AUTHORITY_DAYS, Duration::ZERO)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: entries.collect::<Result<_, TrustError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer).map_err(bad)?.der().clone())
    }
}
