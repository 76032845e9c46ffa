//! TLS: which certificates are trusted, and the one that the HTTP API shows.

mod known;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use known::Known;
pub(crate) use shown::Shown;

/// Why certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind that is needed.
    #[error("read {what} from `{}`: {reason}", file.display())]
    Unreadable {
        /// What is looked for.
        what: &'static str,
        /// Where.
        file: PathBuf,
        /// Why it is not there.
        reason: String,
    },
    /// The key is none of TLS, or another certificate's.
    #[error("show the certificate `{}` with the key `{}`: {reason}", cert.display(), key.display())]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why they do not go together.
        reason: String,
    },
}

/// The files of a certificate and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and after it those that lead to a trusted one.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A client that trusts whom the system trusts, and the certificates in `also`: whom they have signed, and themselves.
///
/// Errors: `also` cannot be read, or holds no certificate.
pub fn client(also: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let Some(file) = also else { return Ok(trusting(roots)) };
    let known = certificates(file)?;
    for cert in &known {
        roots.add(cert.clone()).map_err(|error| TlsError::Unreadable {
            what: "a certificate",
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(knowing(known, roots))
}

/// A client that trusts nobody, for connections without TLS.
pub fn none() -> ClientConfig {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

fn knowing(known: Vec<CertificateDer<'static>>, roots: RootCertStore) -> ClientConfig {
    let verifier = Arc::new(Known::new(known, roots));
    builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().expect("ring has the default versions")
}

/// The cryptography of all TLS here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable =
        |reason: String| TlsError::Unreadable { what: "a certificate", file: file.to_owned(), reason };
    let certs = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(error.to_string()))?;
    let certs: Vec<_> = certs.collect::<Result<_, _>>().map_err(|error| unreadable(error.to_string()))?;
    match certs.is_empty() {
        false => Ok(certs),
        true => Err(unreadable("no certificate is in it; expected PEM".to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
