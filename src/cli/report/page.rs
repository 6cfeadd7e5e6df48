//! The page: a template with style, script and data put into their places.

use sha2::{Digest, Sha256};

use crate::cli::report::data::Data;

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The page that shows `data`. Nothing but its own script runs in it, and it loads nothing.
pub(super) fn page(data: &Data) -> serde_json::Result<String> {
    let style = format!("\n{STYLE}");
    let script = format!("\n{SCRIPT}");
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
        hash(&script),
        hash(&style)
    );
    let data = inert(&serde_json::to_string(data)?);
    let places = [
        ("@POLICY@", &policy),
        ("@STYLE@", &style),
        ("@DATA@", &data),
        ("@SCRIPT@", &script),
    ];
    // Each place is looked for behind the one before: what is put in is not looked at.
    let mut page = String::with_capacity(TEMPLATE.len() + data.len() + STYLE.len() + SCRIPT.len());
    let mut rest = TEMPLATE;
    for (place, text) in places {
        let (before, after) = rest.split_once(place).expect("the template has this place");
        page += before;
        page += text;
        rest = after;
    }
    Ok(page + rest)
}

/// JSON that may stand inside of a script element: in JSON, these are only in strings.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e")
}

/// What a content security policy calls the text of an element by.
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(bits);
        for i in 0..4 {
            text.push(if i <= chunk.len() {
                char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn no_text_ends_the_element_that_it_is_in() {
        let hostile = "</script><script>alert(1)</script><!-- ]]>";
        let json = inert(&serde_json::to_string(hostile).unwrap());
        assert!(!json.contains(['<', '>']));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }
}
