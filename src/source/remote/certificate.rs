//! Servers whose certificate is not trusted. Asking again would not help: somebody has to do something about it.

use std::error::Error as StdError;
use std::fmt;

use reqwest::Url;

use crate::error::{Code, Error, Hint};
use crate::source::remote::causes::next_cause;

/// What rustls writes before the reason for which it refuses a certificate. Its types are not reached through reqwest.
const REFUSED: &str = "invalid peer certificate: ";

/// How other authorities than those of the system are trusted.
pub(super) const TRUST: &str = "name a file with the certificates (PEM) of all authorities to trust in SSL_CERT_FILE, or add them to those of the system";

/// A server whose certificate is not trusted.
#[derive(Debug)]
pub(super) struct Untrusted {
    /// `https://host:port`.
    server: String,
    /// In the words of rustls.
    reason: String,
}

impl Untrusted {
    /// That the certificate of the server at `url` is not trusted, if `error` of a request to it says so.
    pub(super) fn find(url: &Url, error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(reason) = error.to_string().strip_prefix(REFUSED) {
                return Some(Untrusted {
                    server: url.origin().ascii_serialization(),
                    reason: reason.to_owned(),
                });
            }
            next = next_cause(error);
        }
        None
    }

    /// The error of reading or writing `url`, which the server was asked for.
    pub(super) fn error(&self, url: &str) -> Error {
        let (reason, hint) = match &*self.reason {
            "UnknownIssuer" => ("no authority that this machine trusts has signed it", TRUST),
            reason if reason.contains("CaUsedAsEndEntity") => (
                "it is the certificate of an authority, which no server may present",
                "give the server a certificate that the authority has signed",
            ),
            reason if reason.contains("not valid for name") => {
                (reason, "use a name that the certificate is for")
            }
            reason if reason.contains("expired") || reason.contains("not valid yet") => (
                reason,
                "give the server a new certificate, and check the clock of this machine",
            ),
            reason => (reason, "give the server another certificate"),
        };
        let problem = format!(
            "the certificate of {} is not trusted: {reason}",
            self.server
        );
        Error::of_file(Code::UntrustedServer, url, problem).with_hint(Hint::text(hint))
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate of {} is not trusted", self.server)
    }
}

impl StdError for Untrusted {}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustls::CertificateError;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn what_rustls_refuses_is_found_and_says_what_to_do() {
        let url: Url = "https://host:8443/m/a?signature=secret".parse().unwrap();
        let reason = |error: CertificateError| {
            let error = rustls::Error::InvalidCertificate(error);
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            let error = object_store::Error::Generic {
                store: "S3",
                source: Box::new(error),
            };
            let found = Untrusted::find(&url, &error).expect("it is refused");
            found.error("s3://bucket/m").to_string()
        };
        let (before, after) = (Duration::from_secs(1), Duration::from_secs(2));
        let (before, after) = (
            UnixTime::since_unix_epoch(before),
            UnixTime::since_unix_epoch(after),
        );
        let expired = CertificateError::ExpiredContext {
            time: after,
            not_after: before,
        };
        let early = CertificateError::NotValidYetContext {
            time: before,
            not_before: after,
        };
        let other_name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("host").unwrap(),
            presented: vec!["elsewhere".to_owned()],
        };
        let unknown = CertificateError::UnknownIssuer;
        let damaged = CertificateError::BadEncoding;
        for (refused, what, to_do) in [
            (unknown, "no authority", "SSL_CERT_FILE"),
            (expired, "expired", "clock"),
            (early, "not valid yet", "clock"),
            (other_name, "elsewhere", "use a name"),
            (damaged, "BadEncoding", "another certificate"),
        ] {
            let text = reason(refused);
            for part in ["s3://bucket/m", "https://host:8443", what, to_do] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(!text.contains("secret"), "{text}");
        }
        let other = io::Error::other(rustls::Error::HandshakeNotComplete);
        assert!(Untrusted::find(&url, &other).is_none());
    }
}
