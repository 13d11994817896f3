//! What others read: PEM, and until when a certificate holds.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::BEFORE;
use crate::{TrustError, bad};

/// When a certificate ends, ms since the Unix epoch.
///
/// # Errors
/// When it is none.
pub fn ends_ms(certificate: &CertificateDer<'_>) -> Result<u64, TrustError> {
    Ok(holds_ms(certificate)?.1)
}

/// When a certificate of the site's authority was issued, and when it ends, ms since the Unix epoch.
///
/// # Errors
/// When it is none.
pub fn holds_ms(certificate: &CertificateDer<'_>) -> Result<(u64, u64), TrustError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(bad)?;
    let ms = |seconds: i64| u64::try_from(seconds).map(|seconds| seconds.saturating_mul(1000)).map_err(bad);
    let validity = parsed.validity();
    let issued = ms(validity.not_before.timestamp())?.saturating_add(BEFORE.as_millis() as u64);
    Ok((issued, ms(validity.not_after.timestamp())?))
}

/// A certificate as PEM.
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    armoured("CERTIFICATE", certificate)
}

/// A private key, PKCS#8, as PEM.
pub fn key_pem(key: &[u8]) -> String {
    armoured("PRIVATE KEY", key)
}

fn armoured(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}
