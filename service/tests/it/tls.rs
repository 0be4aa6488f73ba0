//! TLS in both directions: we trust only the given authority, and show our own certificate when asked.

use std::fs;
use std::path::{Path, PathBuf};

use async_nats::ConnectErrorKind;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use wess_harness::NatsServer;

use crate::support::config;

/// An authority, and certificates of it for a server and for us, as PEM files.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let certificates = Self {
            folder: TempDir::new().unwrap(),
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(certificates.path("ca.pem"), authority.pem()).unwrap();
        certificates.issue("server", &authority);
        certificates.issue("client", &authority);
        certificates
    }

    fn issue(&self, name: &str, authority: &CertifiedIssuer<'_, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server_config(&self, verify: bool) -> String {
        let [cert, key, ca] =
            ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name).display().to_string());
        format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: {verify} }}")
    }
}

async fn connects(server: &NatsServer, options: &[(&str, &Path)]) -> Result<(), ConnectErrorKind> {
    let url = server.url();
    let mut args = vec!["--nats", &url];
    options
        .iter()
        .for_each(|(option, path)| args.extend([*option, path.to_str().unwrap()]));
    config(&args)
        .connect("test")
        .await
        .map(drop)
        .map_err(|error| error.source.kind())
}

#[tokio::test]
async fn a_server_of_the_given_authority_is_trusted_and_no_other() {
    let (ours, other) = (Certificates::new(), Certificates::new());
    let server = NatsServer::builder().config(&ours.server_config(false)).start();
    assert_eq!(
        connects(&server, &[("--nats-tls-ca", &ours.path("ca.pem"))]).await,
        Ok(())
    );
    assert!(
        connects(&server, &[("--nats-tls-ca", &other.path("ca.pem"))])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn our_certificate_is_shown_to_a_server_that_asks() {
    let ours = Certificates::new();
    let server = NatsServer::builder().config(&ours.server_config(true)).start();
    let (ca, cert, key) = (
        ours.path("ca.pem"),
        ours.path("client.pem"),
        ours.path("client.key"),
    );
    assert!(connects(&server, &[("--nats-tls-ca", &ca)]).await.is_err());
    let all = [
        ("--nats-tls-ca", &*ca),
        ("--nats-tls-cert", &*cert),
        ("--nats-tls-key", &*key),
    ];
    assert_eq!(connects(&server, &all).await, Ok(()));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_once_tls_is_required() {
    let ours = Certificates::new();
    let server = NatsServer::start();
    assert!(
        connects(&server, &[("--nats-tls-ca", &ours.path("ca.pem"))])
            .await
            .is_err()
    );
}
