//! The primitives that requests to object stores are signed with.

use graviola::hashing::hmac::Hmac;
use graviola::hashing::{Hash, HashContext, HashOutput, Sha256};
use graviola::signing::rsa::SigningKey;
use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use object_store::{Error, Result};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// Those of graviola.
#[derive(Debug)]
pub(super) struct Graviola;

impl CryptoProvider for Graviola {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Digest {
                context: Some(Sha256::new()),
                output: None,
            })),
            _ => Err(unknown()),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Mac {
                context: Some(Hmac::new(secret)),
                output: None,
            })),
            _ => Err(unknown()),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, pem: &[u8]) -> Result<Box<dyn Signer>> {
        if algorithm != SigningAlgorithm::RS256 {
            return Err(unknown());
        }
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(failed)?;
        let key = match &key {
            PrivateKeyDer::Pkcs1(der) => SigningKey::from_pkcs1_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => SigningKey::from_pkcs8_der(der.secret_pkcs8_der()),
            _ => return Err(failed("this is not an RSA key")),
        };
        let key = key.map_err(|error| failed(format!("not an RSA key: {error:?}")))?;
        Ok(Box::new(Rsa(key)))
    }
}

fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic {
        store: "signing",
        source: why.into(),
    }
}

fn unknown() -> Error {
    failed("this algorithm is not known")
}

struct Digest {
    context: Option<<Sha256 as Hash>::Context>,
    output: Option<HashOutput>,
}

impl DigestContext for Digest {
    fn update(&mut self, data: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(data);
        }
    }

    fn finish(&mut self) -> Result<&[u8]> {
        if let Some(context) = self.context.take() {
            self.output = Some(context.finish());
        }
        let output = self.output.as_ref().ok_or_else(unknown)?;
        Ok(output.as_ref())
    }
}

struct Mac {
    context: Option<Hmac<Sha256>>,
    output: Option<HashOutput>,
}

impl HmacContext for Mac {
    fn update(&mut self, data: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(data);
        }
    }

    fn finish(&mut self) -> Result<&[u8]> {
        if let Some(context) = self.context.take() {
            self.output = Some(context.finish());
        }
        let output = self.output.as_ref().ok_or_else(unknown)?;
        Ok(output.as_ref())
    }
}

struct Rsa(SigningKey);

impl Signer for Rsa {
    fn sign(&self, string_to_sign: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.0.modulus_len_bytes()];
        let signed = self.0.sign_pkcs1_sha256(&mut signature, string_to_sign);
        let len = signed.map_err(|error| failed(format!("{error:?}")))?.len();
        signature.truncate(len);
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_and_macs_are_those_of_the_standards() {
        let mut digest = Graviola.digest(DigestAlgorithm::Sha256).unwrap();
        digest.update(b"a");
        digest.update(b"bc");
        // FIPS 180-4, the example "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(digest.finish().unwrap()), expected);
        // RFC 4231, test case 2.
        let mut mac = Graviola.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(mac.finish().unwrap()), expected);
    }
}
