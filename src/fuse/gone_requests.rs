//! What the log of a mount need not have: answers to requests that are gone.

use std::io;

use log::{Level, Record};

/// Where fuser says that the kernel did not take an answer.
const SENDER: &str = "fuser::reply";
const NOT_SENT: &str = "Failed to send FUSE reply: ";

/// Whether a record of the log only says that the kernel no longer knows the request that was
/// answered.
///
/// fuser logs as an error whatever the kernel says to an answer. `ENOENT` says that no such request
/// waits. That is so whenever a reader is interrupted: fuser answers the notice of it too, and the
/// kernel, which looks for the interrupted request among those that the same thread has taken,
/// finds it answered, or another's. Nobody misses such an answer.
pub fn is_of_gone_request(record: &Record) -> bool {
    record.level() == Level::Error
        && record.target() == SENDER
        && record.args().to_string() == NOT_SENT.to_owned() + &gone().to_string()
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_left_out(level: Level, target: &str, text: &str) -> bool {
        let record = |args| {
            let mut record = Record::builder();
            record.level(level).target(target).args(args).build()
        };
        is_of_gone_request(&record(format_args!("{text}")))
    }

    #[test]
    fn only_what_fuser_says_of_requests_that_are_gone_is_left_out_of_the_log() {
        let not_sent = |errno| format!("{NOT_SENT}{}", io::Error::from_raw_os_error(errno));
        let text = not_sent(libc::ENOENT);
        assert_eq!(
            text,
            "Failed to send FUSE reply: No such file or directory (os error 2)"
        );
        assert!(is_left_out(Level::Error, SENDER, &text));
        for errno in [libc::EINVAL, libc::EFAULT, libc::EIO, libc::ENODEV] {
            assert!(!is_left_out(Level::Error, SENDER, &not_sent(errno)));
        }
        assert!(!is_left_out(Level::Warn, SENDER, &text));
        assert!(!is_left_out(Level::Error, "ckptfs::fuse", &text));
        assert!(!is_left_out(Level::Error, SENDER, &format!("{text}.")));
        assert!(!is_left_out(
            Level::Error,
            SENDER,
            &format!("model: {text}")
        ));
    }
}
