//! What writing a view to a directory would take, as text.

use indicatif::BinaryBytes;

use ckptfs::materialize::Outlook;
use ckptfs::text::counted;

/// What becomes of the files of a directory, and the space that there is for them.
pub(crate) fn writing_lines(outlook: &Outlook) -> String {
    let mut text = format!(
        "write  {}: {} to be written",
        counted(outlook.files, "file"),
        BinaryBytes(outlook.written_bytes)
    );
    if outlook.kept > 0 {
        let kept = BinaryBytes(outlook.kept_bytes);
        text += &format!(", {} complete already ({kept})", outlook.kept);
    }
    if outlook.linked > 0 {
        let linked = BinaryBytes(outlook.linked_bytes);
        text += &format!(", {} ({linked})", counted(outlook.linked, "hard link"));
    }
    if outlook.shared_bytes > 0 {
        let shared = BinaryBytes(outlook.shared_bytes);
        text += &format!(", {shared} that the filesystem may share with the sources");
    }
    if outlook.in_store {
        return text + "\n";
    }
    text += &match outlook.available {
        Some(available) => format!("\nspace  {} available\n", BinaryBytes(available)),
        None => "\nspace  unknown: the filesystem does not report it\n".to_owned(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_not_written_is_writing_lines() {
        let outlook = Outlook {
            files: 9,
            bytes: 10 << 30,
            kept: 1,
            kept_bytes: 1 << 30,
            linked: 2,
            linked_bytes: 2 << 30,
            shared_bytes: 3 << 30,
            written_bytes: 4 << 30,
            needed: 4 << 30,
            available: Some(5 << 30),
            in_store: false,
        };
        assert_eq!(
            writing_lines(&outlook),
            "write  9 files: 4.00 GiB to be written, 1 complete already (1.00 GiB), 2 hard links (2.00 GiB), 3.00 GiB that the filesystem may share with the sources\nspace  5.00 GiB available\n"
        );
    }
}
