//! The certificate that a server shows, read again when its files change: certificates are renewed while a platform runs.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{Files, TlsError, certificates, provider};

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The certificate that is shown at the moment.
pub(crate) struct Shown {
    files: Files,
    look_every: Duration,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    stamps: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Shown {
    /// Reads the files.
    ///
    /// Errors: they cannot be read, or do not go together.
    pub(crate) fn read(files: Files) -> Result<Self, TlsError> {
        Self::looking_every(LOOK_EVERY, files)
    }

    pub(super) fn looking_every(look_every: Duration, files: Files) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let current = Mutex::new(Current { key: read(&files)?, stamps, looked: Instant::now() });
        Ok(Self { files, look_every, current })
    }

    /// What speaks TLS with it, HTTP/1.1 only.
    pub(crate) fn acceptor(self) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// The certificate as its files have it; the one before for as long as these cannot be used.
    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() < self.look_every {
            return Arc::clone(&current.key);
        }
        current.looked = Instant::now();
        let stamps = stamps(&self.files);
        if stamps != current.stamps {
            match read(&self.files) {
                Ok(key) => {
                    tracing::info!(certificate = %self.files.cert.display(), "the certificate was renewed");
                    (current.key, current.stamps) = (key, stamps);
                }
                Err(error) => {
                    tracing::warn!(%error, "the certificate is not renewed: the one before is shown")
                }
            }
        }
        Arc::clone(&current.key)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("files", &self.files).finish_non_exhaustive()
    }
}

/// When the files were written last.
fn stamps(files: &Files) -> [Option<SystemTime>; 2] {
    let written = |file: &Path| std::fs::metadata(file).and_then(|found| found.modified()).ok();
    [written(&files.cert), written(&files.key)]
}

fn read(files: &Files) -> Result<Arc<CertifiedKey>, TlsError> {
    let certs = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::Unreadable {
        what: "a private key",
        file: files.key.clone(),
        reason: error.to_string(),
    })?;
    let whole = CertifiedKey::from_der(certs, key, &provider()).map_err(|error| TlsError::Mismatch {
        cert: files.cert.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })?;
    Ok(Arc::new(whole))
}
