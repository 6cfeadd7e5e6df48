//! The token that clients have to send.

use std::fmt;

use sha2::{Digest, Sha256};

/// A token. It is kept as its checksum, so that comparing takes as long for every other one.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The token `text`, which must be one that a header can hold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("it holds no token"),
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Token::sum(text.as_bytes()))
            }
            _ => Err("a token is one line of letters, digits and signs of ASCII"),
        }
    }

    /// Whether the value of an `Authorization` header has it.
    pub(super) fn is_in(&self, header: &[u8]) -> bool {
        let Some((scheme, token)) = header.split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && Token::sum(token.trim_ascii()).0 == self.0
    }

    fn sum(text: &[u8]) -> Self {
        Token(Sha256::digest(text).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
