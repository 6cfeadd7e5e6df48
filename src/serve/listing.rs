//! The page of a directory, for browsers and `wget --recursive`.

use std::fmt::Write as _;

use crate::serve::files::{Entry, Files};

/// The page of the directory `path`. Links are relative to it.
pub(super) fn page(title: &str, files: &Files, path: &[u8]) -> String {
    let at = format!("{title}/{}", String::from_utf8_lossy(path));
    let at = escaped(&at);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{at}</title></head>\n\
         <body>\n<h1>{at}</h1>\n<table>\n"
    );
    for (path, entry) in files.below(path, false) {
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let (link, shown) = (encoded(name), escaped(&String::from_utf8_lossy(name)));
        // A link that begins with a name and a colon would be of another scheme.
        let _ = match entry {
            Entry::File(file) => writeln!(
                page,
                "<tr><td><a href=\"./{link}\">{shown}</a></td><td align=\"right\">{}</td></tr>",
                file.len
            ),
            Entry::Directory => writeln!(
                page,
                "<tr><td><a href=\"./{link}/\">{shown}/</a></td><td></td></tr>"
            ),
        };
    }
    page + "</table>\n</body>\n</html>\n"
}

/// `name` as a part of a URL's path.
fn encoded(name: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
