//! Connections that are encrypted.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a server presents.
#[derive(Clone)]
pub(super) struct Encryption(Arc<ServerConfig>);

impl Encryption {
    /// The certificate `name` of tests/common/certificates, and its key.
    pub(super) fn with(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/common/certificates")
            .join(name);
        let certificate = CertificateDer::from_pem_file(&path).unwrap();
        let key = PrivateKeyDer::from_pem_file(&path).unwrap();
        let provider = Arc::new(rustls_graviola::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Encryption(Arc::new(config.unwrap()))
    }

    /// The connection over `stream`, which begins with the first byte that is read.
    pub(super) fn of(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        let connection = ServerConnection::new(self.0.clone()).unwrap();
        StreamOwned::new(connection, stream)
    }
}
