//! Certificates on both sides.

use std::path::Path;
use std::time::Duration;

use ::etcd::{Etcd, Options, Tls};
use etcd_client::{Certificate, Identity, TlsOptions};
use meta::ErrorKind;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::cluster::{Cluster, Shape};
use super::{commit, get, names, put, run};
use meta::Store;

/// An authority made for the test.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this machine and its key.
    fn issue(&self) -> (String, String) {
        self.issue_to("nobody")
    }

    /// The same, with that common name.
    fn issue_to(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// What a client that trusts `trusted` shows.
    fn client(&self, trusted: &Self) -> Tls {
        self.client_as("nobody", trusted)
    }

    /// The same as `name`.
    pub(super) fn client_as(&self, name: &str, trusted: &Self) -> Tls {
        let (certificate, key) = self.issue_to(name);
        Tls { authority: trusted.pem.clone(), certificate, key, name: None }
    }
}

impl Authority {
    /// Servers with certificates that ask for some, in files in `folder`.
    pub(super) fn guard(&self, shape: Shape, folder: &Path) -> Shape {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, private) = self.issue();
        let (authority, certificate, private) =
            (file("ca", &self.pem), file("cert", &certificate), file("key", &private));
        let admin = self.client(self);
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&admin.authority))
            .identity(Identity::from_pem(&admin.certificate, &admin.key));
        Shape { tls: Some(tls), ..shape }.with(&[
            "--client-cert-auth",
            "--trusted-ca-file",
            &authority,
            "--cert-file",
            &certificate,
            "--key-file",
            &private,
        ])
    }
}

#[test]
fn both_sides_want_a_certificate_of_the_authority() {
    run(async |rt| {
        let (ours, other) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let shape = ours.guard(Shape::of(1), folder.path());
        let cluster = Cluster::start(&rt, shape).await;
        let connect = async |tls: Option<Tls>, endpoint: String| {
            let deadline = Duration::from_secs(1);
            let options = Options { tls, deadline, ..Options::new([endpoint], "/a/") };
            Etcd::connect(rt.clone(), options).await
        };
        let store = connect(Some(ours.client(&ours)), cluster.endpoint(0)).await.unwrap();
        let from = commit(&store, put("k", "v")).await;
        assert_eq!(&*get(&store, "k").await.unwrap().value, b"v");
        let mut watch = store.watch(meta::KeyRange::all(), from).await.unwrap();
        assert_eq!(names(&rt, &mut *watch, 1).await, ["k=v"]);

        let refused = async |tls, endpoint, expected: ErrorKind| {
            let error = connect(tls, endpoint).await.unwrap_err();
            assert_eq!(error.kind, expected, "{error}");
            error.context
        };
        let unavailable = ErrorKind::Unavailable;
        let wrong_client = refused(Some(other.client(&ours)), cluster.endpoint(0), unavailable).await;
        let wrong_server = refused(Some(ours.client(&other)), cluster.endpoint(0), unavailable).await;
        for said in [wrong_client, wrong_server] {
            assert!(said.to_lowercase().contains("certificate"), "the error names the cause: {said}");
        }
        refused(None, cluster.endpoint(0).replace("https", "http"), unavailable).await;
        refused(None, cluster.endpoint(0), ErrorKind::Invalid).await;
        let plain = cluster.endpoint(0).replace("https", "http");
        refused(Some(ours.client(&ours)), plain, ErrorKind::Invalid).await;
        let malformed = Tls { key: "none".to_owned(), ..ours.client(&ours) };
        refused(Some(malformed), cluster.endpoint(0), ErrorKind::Invalid).await;
        assert_eq!(&*get(&store, "k").await.unwrap().value, b"v", "the others did no harm");
    });
}
