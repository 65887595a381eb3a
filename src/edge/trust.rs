//! The certificates that https webhooks are checked against: those that the machine trusts.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::warn;

/// Why https cannot be had.
#[derive(Debug)]
pub enum TrustError {
    /// There is no certificate to check one against.
    NoCertificates,
    /// No certificate can name this host.
    Host { url: String },
}

/// Reads the machine's certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
pub fn trust() -> Result<Arc<ClientConfig>, TrustError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!("a certificate is passed over: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(TrustError::NoCertificates);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3");
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

impl fmt::Display for TrustError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrustError::NoCertificates => out.write_str(
                "a webhook's URL is https, and this machine has no certificates to check it \
                 against: install the package ca-certificates, or name a file with SSL_CERT_FILE",
            ),
            TrustError::Host { url } => {
                write!(out, "no certificate can name the host of {url}")
            }
        }
    }
}

impl std::error::Error for TrustError {}
